"""The driver's client for a connection string: added options, ignored options, refused options."""

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
# For certificates and keys an OSError; for some options the driver raises TypeError and KeyError.
_UNUSABLE = (InvalidURI, ConfigurationError, InvalidName, ValueError, TypeError, KeyError, OSError)
_ONE_LOOKS = threading.Lock()


def client_of(settings: Settings) -> MongoClient[Document]:
    """A client for the server of the settings; without a URI, the embedded one, which is started.

    Raises:
        UsageError: the connection string is invalid.
        MongoUnavailable: the name server does not know the host.
    """
    # A pass holds a connection for each cursor, and renews its lease and writes beside them; a smaller pool would
    # block.
    options: dict[str, Any] = {"appname": "readmodel_pipelines", "maxPoolSize": _CONNECTIONS}
    if settings.mongodb_uri is None:
        # Only a run without a URI needs the embedded server.
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
        # Without a password, OpenSSL would ask for that of an encrypted key at the terminal, and wait forever.
        options["tlsCertificateKeyFilePassword"] = ""
    try:
        with _warnings():
            return MongoClient(uri, **options)
    except _UNUSABLE as error:
        if _is_of_the_name_server(error):
            raise MongoUnavailable(
                f"The host in {settings.shown_uri()} was not found: {without_secrets(error, settings)}",
                hint="Check the host name in READMODEL_MONGODB_URI. Check the name server too.",
            ) from None
        raise unusable(error, settings) from None


def unusable(error: Exception, settings: Settings) -> UsageError:
    """The driver's message for an invalid connection string."""
    said = without_secrets(error, settings)
    hint = "Use the form mongodb://user:password@host:27017/?replicaSet=rs0 with reserved characters %-escaped."
    if "Private key" in said:
        hint = (
            "tlsCertificateKeyFile names a file with a certificate and its key; if the key is encrypted, its password "
            "is tlsCertificateKeyFilePassword, with reserved characters %-escaped."
        )
    return UsageError(f"READMODEL_MONGODB_URI cannot be used: {said}", hint=hint)


def passed_over(settings: Settings) -> list[str]:
    """The options of the connection string that the driver ignores, and why."""
    uri = settings.mongodb_uri.get_secret_value() if settings.mongodb_uri else ""
    options = uri.rpartition("@")[2].partition("?")[2]
    return [told for option in re.split("[&;]", options) for told in _passed_over(option)]


def _passed_over(option: str) -> list[str]:
    with _warnings() as told:
        try:
            MongoClient[Any](f"mongodb://localhost/?{option}", connect=False).close()
        except _UNUSABLE:
            # It has an effect only with other options.
            return []
    name = option.partition("=")[0]
    return [f"{name}: {str(item.message).partition(' Did you mean')[0]}" for item in told if name]


@contextmanager
def _warnings() -> Iterator[list[warnings.WarningMessage]]:
    """The driver's warnings in the block, without the source line that Python would print."""
    # The target of warnings belongs to the whole process.
    with _ONE_LOOKS, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        yield told


def _is_of_the_name_server(error: Exception) -> bool:
    from dns.exception import DNSException

    return isinstance(error.__cause__, DNSException)


def without_secrets(error: Exception, settings: Settings) -> str:
    """The driver's message, if it contains no part of the URI before the last @ and no other password."""
    # The rest is the driver's view of the topology.
    text = str(error).partition(" (configured timeouts")[0].partition(", Timeout: ")[0]
    uri = settings.mongodb_uri.get_secret_value() if settings.mongodb_uri else ""
    credentials = uri.rpartition("@")[0]
    _, _, password = (credentials.partition("://")[2] or credentials).partition(":")
    secrets = {password, unquote(password), *re.split("[:/@?#]", password)}
    for found in SECRET_OPTION.finditer(uri):
        secrets |= {found[2], unquote_plus(found[2]), *re.split("[&;]", found[2])}
    hidden = any(secret in text for secret in secrets - {""})
    return "the driver's message would show the password" if hidden else text
