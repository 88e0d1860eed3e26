"""The driver's client of a connection string: what is added to what it says, what is passed over, what is refused."""

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, unquote_plus

from pymongo import MongoClient
from pymongo.errors import ConfigurationError, InvalidName, InvalidURI
from pymongo.server_api import ServerApi

from readmodel_pipelines.errors import MongoUnavailable, UsageError
from readmodel_pipelines.projections.projection import Document
from readmodel_pipelines.settings import SECRET_OPTION, Settings

_SELECTION_TIMEOUT_MS = 5_000
_CONNECTIONS = 100
# Of certificates and keys an OSError; the driver raises TypeError and KeyError for some options.
_UNUSABLE = (InvalidURI, ConfigurationError, InvalidName, ValueError, TypeError, KeyError, OSError)
_ONE_LOOKS = threading.Lock()


def client_of(settings: Settings) -> MongoClient[Document]:
    """A client of the server that the settings name; of the embedded one, which is started, where they name none.

    Raises:
        UsageError: the connection string cannot be used.
        MongoUnavailable: the name server does not know the host.
    """
    # A pass holds a connection for each cursor, and renews its lease and writes beside them: a smaller pool would hang.
    options: dict[str, Any] = {"appname": "readmodel_pipelines", "maxPoolSize": _CONNECTIONS}
    if settings.mongodb_uri is None:
        # Only a run without a URI pays for looking after a server.
        from readmodel_pipelines.embedded.server import ensure_running

        uri = ensure_running(settings)
    else:
        uri = settings.mongodb_uri.get_secret_value()
        if settings.api_version:
            options["server_api"] = ServerApi(settings.api_version)
    said = uri.lower()
    if "serverselectiontimeoutms" not in said:
        options["serverSelectionTimeoutMS"] = _SELECTION_TIMEOUT_MS
    if "tlscertificatekeyfile=" in said and "tlscertificatekeyfilepassword=" not in said:
        # Without one, an encrypted key would have somebody asked at the terminal, or nobody, for ever.
        options["tlsCertificateKeyFilePassword"] = ""
    try:
        with _warnings():
            return MongoClient(uri, **options)
    except _UNUSABLE as error:
        if _is_of_the_name_server(error):
            raise MongoUnavailable(
                f"The host in {settings.shown_uri()} was not found: {without_secrets(error, settings)}",
                hint="Check the host name in READMODEL_MONGODB_URI, and the name server.",
            ) from None
        raise unusable(error, settings) from None


def unusable(error: Exception, settings: Settings) -> UsageError:
    """What the driver says of a connection string that it cannot use."""
    said = without_secrets(error, settings)
    hint = "It looks like mongodb://user:password@host:27017/?replicaSet=rs0 with reserved characters %-escaped."
    if "Private key" in said:
        hint = (
            "tlsCertificateKeyFile names a file with a certificate and its key; if the key is encrypted, its password "
            "is tlsCertificateKeyFilePassword, with reserved characters %-escaped."
        )
    return UsageError(f"READMODEL_MONGODB_URI cannot be used: {said}", hint=hint)


def passed_over(settings: Settings) -> list[str]:
    """The options of the connection string that the driver does without, and why."""
    uri = settings.mongodb_uri.get_secret_value() if settings.mongodb_uri else ""
    options = uri.rpartition("@")[2].partition("?")[2]
    return [told for option in re.split("[&;]", options) for told in _passed_over(option)]


def _passed_over(option: str) -> list[str]:
    with _warnings() as told:
        try:
            MongoClient[Any](f"mongodb://localhost/?{option}", connect=False).close()
        except _UNUSABLE:
            # It makes sense with others alone.
            return []
    name = option.partition("=")[0]
    return [f"{name}: {str(item.message).partition(' Did you mean')[0]}" for item in told if name]


@contextmanager
def _warnings() -> Iterator[list[warnings.WarningMessage]]:
    """What the driver warns of in the block: by a line of its own source, which nobody wants to read."""
    # What warnings go to belongs to the whole process.
    with _ONE_LOOKS, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        yield told


def _is_of_the_name_server(error: Exception) -> bool:
    from dns.exception import DNSException

    return isinstance(error.__cause__, DNSException)


def without_secrets(error: Exception, settings: Settings) -> str:
    """What the driver says, if no part of what stands before the last @ of the URI is in it, nor another password."""
    # What follows is the driver's picture of the topology.
    text = str(error).partition(" (configured timeouts")[0].partition(", Timeout: ")[0]
    uri = settings.mongodb_uri.get_secret_value() if settings.mongodb_uri else ""
    credentials = uri.rpartition("@")[0]
    _, _, password = (credentials.partition("://")[2] or credentials).partition(":")
    secrets = {password, unquote(password), *re.split("[:/@?#]", password)}
    for found in SECRET_OPTION.finditer(uri):
        secrets |= {found[2], unquote_plus(found[2]), *re.split("[&;]", found[2])}
    hidden = any(secret in text for secret in secrets - {""})
    return "the driver's own words would tell the password" if hidden else text
