"""What races: each verb in a process of its own, on one database, and what it told of itself when it ended."""

import json
import random
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from bson import ObjectId
from pymongo import monitoring
from pymongo.errors import PyMongoError

from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.driver import Database
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.rebuild import RebuildRequest, Slice, abort, rebuild, roll_back
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.repair.worker import RepairWorker
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.verification.coverage import Coverage
from readmodel_pipelines.verification.verify import VerificationRequest, verify
from readmodel_pipelines_tests.support.races.frozen import FreezesBeforeWrites, end_with_parent

NAMES: tuple[tuple[str, ...], ...] = ((), (), ("chat",), ("task",))
"""The read models of a rebuild, both more often than one."""

SLICES = 2
WRITER = "writer"
OWN = "races"
"""A field of the writers' own."""

_LATEST = 0.3
_PAUSE = 0.01


@dataclass(frozen=True)
class Told:
    """How a verb ended: well or not as it says itself, of which rebuild, and what went wrong."""

    verb: str
    ok: bool = False
    state: str = ""
    rebuild: str = ""
    error: str = ""
    message: str = ""
    trace: str = ""


def child(settings: Settings, verb: str, seed: str, seconds: float, freezes: float, told: str) -> None:
    """In a process of its own: do it, or write for so long, and write down what it told."""
    end_with_parent()
    if freezes:
        monitoring.register(FreezesBeforeWrites(seed, freezes))
    try:
        with open_database(settings) as database:
            chance = random.Random(seed)
            do = partial(_write, seconds) if verb == WRITER else VERBS[verb]
            outcome = do(database, settings, chance)
    except ReadModelError as error:
        outcome = Told(verb, error=type(error).__name__, message=str(error))
    except PyMongoError as error:
        # The command line tells these in words, too.
        outcome = Told(verb, error=f"driver: {type(error).__name__}", message=str(error)[:600], trace=_trace())
    except Exception:  # noqa: BLE001 - whatever it is, the race tells it
        outcome = Told(verb, error="traceback", message=_trace())
    Path(told).write_text(json.dumps(asdict(outcome)))


def _trace() -> str:
    return traceback.format_exc()


def _of(verb: str, summary: Summary) -> Told:
    about = summary.rebuild
    return Told(verb, summary.ok, str(about.state or ""), about.id or "", message="; ".join(summary.warnings)[:600])


def _rebuild(verb: str, database: Database, settings: Settings, chance: random.Random) -> Told:
    sliced = Slice(chance.randint(1, SLICES), SLICES) if verb == "slice" else None
    strategy: Any = "shadow" if verb == "shadow" else "in_place" if verb == "in_place" else _either(chance)
    request = RebuildRequest(
        strategy,
        resume=sliced is not None or chance.random() < 0.5,
        slice=sliced,
        campaign=f"campaign {time.time() // 4:.0f}" if sliced else "",
    )
    return _of(verb, rebuild(database, settings, chance.choice(NAMES), request))


def _either(chance: random.Random) -> str:
    return chance.choice(("in_place", "shadow"))


def _any_rebuild(database: Database, chance: random.Random, *states: RebuildState, **where: Any) -> str:
    wanted = {"kind": "rebuild", "state": {"$in": [*states]}, **where}
    newest = [item["_id"] for item in database.readmodel_rebuilds.find(wanted, sort=[("started_at", -1)], limit=3)]
    return chance.choice(newest) if newest else ""


def _abort(database: Database, settings: Settings, chance: random.Random) -> Told:
    found = _any_rebuild(database, chance, RebuildState.BUILDING, RebuildState.FINISHING, RebuildState.REFUSED)
    if not found:
        return Told("abort", ok=True)
    record = abort(database, settings, found)
    return Told("abort", ok=True, state=str(record.state), rebuild=record.id)


def _roll_back(database: Database, settings: Settings, chance: random.Random) -> Told:
    states = (RebuildState.DONE, RebuildState.ROLLING_BACK)
    found = _any_rebuild(database, chance, *states, strategy="shadow")
    return _of("rollback", roll_back(database, settings, found)) if found else Told("rollback", ok=True)


def _repair(database: Database, settings: Settings, _: random.Random) -> Told:
    return Told("repair", RepairWorker(database, settings).work(limit=200).ok)


def _verify(database: Database, settings: Settings, chance: random.Random) -> Told:
    coverage = Coverage(since_last=chance.random() < 0.5)
    return _of("verify", verify(database, settings, [], VerificationRequest(coverage, enqueue_repairs=True)))


def _rebuild_one(database: Database, settings: Settings, chance: random.Random) -> Told:
    some = [item["_id"] for item in database.events.aggregate([{"$group": {"_id": "$aggregate_id"}}])]
    return _of("rebuild_one", ReadModelProjector(database, settings).rebuild_one(chance.choice(sorted(some))))


def _write(seconds: float, database: Database, settings: Settings, chance: random.Random) -> Told:
    """The application: appends, projects a moment later, and queues a repair where it could not."""
    projector, until = ReadModelProjector(database, settings), time.monotonic() + seconds
    streams = [[*events] for _, events in groupby(chat_events(60, seed=chance.randrange(2**30), mean_events=20), _ID)]
    waiting: list[tuple[float, str]] = []
    own: dict[str, int] = {}
    while time.monotonic() < until or waiting:
        now = time.monotonic()
        if now < until and (left := [stream for stream in streams if stream]):
            event = chance.choice(left).pop(0)
            at = datetime.now(UTC)
            database.events.insert_one({**event, "_id": ObjectId(), "created_at": at, "occurred_at": at})
            waiting.append((now + chance.uniform(0, _LATEST), event["aggregate_id"]))
        for due, chat_id in [item for item in waiting if item[0] <= now]:
            waiting.remove((due, chat_id))
            _project(database, settings, projector, chat_id, fails=chance.random() < 0.1)
            if chance.random() < 0.5:
                _write_own(database, chat_id, own)
        time.sleep(_PAUSE)
    return Told(WRITER, ok=True, message=json.dumps(own))


_ID = itemgetter("aggregate_id")


def _project(database: Database, settings: Settings, projector: ReadModelProjector, chat_id: str, fails: bool) -> None:
    try:
        if fails:
            raise ReadModelError("The application had no time for it.")
        projector.rebuild_some([chat_id])
    except (PyMongoError, ReadModelError) as error:
        RepairQueue(database, settings).add(chat_id, "chat", str(error)[:200])


def _write_own(database: Database, chat_id: str, own: dict[str, int]) -> None:
    """Count up in the chat's document, if it is there."""
    value = own.get(chat_id, 0) + 1
    change = {"$set": {f"{OWN}.count": value, f"{OWN}_last": value}, "$push": {f"{OWN}.all": value}}
    if database.chats_read_model.update_one({"chat_id": chat_id}, change).matched_count:
        own[chat_id] = value


VERBS: Mapping[str, Callable[[Database, Settings, random.Random], Told]] = {
    **{name: partial(_rebuild, name) for name in ("in_place", "shadow", "slice")},
    "abort": _abort,
    "rollback": _roll_back,
    "repair": _repair,
    "verify": _verify,
    "rebuild_one": _rebuild_one,
}
