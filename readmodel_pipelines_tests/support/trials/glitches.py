"""Trials of glitches: every verb, with the line to its server cut at one of its commands, ends as it does without.

What it gives and what lies in the database are compared with a run that nothing happened to, but for times and ids that
are drawn anew each time.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_args

import pytest
from bson import ObjectId
from pydantic import SecretStr

from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.moments import Moment
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.names import LEASES
from readmodel_pipelines.pacing import BatchSize
from readmodel_pipelines.rebuild import RebuildRequest, Slice, rebuild
from readmodel_pipelines.rebuild.rollback import roll_back
from readmodel_pipelines.rebuild.verbs import abort
from readmodel_pipelines.repair.worker import RepairWorker
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.verification.coverage import Bucket, Coverage
from readmodel_pipelines.verification.verify import VerificationRequest, verify, verify_fresh
from readmodel_pipelines_tests.support.at_a_moment import killed_at
from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.scene import uuid as named
from readmodel_pipelines_tests.support.servers.faulty_line import Cut, FaultyLine, Way
from readmodel_pipelines_tests.support.verbs.repairing import put, task

Verb = Callable[[Scene], Any]

_DRAWN = frozenset(
    {"id", "at", "seconds", "started_at", "first_seen", "age_seconds", "event_id", "rebuild", "of", "shadows"}
    | {"_data", "lease_token", "claimed_by", "holder", "by", "copies", "lives", "runs"}
)


def _full(scene: Scene, **options: Any) -> Any:
    return rebuild(scene.database, scene.settings, (), RebuildRequest(**options)).as_json()


def _look(scene: Scene, **options: Any) -> Any:
    return verify(scene.database, scene.settings, (), VerificationRequest(**options)).as_json()


def _repair(scene: Scene) -> Any:
    summary = RepairWorker(scene.database, scene.settings, draw=lambda _, longest: longest).work()
    return {name: repr(getattr(summary, name)) for name in summary.__slots__ if name != "seconds"}


def _queue(scene: Scene) -> RepairQueue:
    return RepairQueue(scene.database, scene.settings)


def _last(scene: Scene) -> str:
    return str(Rebuilds(scene.database).listed(1)[0]["_id"])


VERBS: Mapping[str, Verb] = {
    "verify": _look,
    "verify and queue repairs": lambda scene: _look(scene, enqueue_repairs=True),
    "verify by versions": lambda scene: _look(scene, tier="versions"),
    "verify what changed": lambda scene: _look(scene, coverage=Coverage(bucket=Bucket(1, 2), since_last=True)),
    "verify what is fresh": lambda scene: verify_fresh(scene.database, scene.settings, ()).as_json(),
    "verify one": lambda scene: scene.projector().verify_consistency(named("wrong")).as_json(),
    "dry run": lambda scene: scene.projector().rebuild_all(dry_run=True).as_json(),
    "rebuild in place": _full,
    "rebuild in a shadow": lambda scene: _full(scene, strategy="shadow"),
    "rebuild a slice": lambda scene: _full(scene, slice=Slice(1, 1)),
    "resume in place": lambda scene: _full(scene, resume=True),
    "resume a shadow": lambda scene: _full(scene, resume=True, strategy="shadow"),
    "rebuild one": lambda scene: scene.projector().rebuild_one(named("wrong")).as_json(),
    "roll back": lambda scene: roll_back(scene.database, scene.settings, _last(scene)).as_json(),
    "abort": lambda scene: abort(scene.database, scene.settings, _last(scene)).state.value,
    "repair": _repair,
    "queue a repair": lambda scene: _queue(scene).add(named("right 1"), "chat"),
    "requeue": lambda scene: _queue(scene).requeue(all_failed=True),
    "purge": lambda scene: [_queue(scene).purge("failed"), _queue(scene).purge("completed")],
    "queue in numbers": lambda scene: _queue(scene).stats().as_json()["dead_letters"],
    "ensure indexes": lambda scene: scene.ensure_indexes(),
}


def prepare(scene: Scene, verb: str) -> None:
    """Read models with one damage of each kind, and what the verb goes on with."""
    scene.ensure_indexes()
    for number in range(12):
        scene.chat(f"right {number}")
    wrong, missing, gap, one, other = (scene.chat(name) for name in ("wrong", "missing", "gap", "one", "other"))
    scene.build()
    scene.make_foreign()
    if verb == "roll back":
        _full(scene, strategy="shadow")
    if verb == "verify what changed":
        _look(scene)
    scene.chats.update_one({"chat_id": wrong}, {"$set": {"title": "wrong indeed"}})
    for collection in (scene.chats, scene.tasks):
        collection.delete_one({"chat_id": missing})
    scene.tasks.insert_one({"task_id": named("orphan"), "chat_id": named("orphan")})
    # Each holds the key of the other one.
    scene.tasks.update_one({"task_id": one}, {"$set": {"chat_id": "for a moment"}})
    scene.tasks.update_one({"task_id": other}, {"$set": {"chat_id": one}})
    scene.tasks.update_one({"task_id": one}, {"$set": {"chat_id": other}})
    scene.events.update_one({"aggregate_id": gap, "version": 1}, {"$set": {"version": 9}})
    put(scene, *(task(item) for item in (wrong, wrong, missing, gap, one, other)), task("no id"))
    put(scene, task(named("no such")), task(wrong, status="processing"))
    put(scene, *(task(named(name), status=name, reason="bad_version") for name in ("failed", "completed")))
    put(scene, task(named("failed too"), status="failed", reason="version_gap"))
    strategy = {"resume in place": "in_place", "resume a shadow": "shadow", "abort": "shadow"}.get(verb)
    if strategy:
        with small_steps(), killed_at(Moment.BATCH_SAVED, 2):
            _full(scene, strategy=strategy)


@contextmanager
def small_steps() -> Iterator[None]:
    """Batches of a few, so that little is read and written in many commands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("readmodel_pipelines.rebuild.worker.BatchSize", lambda **_: BatchSize(first=5, least=5, most=5))
        patch.setattr("readmodel_pipelines.mongo.scan.BATCH_DOCUMENTS", 7)
        patch.setattr("readmodel_pipelines.mongo.scan._HANDED_ON", 3)
        yield


