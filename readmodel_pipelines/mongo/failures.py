"""What an error of the server means for a run, by its code and never by its words.

An error that is listed here is none of a document's fault: it ends the run, in words, and says nothing about what is
stored. Of a bulk write the errors of single writes and of the write concern count as well.

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
    # Nobody has the name of a certificate.
    11: "authentication failed",
}
"""Codes of a server that lets us not in, or not do something, in words."""
DUPLICATE_KEY = 11000

REPLACED = 175
"""What was read is dropped, or renamed."""

_DOWN = "it shuts down, or is no primary any more"
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
    # A shard was taken out meanwhile.
    70: "a shard is not there any more",
}
"""No server that could do it answers."""

_NO_STRICT = "Bring a client whose API is not strict: a rebuild says by identity what it writes to."
OF_THE_API: Mapping[int | None, str] = {
    498870: "Set READMODEL_API_VERSION=1.",
    322: "Unset READMODEL_API_VERSION, or set the version that the server has.",
    323: _NO_STRICT,
    324: _NO_STRICT,
}
"""It wants its stable API to be spoken, or not that one: what to do."""

_DISK = "free space on its disk, then run it again"
_KILLED = "run it again"
_BUSY = "check the load (db.currentOp()), and run it again"
_MEMORY = "`readmodel doctor` says which index is missing; or give the server more memory"
_MEMBERS = "see that most members of the replica set are up and keep pace (rs.status()), and run it again"
FAILED: Mapping[int | None, tuple[str, str]] = {
    14031: ("its disk is full", _DISK),
    39: ("it cannot write its files", _DISK),
    11601: ("the operation was killed or reached its time limit", _KILLED),
    237: ("the query was killed or reached its time limit", _KILLED),
    43: ("it has forgotten the query that it was asked to go on with", _KILLED),
    REPLACED: ("the collection was dropped or renamed during the read", _KILLED),
    50: ("it took longer than it may", _BUSY),
    202: ("it took longer than it may", _BUSY),
    262: ("it took longer than it may", _BUSY),
    24: ("it waited for a lock for too long", _BUSY),
    46: ("a lock is held by others", _BUSY),
    112: ("others wrote the same at that moment, again and again", _BUSY),
    146: ("it has not the memory for it", _MEMORY),
    292: ("it has not the memory for it", _MEMORY),
    64: ("not enough members confirmed a write in time", _MEMBERS),
    79: ("no such write concern is known there", _MEMBERS),
    100: ("not enough members are there to confirm a write", _MEMBERS),
    134: ("no majority of the members can be read from yet", _MEMBERS),
}
"""It answers, and cannot do it now: why, and what to do."""

_SHARD_IS_GONE = 70
GLITCHES = frozenset(code for code in UNREACHABLE if code != _SHARD_IS_GONE) | {
    # Somebody, or an election, ended the operation or forgot its cursor.
    11601,
    237,
    43,
    # Under the same name lies what took its place.
    REPLACED,
    # Others are busy.
    24,
    46,
    112,
    202,
    262,
    # A majority, or a shard, is about to know.
    134,
    63,
    150,
    234,
    13388,
}
"""Errors that pass: the same again comes through, once there is a primary. What people must mend is none of them."""

_LABELS = ("RetryableWriteError", "ResumableChangeStreamError", "RetryableError")


def is_glitch(error: BaseException) -> bool:
    """Whether an error passes by itself, so that what failed is to be tried again."""
    if isinstance(error, OperationFailure):
        return any(code in GLITCHES for code in codes_of(error)) or any(map(error.has_error_label, _LABELS))
    return isinstance(error, ConnectionFailure)


def codes_of(error: OperationFailure) -> list[int | None]:
    """The codes that tell what went wrong; a bulk write has its own for all of it, which tells nothing."""
    details = error.details or {}
    parts: Iterable[Mapping[str, Any]] = (
        *(details.get("writeConcernErrors") or ()),
        *(details.get("writeErrors") or ()),
    )
    return [error.code, *(item.get("code") for item in parts)]


def is_the_servers(code: int | None) -> bool:
    """Whether an error says nothing about a document, but about the server: it ends a run."""
    return code in DENIED or code in UNREACHABLE or code in FAILED


def raise_servers_own(writes: Iterable[Mapping[str, Any]], confirmations: Iterable[Mapping[str, Any]] = ()) -> None:
    """Raise the first error of a bulk write that is none of a document's fault, if there is one.

    What the server did not confirm may be rolled back, however well each write went.
    """
    for item in (*(item for item in writes if is_the_servers(item["code"])), *confirmations):
        raise OperationFailure(str(item.get("errmsg")), item["code"])
