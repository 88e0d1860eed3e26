"""A grammar of tasks that nobody should have written: every field, each type and hostile value of BSON, and twice."""

import struct
from collections.abc import Iterator
from typing import Any

from bson import Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from pymongo.errors import BulkWriteError

from readmodel_pipelines.events.exact import Odd, Repeated, written
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.verbs.repairing import task

ABSENT = object()


def text_of(value: bytes) -> bytes:
    return struct.pack("<i", len(value) + 1) + value + b"\0"


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def values(aggregate_id: str) -> dict[str, Any]:
    """What may stand in a field; `aggregate_id` is that of a chat, which its task would repair."""
    return {
        "absent": ABSENT,
        "null": None,
        "undefined": Odd(0x06, b""),
        "true": True,
        "empty": "",
        "blank": " ",
        "text": "nonsense",
        "long": "x" * 10_000,
        "no utf-8": "\udcff\udc80",
        "folds": "ta\u017fk",
        "other blank": "\u00a0chat",
        "zero byte": "chat\0",
        "bidi": "\u202e\n\r\x1b[2J",
        "code": Code("chat"),
        "code of an id": Code(aggregate_id),
        "code with scope": Code("chat", {"a": 1}),
        "symbol": Odd(0x0E, text_of(b"chat")),
        "symbol of an id": Odd(0x0E, text_of(aggregate_id.encode())),
        "symbol of a status": Odd(0x0E, text_of(b"pending")),
        "symbol of a task type": Odd(0x0E, text_of(b"readmodel_sync")),
        "pointer": Odd(0x0C, text_of(b"chats") + bytes(12)),
        "regex": Regex("^"),
        "regex of no utf-8": Odd(0x0B, b"\xff\0\0"),
        "least": MinKey(),
        "most": MaxKey(),
        "zero": 0,
        "nan": float("nan"),
        "infinity": float("inf"),
        "decimal nan": Decimal128("NaN"),
        "decimal": Decimal128("-9.9E+6144"),
        "int64": Int64(2**63 - 1),
        "least int64": Int64(-(2**63)),
        "far future": DatetimeMS(2**62),
        "far past": DatetimeMS(-(2**62)),
        "timestamp": Timestamp(1, 1),
        "object id": ObjectId(),
        "bytes": b"\xff\0",
        "bytes of a wrong length": Odd(0x05, struct.pack("<i", 4) + b"\x02\x09\0\0\0"),
        "document": {"a": 1},
        "operators": {"$set": {"status": "pending"}},
        "reference": {"$ref": 5},
        "dotted": {"a.b": 1, "": 2},
        "deep": deep(80),
        "list": [],
        "list of the right one": [aggregate_id, "chat", "pending", "readmodel_sync"],
        "list of anything": [[{"$a": Code("x")}], None, {"at": 1}],
    }


FIELDS = (
    *("_id", "aggregate_id", "aggregate_type", "task_type", "error", "created_at", "retry_count", "status"),
    *("last_retry_at", "completed_at", "next_attempt_at", "claimed_by", "lease_token", "lease_until"),
    *("attempts", "reason", "$set", "a.b", "size", "readmodel"),
)


WORST = ("null", "no utf-8", "code of an id", "symbol of a status", "pointer", "bytes of a wrong length", "operators")
"""These stand in tasks in work, too, and beside what ought to stand there."""


def variations(field: str, aggregate_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Tasks that are wrong in one field alone."""
    for name, value in values(aggregate_id).items():
        sound = {"_id": f"{field} {name}", **task(aggregate_id)}
        if value is ABSENT:
            yield name, {key: item for key, item in sound.items() if key != field or key == "_id"}
            continue
        yield name, {**sound, field: value}
        if name not in WORST:
            continue
        if field not in ("_id", "status"):
            yield f"{name}, in work", {**sound, "_id": f"{field} {name}, in work", "status": "processing", field: value}
        if field != "_id":
            for twice in ((sound.get(field, 1), value), (value, sound.get(field, 1))):
                place = "first" if twice[0] is value else "last"
                wrong = {**sound, "_id": f"{field} {name} {place}", field: Repeated(twice)}
                yield f"{name} {place}", wrong


def lay(database: Mongo, tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the tasks that MongoDB takes."""
    try:
        database.repair_queue.insert_many([RawBSONDocument(written(item)) for item in tasks], ordered=False)
    except BulkWriteError as error:
        refused = {item["index"] for item in error.details["writeErrors"]}
        return [item for place, item in enumerate(tasks) if place not in refused]
    return tasks