@dataclass(frozen=True, slots=True)
class Ended:
    """How a verb ended: what it gave, what lies in the database then, and how often the line was cut meanwhile."""

    given: Any
    lies: Any
    cuts: int
    commands: Mapping[str, int]


def run(line: FaultyLine, server: Settings, verb: str, cut: Cut | None = None) -> Ended:
    """Run a verb over the line, on a database of its own."""
    own = server.model_copy(update={"database": f"glitch_{uuid.uuid4().hex[:12]}", "workers": 1, "grace_seconds": 0.0})
    over_the_line = over(line, own)
    with open_database(own) as database:
        scene = Scene(database, own)
        try:
            prepare(scene, verb)
            with small_steps(), open_database(over_the_line) as cut_off:
                # A first connection is not waited for.
                cut_off.command("ping")
                with line.cut(cut):
                    given = VERBS[verb](Scene(cut_off, over_the_line))
                    cuts, seen = line.cuts, dict(line.seen)
            return Ended(_lasting(given), _contents(scene), cuts, seen)
        finally:
            database.client.drop_database(database.name)


def over(line: FaultyLine, settings: Settings, options: str = "") -> Settings:
    """The same database, reached over the line."""
    return settings.model_copy(update={"mongodb_uri": SecretStr(line.uri + options)})


def cuts_of(calm: Ended) -> Iterator[Cut]:
    """Every way to cut the line at each of the commands of a run: on the way there and back, once and five times."""
    for command, number in sorted(calm.commands.items()):
        for place in range(1, number + 1):
            for way in get_args(Way):
                if way != "silence":
                    yield Cut(command, place, way, 1)
                    yield Cut(command, place, way, 5)


def _contents(scene: Scene) -> Any:
    database = scene.database
    names = sorted(set(database.list_collection_names()) - {scene.events.name, LEASES})
    found = {name: [_lasting(item) for item in database[name].find({}, {"_id": 0})] for name in names}
    # Of leases what counts how many died.
    found[LEASES] = [{name: item.get(name) for name in ("lost", "given_back")} for item in database[LEASES].find()]
    return {name: sorted(documents, key=repr) for name, documents in found.items() if documents}


def _lasting(value: Any) -> Any:
    """Without times, and ids that are drawn."""
    if isinstance(value, Mapping):
        return {name: _lasting(item) for name, item in sorted(value.items()) if name not in _DRAWN}
    if isinstance(value, list | tuple):
        return [_lasting(item) for item in value]
    return type(value).__name__ if isinstance(value, datetime | ObjectId | float) else value
