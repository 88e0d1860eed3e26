"""The errors that a person can cause or must act on: one small tree.

Every error carries a stable ``code``, a sentence that says what happened and why, and ``hint``: what to do now. The
code is the name of its class in small letters (`aggregate_not_found`), so that nobody renames one lightly.
Nothing in here ever holds a credential; see `readmodel_pipelines.settings.Settings.shown_uri`.
"""

import re
from collections.abc import Sequence

from readmodel_pipelines.wording import cut, one_line

FAULTS = (Exception, SystemExit)
"""What somebody else's code may raise; an interruption is no fault of its own."""

_LONGEST = 1_000


class ReadModelError(Exception):
    """Root of the tree. `str()` gives the sentence, on one line whatever is named in it, followed by what to do."""

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
    """What somebody else's code raised, and where, in one line: its traceback would bury what it happened to."""
    if isinstance(error, SyntaxError) and error.filename:
        # Whoever imported it is no matter.
        return one_line(f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})")
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = f" ({at.tb_frame.f_code.co_filename}, line {at.tb_lineno})" if at else ""
    return f"{kind_and_words(error)}{one_line(where)}"


def kind_and_words(error: BaseException) -> str:
    """What kind of error it is, and what it says."""
    return f"{type(error).__name__}: {words(error)}"


def words(error: BaseException) -> str:
    """What an error says, cut and as it can be stored, whatever its own code does."""
    try:
        said = str(error)
    except FAULTS:
        said = "it has no words, for its own code fails"
    return one_line(cut(said, _LONGEST))


class UsageError(ReadModelError):
    """The request itself is wrong: an id that is no UUID, a setting out of range, a file that is not there."""

    exit_code = 2


class UnsuitableCollection(UsageError):
    """A collection that the settings name is of a kind that cannot be read, or written, as it is to be."""


class WrongAggregateType(UsageError):
    """An event of one aggregate type was given to the projector of another."""


class EventRefused(UsageError):
    """An event that no read model could ever take was to be appended; nothing was saved."""


class NoCopy(UsageError):
    """A rebuild that is to be rolled back has no copy of what was before it."""

    code = "usage"


class AggregateNotFound(ReadModelError):
    """Neither an event nor a document exists for the id: most often a typing error."""


class ReadModelBusy(ReadModelError):
    """Somebody else holds the read model's lease: one full rebuild at a time. `on` is the name of what is leased."""

    def __init__(self, message: str, *, hint: str = "", on: str = "") -> None:
        super().__init__(message, hint=hint)
        self.on = on


class LeaseLost(ReadModelError):
    """Our lease ran out and was taken over; nothing more may be written under it."""


class ConcurrencyConflict(ReadModelError):
    """Somebody else appended to the stream first: read it again, decide again, save again."""


class RepairQueueFull(ReadModelError):
    """The repair queue holds as many open tasks as the settings allow."""


class RepairNotQueued(ReadModelError):
    """Events are saved, their read model is not up to date, and no repair could be queued for it."""


class OutOfOrder(ReadModelError):
    """A collection gives its keys in another order than that of their bytes: nothing can be compared with it."""


class MongoUnavailable(ReadModelError):
    """No MongoDB answers, it does not let us in, or we lack a right there.

    It `passes` when the server answered before, and does not, or does not do it, for a while: the same again goes on.
    """

    exit_code = 3
    passes = False


class ServerTooOld(MongoUnavailable):
    """The driver does not talk to a server of that age."""


class MongoFailed(MongoUnavailable):
    """MongoDB answers, and cannot do it now: its disk is full, somebody killed the operation, it took too long."""

    exit_code = 4


class NoEvents(ReadModelError):
    """A run over many aggregates, and not one event that they could be made from: most often a mistyped name.

    `read_models` are those that cannot be told right from wrong.
    """

    exit_code = 5

    def __init__(self, message: str, *, hint: str = "", read_models: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.read_models = tuple(read_models)


class DagsterUnavailable(ReadModelError):
    """No web server of Dagster's answers, it does not let us, or it does not have our jobs."""

    exit_code = 3


class EmbeddedServerError(MongoUnavailable):
    """The embedded mongod was not found or did not start."""
