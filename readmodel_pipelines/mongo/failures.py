"""The meaning of a server's error for a run, by its code and never by its text.

An error listed here is never the fault of a document: it ends the run with a sentence, and says nothing about the
stored data. For a bulk write, the errors of single writes and of the write concern count as well.

Codes: https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pymongo.errors import ConnectionFailure, OperationFailure

UNAUTHORIZED = 13
DENIED: Mapping[int | None, str] = {
    UNAUTHORIZED: "not authorized",
    18: "authentication failed",
    8000: "authentication failed",
    # The name in a certificate belongs to no user.
    11: "authentication failed",
}
"""Codes of a server that refuses the login or an operation, with their texts."""
DUPLICATE_KEY = 11000

REPLACED = 175
"""The collection was dropped or renamed during the read."""

_DOWN = "it shuts down, or is no longer the primary"
_NOT_REACHED = "a server behind it cannot be reached"
UNREACHABLE: Mapping[int | None, str] = {
    6: _NOT_REACHED,
    7: _NOT_REACHED,
    89: _NOT_REACHED,
    9001: _NOT_REACHED,
    91: _DOWN,
    189: _DOWN,
    10058: _DOWN,
    10107: _DOWN,
    11600: _DOWN,
    11602: _DOWN,
    13435: _DOWN,
    13436: _DOWN,
    133: "a shard, or the replica set, has no primary",
    # A shard was removed meanwhile.
    70: "a shard no longer exists",
}
"""No server answers that could do it."""

_NO_STRICT = "Use a client whose API is not strict, because a rebuild writes by UUID."
OF_THE_API: Mapping[int | None, str] = {
    498870: "Set READMODEL_API_VERSION=1.",
    322: "Unset READMODEL_API_VERSION, or set it to the version of the server.",
    323: _NO_STRICT,
    324: _NO_STRICT,
}
"""The server requires the Stable API, or another version of it; with the remedy."""

_DISK = "free space on its disk, then run the command again"
_KILLED = "run the command again"
_BUSY = "check the load (db.currentOp()), and run the command again"
_MEMORY = "create the index that `readmodel doctor` reports as missing, or give the server more memory"
_MEMBERS = "check with rs.status() that most members of the replica set are up and in step, and run the command again"
FAILED: Mapping[int | None, tuple[str, str]] = {
    14031: ("its disk is full", _DISK),
    39: ("it cannot write its files", _DISK),
    11601: ("the operation was killed or reached its time limit", _KILLED),
    237: ("the query was killed or reached its time limit", _KILLED),
    43: ("it no longer knows the cursor of the query", _KILLED),
    REPLACED: ("the collection was dropped or renamed during the read", _KILLED),
    50: ("it exceeded its time limit", _BUSY),
    202: ("it exceeded its time limit", _BUSY),
    262: ("it exceeded its time limit", _BUSY),
    24: ("it waited too long for a lock", _BUSY),
    46: ("others hold a lock", _BUSY),
    112: ("others wrote the same documents at every attempt", _BUSY),
    146: ("it has too little memory for it", _MEMORY),
    292: ("it has too little memory for it", _MEMORY),
    64: ("not enough members confirmed a write in time", _MEMBERS),
    79: ("it does not know this write concern", _MEMBERS),
    100: ("it has too few members to confirm a write", _MEMBERS),
    134: ("no majority of the members can be read yet", _MEMBERS),
}
"""The server answers, and the operation failed: the reason, and the remedy."""

_SHARD_IS_GONE = 70
GLITCHES = frozenset(code for code in UNREACHABLE if code != _SHARD_IS_GONE) | {
    # A person or an election ended the operation, or its cursor.
    11601,
    237,
    43,
    # Another collection has the same name now.
    REPLACED,
    # Others are busy.
    24,
    46,
    112,
    202,
    262,
    # A majority, or a shard, will know it soon.
    134,
    63,
    150,
    234,
    13388,
}
"""Transient errors: a repetition succeeds once there is a primary. Errors that people must fix are not among them."""

_LABELS = ("RetryableWriteError", "ResumableChangeStreamError", "RetryableError")


def is_glitch(error: BaseException) -> bool:
    """Whether an error is transient, so that the operation should be repeated."""
    if isinstance(error, OperationFailure):
        return any(code in GLITCHES for code in codes_of(error)) or any(map(error.has_error_label, _LABELS))
    return isinstance(error, ConnectionFailure)


def codes_of(error: OperationFailure) -> list[int | None]:
    """The codes that describe the error; a bulk write also has a general one, which does not."""
    details = error.details or {}
    parts: Iterable[Mapping[str, Any]] = (
        *(details.get("writeConcernErrors") or ()),
        *(details.get("writeErrors") or ()),
    )
    return [error.code, *(item.get("code") for item in parts)]


def is_the_servers(code: int | None) -> bool:
    """Whether an error concerns the server and not a document: it ends a run."""
    return code in DENIED or code in UNREACHABLE or code in FAILED


def raise_servers_own(writes: Iterable[Mapping[str, Any]], confirmations: Iterable[Mapping[str, Any]] = ()) -> None:
    """Raise the first error of a bulk write that is not the fault of a document, if any.

    Without the server's confirmation even successful writes may be rolled back.
    """
    for item in (*(item for item in writes if is_the_servers(item["code"])), *confirmations):
        raise OperationFailure(str(item.get("errmsg")), item["code"])
