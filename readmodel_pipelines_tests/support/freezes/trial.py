"""A verb falls asleep before one of its writes, somebody else does its work, and it wakes up: nothing may be wrong."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pymongo import monitoring

from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRecord
from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.cutover.built import built
from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.mongo.names import LEASES, copy_names
from readmodel_pipelines.rebuild import RebuildRequest, rebuild
from readmodel_pipelines_tests.support.freezes.freezer import IsIt, asleep, nth_write
from readmodel_pipelines_tests.support.freezes.verbs import VERBS, Verb
from readmodel_pipelines_tests.support.scene import BOTH, Mongo, Scene, found_in
from readmodel_pipelines_tests.support.verbs.rebuilding import OTHER_TITLE, leftovers
from readmodel_pipelines_tests.support.verbs.repairing import repair, stored
from readmodel_pipelines_tests.support.verbs.verifying import SINCE_LAST, look

_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_AT_WORK = {"building", "finishing", "swapping", "refused", "rolling_back"}
_FOREIGN = {"z_index": 7.0}
_ORPHAN = {"chat_id": "00000000-0000-4000-8000-00000000dead", "title": "no events"}


@dataclass(frozen=True)
class Freeze:
    """A verb that sleeps before its n-th write; who comes instead; whether a third is at work when it wakes up."""

    verb: str
    instead: str
    third: bool
    number: int = 0


FORMS = [(name, instead, third) for name, verb in VERBS.items() for instead in verb.instead for third in (False, True)]


@contextmanager
def short_transactions(database: Mongo) -> Iterator[None]:
    """A transaction of somebody who sleeps holds what it wrote for a second, and not for a minute."""
    admin = database.client.admin
    before = admin.command("getParameter", 1, transactionLifetimeLimitSeconds=1)["transactionLifetimeLimitSeconds"]
    admin.command("setParameter", 1, transactionLifetimeLimitSeconds=1)
    try:
        yield
    finally:
        admin.command("setParameter", 1, transactionLifetimeLimitSeconds=before)


def freeze(scene: Scene, point: Freeze, before: IsIt | None = None) -> bool:
    """Whether there was such a write, or a command of which `before` says that it is it: else nobody froze."""
    verb = VERBS[point.verb]
    chats = _filled(scene)
    about = verb.before(scene)
    _damaged(scene, chats)
    definitions = _definitions(scene)

    def work(database: Mongo) -> Any:
        return verb.act(database, scene.settings, about)

    with asleep(scene.settings, work, before or nth_write(point.number)) as one:
        if not one.is_frozen():
            return False
        going_on = {item["_id"]: item["runs"] for item in _records(scene) if item["state"] in _AT_WORK}
        expired(scene)
        # A slice that is launched again does nothing when its rebuild was done before that.
        _written(scene, chats, "meanwhile", is_over=verb.shared and bool(_records(scene)) and not going_on)
        foreign = scene.chats.count_documents(_FOREIGN)
        try:
            verb.instead[point.instead](scene.database, scene.settings, about)
        except ReadModelError as error:
            # There may be nothing to do for it any more.
            print(f"instead: {error}")
        _written(scene, chats, "before it wakes", is_over=True)
        with _third(scene) if point.third else nullcontext():
            told = one.wake_up()
    if verb.shared and any(item["state"] in _AT_WORK for item in _records(scene)):
        # Nobody else did that slice, or it began a rebuild of its own: all slices are launched again.
        for act in (verb.instead["the other one"], verb.act):
            expired(scene)
            act(scene.database, scene.settings, about)
    _judge(scene, verb, told, going_on)
    _look_at_read_models(scene, verb, chats, definitions)
    assert scene.chats.count_documents(_FOREIGN) == foreign, "the fields of others"
    return True


@contextmanager
def _third(scene: Scene) -> Iterator[None]:
    """A rebuild in a shadow that is half built while the first one wakes up."""

    def half_built(event: monitoring.CommandStartedEvent) -> bool:
        return event.command_name == "createIndexes" and str(event.command["createIndexes"]).startswith("readmodel_sh")

    def work(database: Mongo) -> Any:
        return rebuild(database, scene.settings, [], RebuildRequest("shadow"))

    with asleep(scene.settings, work, half_built) as third:
        is_at_work = third.is_frozen()
        yield
        told = third.wake_up()
    if isinstance(told, BaseException):
        # A rollback that has to be ended first.
        assert not is_at_work, told
        assert isinstance(told, ReadModelError), told
    else:
        assert told.about["state"] == "done"


def _filled(scene: Scene) -> list[str]:
    scene.ensure_indexes()
    scene.chats.create_index([("workspace_id", 1), ("title", -1)], name="by_workspace")
    chats = [scene.chat(f"chat {number}") for number in range(7)]
    scene.build()
    scene.make_foreign()
    return chats


def _damaged(scene: Scene, chats: list[str]) -> None:
    """One wrong, one missing, one that nobody wants, one that its stream is ahead of."""
    scene.chats.update_one({"chat_id": chats[0]}, {"$set": {"title": "damaged"}})
    scene.tasks.delete_one({"task_id": chats[1]})
    scene.chats.insert_one(dict(_ORPHAN))
    scene.append(chats[2], OTHER_TITLE)


def expired(scene: Scene) -> None:
    """All leases, for those who look at the clock of the server."""
    scene.database[LEASES].update_many({}, {"$set": {"expires_at": _LONG_AGO}})


def _written(scene: Scene, chats: list[str], when: str, *, is_over: bool = False) -> None:
    """What the application does: it appends events, and writes fields of its own; its projection comes for some.

    For all, when what follows the events for the rest `is_over`.
    """
    late = () if is_over else chats[3:4]
    for chat_id in (*late, chats[4]):
        scene.append(chat_id, ("chat.renamed", {"new_title": when}))
    scene.rebuild_one(chats[4])
    if found_in(scene.events, {"aggregate_id": chats[1]}, sort=[("version", -1)])["event_type"] != "chat.type_changed":
        # It is no task any more: nobody wants its document there, and the application takes it away.
        discussion = {"old_type": "task", "new_type": "discussion", "title": "a discussion"}
        scene.append(chats[1], ("chat.type_changed", discussion))
        scene.rebuild_one(chats[1])
    made = scene.chat(f"made {when}")
    if is_over:
        scene.rebuild_one(made)
    scene.chats.update_one({"chat_id": chats[5]}, {"$set": {"not_ours": when}})


def _definitions(scene: Scene) -> Any:
    return [(item.index_information(), item.options()) for item in (scene.chats, scene.tasks)]


def _records(scene: Scene) -> list[dict[str, Any]]:
    return list(scene.database.readmodel_rebuilds.find({"kind": "rebuild"}))


def _judge(scene: Scene, verb: Verb, told: Any, going_on: dict[str, int]) -> None:
    """What it said when it woke up is said in words, and is true; `going_on` had so many runs when it fell asleep."""
    if isinstance(told, BaseException):
        assert isinstance(told, ReadModelError), repr(told)
        return
    records = {item["_id"]: item for item in _records(scene)}
    if isinstance(told, RebuildRecord):
        assert records[told.id]["state"] == told.state, "it says that it is given up"
        return
    for outcome in getattr(told, "rebuilds", ()) if told.ok else ():
        if outcome.already_done:
            continue
        record = records[outcome.id]
        assert record["state"] in ("done", "rolled_back"), "what was given up is no success"
        was_its_own = verb.shared or record["runs"] == going_on.get(outcome.id, record["runs"])
        assert was_its_own, "nor is what another one took over"


def _look_at_read_models(scene: Scene, verb: Verb, chats: list[str], definitions: Any) -> None:
    assert not [(item["_id"], item["state"]) for item in _records(scene) if item["state"] in _AT_WORK]
    left = leftovers(scene)
    assert not left, left
    wanted = Rebuilds(scene.database).built()
    there = built(scene.database, [name for live in BOTH for name in copy_names(live)])
    assert {fence.identity for fence in there} <= wanted, "a copy is nobody's"
    if not verb.rebuilds:
        _no_task_is_lost(scene)
    found = scene.verify()
    assert found.ok, [(item.read_model, item.aggregate_id, item.outcome, item.fields) for item in found.findings]
    assert _definitions(scene) == definitions
    assert scene.chats.count_documents({"chat_id": chats[5], "not_ours": "before it wakes"}) == 1, "a field of others"


def _no_task_is_lost(scene: Scene) -> None:
    """What is wrong now is known: it is in the queue, or the next verification of what changed finds it."""
    look(scene, coverage=SINCE_LAST, enqueue_repairs=True)
    for _ in range(2):
        expired(scene)
        scene.database.repair_queue.update_many({"status": {"$ne": "completed"}}, {"$unset": {"next_attempt_at": ""}})
        repair(scene)
    ended = ("completed", "aggregate_not_found")
    tasks = [item for item in stored(scene) if not {item["status"], item.get("reason")} & {*ended}]
    assert not tasks, tasks
