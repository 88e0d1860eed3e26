"""The connection: from the settings to a database that reads from the primary with majority read and write concern.

Those concerns, and how values are decoded, hold whatever the connection string says: a secondary that lags, or a write
that is rolled back, would make a verification lie, and dates of another type would end it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

from pymongo import MongoClient, common
from pymongo.errors import ConfigurationError, ConnectionFailure, InvalidName, InvalidURI, OperationFailure

from readmodel_pipelines.errors import MongoFailed, MongoUnavailable, ReadModelError, ServerTooOld, UsageError
from readmodel_pipelines.mongo.driver import DENIED, UNAUTHORIZED, Database, Document, ours
from readmodel_pipelines.mongo.failures import FAILED, UNREACHABLE, codes_of
from readmodel_pipelines.settings import Settings

_SELECTION_TIMEOUT_MS = 5_000
_INVALID = 121
_CONNECTIONS = 100


@contextmanager
def open_database(settings: Settings, role: str = "") -> Iterator[Database]:
    """The database of the settings, on the embedded server (started when it does not run) when no URI is set.

    Errors of the driver that a person must act on come out as `MongoUnavailable`, from the body of the `with` too.
    `role` names what the user ought to have (`readmodel_pipelines.mongo.rights`), to say what is lacking of it.

    Raises:
        UsageError: the connection string cannot be read.
        MongoUnavailable: no server answers, or it lets us not in, or we lack a right.
        MongoFailed: it answers, and cannot do it now.
    """
    with errors_in_words(settings):
        client = _client(settings)
        try:
            database = ours(client[settings.database])
            yield database
        except ConfigurationError:
            if not _is_too_old(client):
                raise
            raise ServerTooOld(
                f"The server is older than MongoDB {common.MIN_SUPPORTED_SERVER_VERSION}, the oldest that the driver "
                "talks to.",
                hint="Upgrade the server; `readmodel doctor` says to which version.",
            ) from None
        except OperationFailure as error:
            if error.code != UNAUTHORIZED:
                raise
            # Only who lacks a right pays for knowing them.
            from readmodel_pipelines.mongo.rights import what_is_lacking

            told, hint = what_is_lacking(database, settings, role, error)
            raise MongoUnavailable(
                f"MongoDB at {settings.shown_uri()} refuses: {DENIED[UNAUTHORIZED]}. {told}", hint=hint
            ) from None
        finally:
            client.close()


def _is_too_old(client: MongoClient[Document]) -> bool:
    known = client.topology_description.server_descriptions().values()
    return any(
        item.is_server_type_known and item.max_wire_version < common.MIN_SUPPORTED_WIRE_VERSION for item in known
    )


def _client(settings: Settings) -> MongoClient[Document]:
    # A pass holds a connection for each cursor, and renews its lease and writes beside them: a smaller pool would hang.
    options: dict[str, Any] = {"appname": "readmodel_pipelines", "maxPoolSize": _CONNECTIONS}
    if settings.mongodb_uri is None:
        # Only a run without a URI pays for looking after a server.
        from readmodel_pipelines.embedded.server import ensure_running

        uri = ensure_running(settings)
    else:
        uri = settings.mongodb_uri.get_secret_value()
    if "serverselectiontimeoutms" not in uri.lower():
        options["serverSelectionTimeoutMS"] = _SELECTION_TIMEOUT_MS
    try:
        return MongoClient(uri, **options)
    # An OSError is a certificate or key that cannot be read; the driver raises TypeError and KeyError for some options.
    except (InvalidURI, ConfigurationError, InvalidName, ValueError, TypeError, KeyError, OSError) as error:
        if _is_of_the_name_server(error):
            raise MongoUnavailable(
                f"The host in {settings.shown_uri()} was not found: {_without_secrets(error, settings)}",
                hint="Check the host name in READMODEL_MONGODB_URI, and the name server.",
            ) from None
        raise UsageError(
            f"READMODEL_MONGODB_URI cannot be used: {_without_secrets(error, settings)}",
            hint="It looks like mongodb://user:password@host:27017/?replicaSet=rs0 with reserved characters %-escaped.",
        ) from None


def _is_of_the_name_server(error: Exception) -> bool:
    from dns.exception import DNSException

    return isinstance(error.__cause__, DNSException)


@contextmanager
def errors_in_words(settings: Settings) -> Iterator[None]:
    """Errors of the driver that a person must act on come out as `MongoUnavailable`, without credentials."""
    where = f"MongoDB at {settings.shown_uri()}"
    try:
        yield
    except OperationFailure as error:
        of_documents = (error.details or {}).get("writeErrors") or ()
        if _INVALID in (error.code, *(item.get("code") for item in of_documents)):
            raise ReadModelError(
                f"{where} refuses a write that the validator of its collection does not take.",
                hint="Change that validator (collMod): DATA_CONTRACT.md has the fields that are written to the repair "
                "queue and to readmodel_….",
            ) from None
        told = _in_words(error, where, _without_secrets(error, settings)[:300])
        if told is None:
            raise
        raise told from None
    # Every network error, and the time-out of server selection.
    except ConnectionFailure as error:
        raise MongoUnavailable(
            f"{where} does not answer: {_without_secrets(error, settings)[:300]}",
            hint="Check READMODEL_MONGODB_URI, the network and the server, or `readmodel server status`.",
        ) from None


def _in_words(error: OperationFailure, where: str, said: str) -> MongoUnavailable | None:
    """What the server means; None of an error that is not its own."""
    for code in codes_of(error):
        if code in UNREACHABLE:
            return MongoUnavailable(
                f"{where} does not answer: {UNREACHABLE[code]}.",
                hint="Check the server, or `readmodel server status`, and run it again.",
            )
        if code in FAILED:
            why, hint = FAILED[code]
            return MongoFailed(
                f"{where} could not do it: {why} (error {code}). It says: {said}",
                hint=f"What was done until then stays; {hint}.",
            )
        if code in DENIED:
            return MongoUnavailable(
                f"{where} refuses: {DENIED[code]}. {said}",
                hint="Check user, password and authSource in READMODEL_MONGODB_URI.",
            )
    return None


def _without_secrets(error: Exception, settings: Settings) -> str:
    """What the driver says, if no part of what stands before the last @ of the URI is in it."""
    # What follows is the driver's picture of the topology.
    text = str(error).partition(" (configured timeouts")[0]
    uri = settings.mongodb_uri.get_secret_value() if settings.mongodb_uri else ""
    credentials = uri.rpartition("@")[0]
    _, _, password = (credentials.partition("://")[2] or credentials).partition(":")
    secrets = {password, unquote(password), *re.split("[:/@?#]", password)} - {""}
    return "the driver's own words would tell the password" if any(secret in text for secret in secrets) else text
