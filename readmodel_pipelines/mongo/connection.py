"""The connection: from the settings to a database that reads from the primary with majority read and write concern.

These concerns and the codec are independent of the connection string. A lagging secondary or a rolled-back write would
falsify a verification, and dates of another type would end it.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pymongo import MongoClient, common
from pymongo.errors import ConfigurationError, ConnectionFailure, NotPrimaryError, OperationFailure

from readmodel_pipelines.errors import (
    MongoFailed,
    MongoUnavailable,
    ReadModelError,
    ServerTooOld,
    UnsuitableCollection,
    UsageError,
)
from readmodel_pipelines.mongo.client import client_of, unusable, without_secrets
from readmodel_pipelines.mongo.driver import DENIED, UNAUTHORIZED, Database, Document, ours
from readmodel_pipelines.mongo.failures import FAILED, OF_THE_API, UNREACHABLE, codes_of, is_glitch
from readmodel_pipelines.mongo.kinds import OF_VIEWS
from readmodel_pipelines.mongo.patience import Patience, patiently, retrying
from readmodel_pipelines.settings import Settings

# The driver's unfinished cleanup after an outage is no useful message at a terminal.
logging.getLogger("pymongo.client").addHandler(logging.NullHandler())

_INVALID = 121


@contextmanager
def open_database(
    settings: Settings,
    role: str = "",
    *,
    tell: Callable[[str], object] | None = None,
    met: bool = False,
    waits: bool = True,
) -> Iterator[Database]:
    """The database of the settings; without a URI on the embedded server, which is started if needed.

    Errors of the driver that a person must act on become `MongoUnavailable`, also from the body of the `with`.
    Transient errors are waited for, with a message to `tell`, once a server has answered or if one was `met` before. A
    command that only shows something does not wait. `role` names the role that the user should have
    (`readmodel_pipelines.mongo.rights`); errors list its missing rights.

    Raises:
        UsageError: the connection string is invalid.
        MongoUnavailable: no server answers, it refuses the login, or a right is missing.
        MongoFailed: the server answers, and an operation failed.
    """
    patience = Patience(settings.failover_seconds if waits else 0, tell or (lambda _: None), met)
    with errors_in_words(settings, lambda: patience.met), retrying(patience):
        client = client_of(settings)
        try:
            database = ours(client[settings.database])
            if waits and settings.mongodb_uri is not None:
                _refuse_a_secondary(client, settings, patience)
            yield database
        except ConfigurationError as error:
            if client.options.load_balanced:
                raise unusable(error, settings) from None
            if not _is_too_old(client):
                raise
            raise ServerTooOld(
                f"The server is older than MongoDB {common.MIN_SUPPORTED_SERVER_VERSION}, the oldest that the driver "
                "talks to.",
                hint="Upgrade the server; `readmodel doctor` shows the required version.",
            ) from None
        except ConnectionFailure:
            # The driver does not count a server that refuses the handshake.
            if (refusal := _refusal(client)) is None:
                raise
            raise refusal from None
        except OperationFailure as error:
            if error.code != UNAUTHORIZED:
                raise
            # Only a user without a right needs this import.
            from readmodel_pipelines.mongo.rights import missing_rights

            told, hint = missing_rights(database, settings, role, error)
            raise MongoUnavailable(
                f"MongoDB at {settings.shown_uri()} refuses: {DENIED[UNAUTHORIZED]}. {told}", hint=hint
            ) from None
        finally:
            client.close()


def _refuse_a_secondary(client: MongoClient[Document], settings: Settings, patience: Patience) -> None:
    """Refuse a secondary: with a direct connection it answers even if it lags, so its data could be old."""
    if client.topology_description.topology_type_name != "Single":
        return

    def look() -> None:
        if not client.is_primary:
            raise NotPrimaryError("directConnection")

    try:
        if patience.met:
            patiently(look, client)
        else:
            look()
    except NotPrimaryError:
        refused = MongoUnavailable(
            f"MongoDB at {settings.shown_uri()} is no primary, and directConnection allows no other member. Its data "
            "may lag, and it accepts no writes.",
            hint="Remove directConnection from READMODEL_MONGODB_URI, and add replicaSet=… with the name of the set.",
        )
        refused.passes = patience.met
        raise refused from None


def _refusal(client: MongoClient[Document]) -> OperationFailure | None:
    errors = (item.error for item in client.topology_description.server_descriptions().values())
    return next((item for item in errors if isinstance(item, OperationFailure) and item.code in OF_THE_API), None)


def _is_too_old(client: MongoClient[Document]) -> bool:
    known = client.topology_description.server_descriptions().values()
    return any(
        item.is_server_type_known and item.max_wire_version < common.MIN_SUPPORTED_WIRE_VERSION for item in known
    )


@contextmanager
def errors_in_words(settings: Settings, met: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Errors of the driver that a person must act on become `MongoUnavailable`, without credentials.

    A transient error of a server that was `met` before is marked as such.
    """
    where = f"MongoDB at {settings.shown_uri()}"
    try:
        yield
    except OperationFailure as error:
        of_documents = (error.details or {}).get("writeErrors") or ()
        if _INVALID in (error.code, *(item.get("code") for item in of_documents)):
            raise ReadModelError(
                f"{where} refuses a write, because of the validator of its collection.",
                hint="Change that validator (collMod). DATA_CONTRACT.md has the fields written to the repair queue and "
                "to readmodel_….",
            ) from None
        told = _in_words(error, where, without_secrets(error, settings)[:300])
        if told is None:
            raise
        if isinstance(told, MongoUnavailable):
            told.passes = is_glitch(error) and met()
        raise told from None
    # Every network error, and the timeout of server selection.
    except ConnectionFailure as error:
        gone = MongoUnavailable(
            f"{where} does not answer: {without_secrets(error, settings)[:300]}", hint=_what_to_check(str(error), met())
        )
        gone.passes = met()
        raise gone from None


