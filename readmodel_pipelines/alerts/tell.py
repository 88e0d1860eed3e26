"""Sends alerts to the webhook (in Slack's format) and by mail, as the settings say, with the standard library.

The settings' values are secret, so an error only contains the name of the setting.
"""

import http.client
import json
import smtplib
import urllib.error
import urllib.request
from email.message import EmailMessage
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import SecretStr

from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.wording import cut, one_line, storable

_SECONDS = 10.0
_LONGEST = 3_000
_LONGEST_SUBJECT = 150


class NotTold(ReadModelError):
    """The webhook or the mail server did not accept the alert."""


def tells_anybody(settings: Settings) -> bool:
    """Whether the settings name a recipient."""
    return settings.alert_webhook is not None or settings.alert_mail is not None


def tell(settings: Settings, subject: str, text: str) -> None:
    """Send the alert to all recipients; if one fails, the other still gets it.

    Raises:
        NotTold: a recipient did not accept it.
    """
    subject, text = storable(one_line(cut(subject, _LONGEST_SUBJECT))), storable(cut(text, _LONGEST))
    failed = []
    if settings.alert_webhook is not None:
        failed += _failed("READMODEL_ALERT_WEBHOOK", lambda url: _post(url, subject, text), settings.alert_webhook)
    if settings.alert_mail is not None:
        failed += _failed("READMODEL_ALERT_MAIL", lambda url: _mail(url, subject, text), settings.alert_mail)
    if failed:
        raise NotTold(
            f"The alert did not reach every receiver: {subject}. {' '.join(failed)}",
            hint="Check these settings. Check also that this machine can reach those servers.",
        )


def _failed(setting: str, send: object, secret: SecretStr) -> list[str]:
    try:
        send(secret.get_secret_value())  # type: ignore[operator]
    except urllib.error.HTTPError as error:
        error.close()
        return [f"{setting}: it answers with HTTP {error.code}."]
    except smtplib.SMTPResponseException as error:
        return [f"{setting}: the mail server answers with {error.smtp_code}."]
    # The message of the library may contain the address.
    except (OSError, http.client.HTTPException, smtplib.SMTPException, ValueError) as error:
        return [f"{setting}: {type(getattr(error, 'reason', error)).__name__}."]
    return []


def _post(url: str, subject: str, text: str) -> None:
    body = json.dumps({"text": f"{subject}\n{text}"}).encode("ascii")
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - the settings take http alone
    with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
        answer.read()


def _mail(url: str, subject: str, text: str) -> None:
    parts = urlsplit(url)
    asked = parse_qs(parts.query)
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = subject, asked["from"][0], ", ".join(asked["to"])
    message.set_content(text)
    encrypted = parts.scheme == "smtps"
    connect = smtplib.SMTP_SSL if encrypted else smtplib.SMTP
    with connect(parts.hostname or "", parts.port or (465 if encrypted else 25), timeout=_SECONDS) as server:
        server.ehlo()
        if not encrypted and server.has_extn("starttls"):
            server.starttls()
            server.ehlo()
        if parts.username is not None:
            server.login(unquote(parts.username), unquote(parts.password or ""))
        server.send_message(message)
