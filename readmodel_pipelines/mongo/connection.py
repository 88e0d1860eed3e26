"""The connection: from the settings to a database that reads from the primary with majority read and write concern.

Those concerns, and how values are decoded, hold whatever the connection string says: a secondary that lags, or a write
that is rolled back, would make a verification lie, and dates of another type would end it.
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
from readmodel_pipelines.mongo.patience import Patience, at_work, patiently
from readmodel_pipelines.settings import Settings

# What the driver could not tidy up while there was no server is no news to whoever reads a terminal.
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
    """The database of the settings, on the embedded server (started when it does not run) when no URI is set.

    Errors of the driver that a person must act on come out as `MongoUnavailable`, from the body of the `with` too.
    Those that pass are waited for, which `tell` is told, once a server has answered, or if one was `met` before; but
    not by who only looks, and had better say at once what is there.
    `role` names what the user ought to have (`readmodel_pipelines.mongo.rights`), to say what is lacking of it.

    Raises:
        UsageError: the connection string cannot be read.
        MongoUnavailable: no server answers, or it lets us not in, or we lack a right.
        MongoFailed: it answers, and cannot do it now.
    """
    patience = Patience(settings.failover_seconds if waits else 0, tell or (lambda _: None), met)
    with errors_in_words(settings, lambda: patience.met), at_work(patience):
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
                hint="Upgrade the server; `readmodel doctor` says to which version.",
            ) from None
        except ConnectionFailure:
            # A server that refuses to greet us is no server to the driver.
            if (refusal := _refusal(client)) is None:
                raise
            raise refusal from None
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


def _refuse_a_secondary(client: MongoClient[Document], settings: Settings, patience: Patience) -> None:
    """Whoever is asked directly answers, also one that lags: what is read there would be told as the truth."""
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
            f"MongoDB at {settings.shown_uri()} is no primary, and nobody else is asked (directConnection): what is "
            "read there may lag, and it takes no writes.",
            hint="Take directConnection out of READMODEL_MONGODB_URI, and name the replica set (replicaSet=…).",
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
    """Errors of the driver that a person must act on come out as `MongoUnavailable`, without credentials.

    One that passes, of a server that was `met` before, says so.
    """
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
        told = _in_words(error, where, without_secrets(error, settings)[:300])
        if told is None:
            raise
        if isinstance(told, MongoUnavailable):
            told.passes = is_glitch(error) and met()
        raise told from None
    # Every network error, and the time-out of server selection.
    except ConnectionFailure as error:
        gone = MongoUnavailable(
            f"{where} does not answer: {without_secrets(error, settings)[:300]}", hint=_what_to_check(str(error), met())
        )
        gone.passes = met()
        raise gone from None


def _in_words(error: OperationFailure, where: str, said: str) -> ReadModelError | None:
    """What the server means; None of an error that is not its own."""
    for code in codes_of(error):
        if code in OF_VIEWS:
            return UnsuitableCollection(
                f"{where}: a view, or a time series, lies where a collection is needed. It says: {said}",
                hint="`readmodel doctor` says which, and what to do.",
            )
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
                hint="Check user, password and authSource in READMODEL_MONGODB_URI; reserved characters are %-escaped, "
                "also a + (%2B), and without authSource the user is looked for in the database that the path names.",
            )
        if code in OF_THE_API:
            return UsageError(f"{where} does not take our commands: {said}", hint=OF_THE_API[code])
    return None


def _what_to_check(said: str, met: bool) -> str:
    """When nobody answers; what is said of TLS, where one may have been `met`, is over."""
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return (
            "Name the authority that made the server's certificate in tlsCAFile of READMODEL_MONGODB_URI, and the host "
            "as that certificate names it."
        )
    if not met and ("connection closed" in said or "SSL" in said):
        return (
            "If the server wants TLS: tls=true in READMODEL_MONGODB_URI, tlsCAFile for an authority of your own, and "
            "tlsCertificateKeyFile where it wants a certificate, one that it trusts and that is not over. Its log says."
        )
    return "Check READMODEL_MONGODB_URI, the network and the server, or `readmodel server status`."