def _in_words(error: OperationFailure, where: str, said: str) -> ReadModelError | None:
    """The meaning of a server's error; None for another error."""
    for code in codes_of(error):
        if code in OF_VIEWS:
            return UnsuitableCollection(
                f"{where}: a view or a time series has the name of a required collection. The server's message: {said}",
                hint="`readmodel doctor` shows its name and the remedy.",
            )
        if code in UNREACHABLE:
            return MongoUnavailable(
                f"{where} does not answer: {UNREACHABLE[code]}.",
                hint="Check the server, or run `readmodel server status`. Then run the command again.",
            )
        if code in FAILED:
            why, hint = FAILED[code]
            return MongoFailed(
                f"{where} could not do it: {why} (error {code}). The server's message: {said}",
                hint=f"Completed work stays. To continue, {hint}.",
            )
        if code in DENIED:
            return MongoUnavailable(
                f"{where} refuses: {DENIED[code]}. {said}",
                hint="Check user, password and authSource in READMODEL_MONGODB_URI. Reserved characters must be "
                "%-escaped, also a + (%2B). Without authSource the user is searched in the database that the path "
                "names.",
            )
        if code in OF_THE_API:
            return UsageError(f"{where} does not accept our commands: {said}", hint=OF_THE_API[code])
    return None


def _what_to_check(said: str, met: bool) -> str:
    """The hint if no server answers; about TLS only if none was `met`."""
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return (
            "In READMODEL_MONGODB_URI, set tlsCAFile to the authority of the server's certificate, and use the host "
            "name of that certificate."
        )
    if not met and ("connection closed" in said or "SSL" in said):
        return (
            "If the server requires TLS, add tls=true to READMODEL_MONGODB_URI, tlsCAFile for a private authority, and "
            "tlsCertificateKeyFile if it requires a certificate, which must be trusted and valid. The server's log has "
            "the reason."
        )
    return "Check READMODEL_MONGODB_URI, the network and the server. `readmodel doctor` checks again."
