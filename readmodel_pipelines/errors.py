"""The errors that a person can cause or must act on: one small tree.

Every error has a stable ``code``, a sentence with the event and its reason, and ``hint``, the remedy. The code is the
name of its class in small letters (`aggregate_not_found`), so renaming a class changes an interface. No error ever
holds a credential; see `readmodel_pipelines.settings.Settings.shown_uri`.
"""

import re
from collections.abc import Sequence

from readmodel_pipelines.wording import cut, one_line

FAULTS = (Exception, SystemExit)
"""Errors that foreign code may raise; an interruption is not one."""

_LONGEST = 1_000


class ReadModelError(Exception):
    """Any other error of this project.

    Root of the tree. `str()` gives the sentence, on one line whatever it names, followed by the hint.
    """

    code = "error"
    exit_code = 1

    def __init_subclass__(cls) -> None:
        named = re.sub(r"\B[A-Z]", r"_\g<0>", cls.__name__).lower().removesuffix("_error")
        cls.code = cls.__dict__.get("code", named)

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        message = one_line(self.message)
        return f"{message}\n{self.hint}" if self.hint else message


def raised(error: BaseException) -> str:
    """An error of foreign code and its place, in one line, because a traceback would hide the subject."""
    if isinstance(error, SyntaxError) and error.filename:
        # The importing module does not matter.
        return one_line(f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})")
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = f" ({at.tb_frame.f_code.co_filename}, line {at.tb_lineno})" if at else ""
    return f"{kind_and_words(error)}{one_line(where)}"


def kind_and_words(error: BaseException) -> str:
    """The type of an error and its message."""
    return f"{type(error).__name__}: {words(error)}"


def words(error: BaseException) -> str:
    """The message of an error, shortened and storable, even if its own code fails."""
    try:
        said = str(error)
    except FAULTS:
        said = "it has no message, because its own code fails"
    return one_line(cut(said, _LONGEST))


class UsageError(ReadModelError):
    """The request is wrong: the id is no UUID, a setting is out of range, a file does not exist."""

    exit_code = 2


class UnsuitableCollection(UsageError):
    """A setting names a collection of a kind that cannot be used for this, such as a view or a time series."""


class WrongAggregateType(UsageError):
    """The event belongs to another aggregate type than the projector."""


class EventRefused(UsageError):
    """The event would make its stream malformed. Nothing was saved."""


class NoCopy(UsageError):
    """The rebuild kept no copy of the previous documents, so it cannot be rolled back."""

    code = "usage"


class AggregateNotFound(ReadModelError):
    """No event and no document has this id. Usually the id is mistyped."""


class ReadModelBusy(ReadModelError):
    """Another run holds the lease of the read model, which allows one full rebuild at a time.

    `on` is the name of the lease.
    """

    def __init__(self, message: str, *, hint: str = "", on: str = "") -> None:
        super().__init__(message, hint=hint)
        self.on = on


class LeaseLost(ReadModelError):
    """The lease of this run expired, or another run took it over. This run wrote nothing more."""


class ConcurrencyConflict(ReadModelError):
    """Another writer appended to the stream first. Read it again, decide again, and save again."""


class RepairQueueFull(ReadModelError):
    """The repair queue holds `READMODEL_REPAIR_QUEUE_LIMIT` open tasks and accepts no more."""


class RepairNotQueued(ReadModelError):
    """The events are saved, the read model is behind, and no repair could be queued."""


class OutOfOrder(ReadModelError):
    """A collection returned its keys in another order than that of their bytes, so it cannot be compared."""

    exit_code = 4


class MongoUnavailable(ReadModelError):
    """MongoDB does not answer, refuses the login, or the user lacks a right.

    It `passes` if the server answered before: the same command can succeed a while later.
    """

    exit_code = 3
    passes = False


class ServerTooOld(MongoUnavailable):
    """The server is older than the driver supports."""


class MongoFailed(MongoUnavailable):
    """MongoDB answers, and the operation failed: a full disk, a killed operation, a time limit."""

    exit_code = 4


class NoEvents(ReadModelError):
    """A run over many aggregates found no event at all. Usually a name in the settings is mistyped.

    `read_models` are those that cannot be verified.
    """

    exit_code = 5

    def __init__(self, message: str, *, hint: str = "", read_models: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.read_models = tuple(read_models)


class DagsterUnavailable(ReadModelError):
    """Dagster's web server does not answer, refuses the request, or does not have the jobs of this project."""

    exit_code = 3


class EmbeddedServerError(MongoUnavailable):
    """The embedded `mongod` was not found or did not start."""
