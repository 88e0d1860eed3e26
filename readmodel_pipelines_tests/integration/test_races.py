"""Races: another writer changes a document between our read and our write, at each write that there is.

Its change is never lost, losing is an outcome (`superseded`) and no error, and the document ends as its events say.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from readmodel_pipelines.mongo.read_model import ReadModelCollection
from readmodel_pipelines.reconcile.in_place import ATTEMPTS
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines_tests.support import open_chats
from readmodel_pipelines_tests.support.other_writer import OtherWriter
from readmodel_pipelines_tests.support.scene import Document, Scene, found_in, taken_from

CHATS = "chats_read_model"
TASKS = "tasks_read_model"
NOBODY = "00000000-0000-4000-a000-000000000000"

Rebuild = Callable[[], Summary]
both_ways = pytest.mark.parametrize("full", [True, False], ids=["full", "rebuild_one"])


@dataclass
class Race:
    """A chat beside a bystander, and another writer, who comes right before a write of ours."""

    scene: Scene
    other_writer: OtherWriter
    chat_id: str

    def chat(self) -> Document:
        return found_in(self.scene.chats, {"chat_id": self.chat_id})

    def set(self, **values: Any) -> None:
        """In the chat's document."""
        self.scene.chats.update_one({"chat_id": self.chat_id}, {"$set": values})

    def append(self, title: str) -> None:
        self.scene.append(self.chat_id, ("chat.renamed", {"new_title": title}))

    def before_replace(self, act: Callable[[], object]) -> None:
        """The document is wrong; this happens before it is put right."""
        self.set(title="damaged")
        self.other_writer.once_before("write", "replace", lambda _: act())

    def before_insert(self, act: Callable[[Document], object]) -> None:
        """The document is gone; this happens, with what it was, before it is put back."""
        gone = taken_from(self.scene.chats, {"chat_id": self.chat_id})
        self.other_writer.once_before("write", "insert", lambda _: act(gone))

    def before_delete(self, act: Callable[[], object]) -> None:
        self.other_writer.once_before("write", "delete", lambda _: act())


@pytest.fixture
def race(scene: Scene, other_writer: OtherWriter) -> Race:
    scene.index()
    scene.chat("bystander")
    chat_id = scene.chat("contended")
    scene.build()
    return Race(scene, other_writer, chat_id)


@pytest.fixture(params=["rebuild_all", "rebuild_one"])
def rebuild(request: pytest.FixtureRequest, race: Race) -> Rebuild:
    """Both ways to write one chat's document: a full rebuild, and one aggregate."""
    if request.param == "rebuild_all":
        return lambda: race.scene.rebuild("chat")
    return lambda: race.scene.rebuild_one(race.chat_id, "chat")


def writes_of(summary: Summary) -> dict[str, int]:
    """What was written to chats, and how often somebody else was faster."""
    counts = summary.read_models[CHATS]
    names = ("superseded", "inserted", "replaced", "deleted", "failed")
    return {name: getattr(counts, name) for name in names if getattr(counts, name)}


def appends_and_projects(race: Race) -> None:
    race.append("newer")
    race.set(title="newer")


REPLACES: dict[str, tuple[Callable[[Race], object], dict[str, int], Document]] = {
    "what the application wrote meanwhile stays": (appends_and_projects, {"superseded": 1}, {"title": "newer"}),
    "one that lost is compared again and written": (
        lambda race: race.set(is_public=False),
        {"superseded": 1, "replaced": 1},
        {"is_public": True},
    ),
    "a change of foreign fields alone is no race": (
        lambda race: race.set(not_ours=[1]),
        {"replaced": 1},
        {"not_ours": [1]},
    ),
    "the other writer wrote exactly what we wanted": (
        lambda race: race.set(title="contended"),
        {"superseded": 1},
        {"title": "contended"},
    ),
    "newer events brought it back to what was compared": (
        lambda race: race.append("damaged"),
        {"superseded": 1, "replaced": 2},
        {"title": "damaged"},
    ),
    "a document that vanished is inserted": (
        lambda race: race.scene.chats.delete_one({"chat_id": race.chat_id}),
        {"superseded": 1, "inserted": 1},
        {"title": "contended"},
    ),
}


@pytest.mark.parametrize(("act", "counted", "left"), REPLACES.values(), ids=REPLACES)
def test_a_replace_overwrites_nothing_that_another_writer_did_meanwhile(
    race: Race, rebuild: Rebuild, act: Callable[[Race], object], counted: dict[str, int], left: Document
) -> None:
    race.before_replace(lambda: act(race))
    summary = rebuild()

    assert (race.other_writer.times, writes_of(summary), summary.ok) == (1, counted, True)
    assert left.items() <= race.chat().items()
    assert race.scene.verify("chat").ok


@pytest.mark.parametrize(
    "change",
    [
        {"$set": {"status": "Closed"}},
        {"$unset": {"status": ""}},
        {"$set": {"due_date": None}},
        {"$push": {"participants": "late"}},
        {"$set": {"chat_id": "moved away"}},
    ],
    ids=["another_field", "field_removed", "absent_field_set_to_null", "array_grown", "key_changed"],
)
def test_any_change_of_an_owned_field_is_a_race(race: Race, change: dict[str, Any]) -> None:
    scene, seen, before_retry = race.scene, list[Any](), list[Any]()

    def writes() -> None:
        scene.chats.update_one({"chat_id": race.chat_id}, change)
        seen.append(scene.dump()[CHATS])

    race.before_replace(writes)
    race.other_writer.before(
        "write", lambda _: before_retry.append(scene.dump()[CHATS]), when=lambda _: race.other_writer.times == 1
    )
    summary = scene.rebuild("chat")

    assert summary.read_models[CHATS].superseded == 1
    assert before_retry[0] == seen[0], "the write that lost must have written nothing"
    # A document that moved away from its key is an orphan, which the next full rebuild takes.
    scene.rebuild("chat")
    assert scene.verify().ok


def appends_and_inserts(race: Race, right: Document) -> None:
    race.append("newer")
    race.scene.chats.insert_one({**right, "title": "newer"})


INSERTS: dict[str, tuple[Callable[[Race, Document], object], dict[str, int], Document]] = {
    "a right document keeps its fields": (
        lambda race, right: race.scene.chats.insert_one({**right, "not_ours": "kept"}),
        {"superseded": 1},
        {"not_ours": "kept"},
    ),
    "a wrong document is mended": (
        lambda race, right: race.scene.chats.insert_one({**right, "title": 5}),
        {"superseded": 1, "replaced": 1},
        {"title": "contended"},
    ),
    "a newer document is left": (appends_and_inserts, {"superseded": 1}, {"title": "newer"}),
}


@pytest.mark.parametrize(("act", "counted", "left"), INSERTS.values(), ids=INSERTS)
def test_an_insert_that_another_writer_was_faster_with_is_one_document_and_right(
    race: Race, rebuild: Rebuild, act: Callable[[Race, Document], object], counted: dict[str, int], left: Document
) -> None:
    race.before_insert(lambda right: act(race, right))
    summary = rebuild()

    assert (writes_of(summary), summary.ok) == (counted, True)
    assert left.items() <= race.chat().items()
    assert race.scene.verify("chat").ok


def test_an_insert_of_a_task_whose_chat_was_deleted_meanwhile_is_taken_back(race: Race) -> None:
    scene = race.scene
    scene.append(race.chat_id, ("chat.type_changed", {"new_type": "task", "title": "t"}))
    scene.tasks.delete_many({})

    # The application finds no document to delete, so nothing in the read model tells that it was there.
    race.other_writer.once_before("write", "insert", lambda _: scene.append(race.chat_id, ("chat.deleted", {})))
    summary = scene.rebuild("task")

    assert race.other_writer.times == 1
    assert summary.read_models[TASKS].superseded == 1
    assert scene.tasks.find_one({"task_id": race.chat_id}) is None
    assert scene.verify("task").ok


@both_ways
def test_a_delete_does_not_take_a_document_that_changed(race: Race, full: bool) -> None:
    scene, chat = race.scene, race.scene.chat("talk", kind="discussion")
    task = found_in(scene.tasks, {"task_id": race.chat_id}, {"_id": 0})
    scene.rebuild("chat")
    scene.tasks.insert_one({**task, "task_id": chat, "chat_id": chat})

    def becomes_a_task() -> None:
        scene.append(chat, ("chat.type_changed", {"new_type": "bug", "title": "a bug"}))
        change = {"entity_type": "bug", "title": "a bug", "version": 3, "priority": "Medium"}
        scene.tasks.update_one({"task_id": chat}, {"$set": change})

    race.before_delete(becomes_a_task)
    counts = (scene.rebuild("task") if full else scene.rebuild_one(chat, "task")).read_models[TASKS]

    assert race.other_writer.times == 1
    assert (counts.superseded, counts.deleted, counts.failed) == (1, 0, 0)
    assert found_in(scene.tasks, {"task_id": chat})["title"] == "a bug"
    assert scene.verify("task").ok


@pytest.fixture
def open_chat(race: Race) -> str:
    """A chat of a read model whose documents say nothing of the version."""
    scene = race.scene
    scene.settings = scene.settings.model_copy(update={"projections": (open_chats.__name__,), "max_delete_share": 1.0})
    scene.collection(open_chats.READ_MODEL).create_index("title", unique=True)
    assert scene.rebuild("open_chats").ok
    return race.chat_id


@both_ways
def test_a_delete_of_what_newer_events_want_again_is_made_good(race: Race, open_chat: str, full: bool) -> None:
    scene = race.scene
    scene.append(open_chat, ("chat.closed", {}))
    # Whoever projects this one finds the document as it ought to be, and writes nothing.
    race.before_delete(lambda: scene.append(open_chat, ("chat.reopened", {"new_status": "New"})))
    summary = scene.rebuild("open_chats") if full else scene.rebuild_one(open_chat, "open_chats")

    assert (race.other_writer.times, summary.ok) == (1, True)
    assert scene.verify("open_chats").ok


@both_ways
def test_newer_events_that_brought_back_what_an_exchange_of_keys_compared_are_not_lost(
    race: Race, open_chat: str, full: bool
) -> None:
    scene, chats = race.scene, race.scene.collection(open_chats.READ_MODEL)
    titles = {document["chat_id"]: document["title"] for document in chats.find()}
    exchanged = dict(zip(titles, reversed(titles.values()), strict=True))
    for chat_id, title in [*((chat_id, f"parked {chat_id}") for chat_id in titles), *exchanged.items()]:
        chats.update_one({"chat_id": chat_id}, {"$set": {"title": title}})

    def rename(_: object) -> None:
        for chat_id, title in exchanged.items():
            scene.append(chat_id, ("chat.renamed", {"new_title": title}))

    race.other_writer.once_before("swap", "replace", rename)
    summary = scene.rebuild("open_chats") if full else scene.rebuild_one(open_chat, "open_chats")

    assert (race.other_writer.times, summary.ok) == (1, True)
    assert scene.verify("open_chats").ok


def test_an_insert_in_an_exchange_of_keys_is_taken_back_from_a_chat_that_was_deleted_meanwhile(race: Race) -> None:
    scene = race.scene
    holder = scene.chat("holder")
    scene.build()
    scene.tasks.delete_one({"task_id": race.chat_id})
    scene.tasks.update_one({"task_id": holder}, {"$set": {"chat_id": race.chat_id}})
    race.other_writer.once_before("swap", "insert", lambda _: scene.append(race.chat_id, ("chat.deleted", {})))
    counts = scene.rebuild_one(race.chat_id, "task").read_models[TASKS]

    assert race.other_writer.times == 1
    assert (counts.inserted, counts.replaced, counts.superseded) == (0, 1, 1)
    assert scene.tasks.find_one({"task_id": race.chat_id}) is None
    assert scene.verify("task").ok


def touches(chats: Collection[Document], key: Document) -> object:
    return chats.update_one(key, {"$set": {"title": "touched"}})


def deletes(chats: Collection[Document], key: Document) -> object:
    return chats.delete_one(key)


ODD_KEYS: list[Any] = [None, {"a": 1}, ["x"], b"bytes", 5, 2.5, True]


@pytest.mark.parametrize(
    ("key", "full", "act", "deleted"),
    [
        *((NOBODY, full, *acts) for full in (True, False) for acts in ((touches, 1), (deletes, 0))),
        *((odd, True, touches, 1) for odd in ODD_KEYS),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_delete_that_lost_is_compared_again_and_done_where_it_still_has_to_be(
    race: Race, key: Any, full: bool, act: Callable[[Collection[Document], Document], object], deleted: int
) -> None:
    chats = race.scene.chats
    stored = chats.insert_one({**found_in(chats, {"chat_id": race.chat_id}, {"_id": 0}), "chat_id": key}).inserted_id
    race.before_delete(lambda: act(chats, {"_id": stored}))
    summary = race.scene.rebuild("chat") if full else race.scene.rebuild_one(key, "chat")

    counts = summary.read_models[CHATS]
    assert (race.other_writer.times, summary.ok) == (1, True)
    assert (counts.superseded, counts.deleted, counts.failed) == (1, deleted, 0)
    assert race.scene.verify("chat").ok


def test_another_writer_who_is_always_faster_wins_in_the_end(race: Race, rebuild: Rebuild) -> None:
    race.set(title="damaged")
    written: list[str] = []

    def writes_again(_: Any) -> None:
        written.append(f"damaged {len(written)}")
        race.set(title=written[-1])

    race.other_writer.before("write", writes_again, when=bool)
    summary = rebuild()

    counts = summary.read_models[CHATS]
    assert len(written) == ATTEMPTS
    assert (counts.superseded, counts.replaced, counts.failed) == (ATTEMPTS, 0, 1)
    assert not summary.ok
    assert [item.reason for item in summary.findings] == ["busy"]
    assert race.chat()["title"] == written[-1]


def test_only_the_contended_document_of_a_batch_is_done_again(scene: Scene, other_writer: OtherWriter) -> None:
    ids = scene.fill(20)
    scene.chats.update_many({}, {"$set": {"title": "damaged"}})
    other_writer.once_before(
        "write", "replace", lambda _: scene.chats.update_one({"chat_id": ids[3]}, {"$set": {"is_public": "?"}})
    )
    counts = scene.rebuild("chat").read_models[CHATS]

    assert (counts.superseded, counts.replaced, counts.failed) == (1, 20, 0)
    assert scene.verify().ok


@both_ways
def test_a_swap_does_not_overwrite_what_others_changed(scene: Scene, other_writer: OtherWriter, full: bool) -> None:
    scene.index()
    one, two = scene.chat("one"), scene.chat("two")
    scene.build()
    for key, chat_id in ((one, "parked"), (two, one), (one, two)):
        scene.tasks.update_one({"task_id": key}, {"$set": {"chat_id": chat_id}})

    def appends_and_projects(_: Any) -> None:
        scene.append(two, ("chat.renamed", {"new_title": "newer"}))
        scene.tasks.update_one({"task_id": two}, {"$set": {"title": "newer", "version": 3}})

    other_writer.once_before("swap", "replace", appends_and_projects)
    counts = (scene.rebuild("task") if full else scene.rebuild_one(one, "task")).read_models[TASKS]

    assert other_writer.times == 1
    assert (counts.superseded, counts.failed) == (1, 0)
    assert counts.replaced == 2
    assert found_in(scene.tasks, {"task_id": two})["title"] == "newer"
    assert scene.verify("task").ok


@pytest.mark.parametrize("odd", [None, {"a": 1}, ["x", "y"], 7], ids=["null", "document", "array", "number"])
def test_a_swap_with_a_document_of_an_odd_key_that_lost_is_done_again(race: Race, odd: Any) -> None:
    tasks = race.scene.tasks
    stored = found_in(tasks, {"task_id": race.chat_id})["_id"]
    tasks.update_one({"_id": stored}, {"$set": {"task_id": odd}})
    race.other_writer.once_before(
        "swap", "delete", lambda _: tasks.update_one({"_id": stored}, {"$set": {"title": "touched"}})
    )
    counts = race.scene.rebuild_one(race.chat_id, "task").read_models[TASKS]

    assert race.other_writer.times == 1
    assert (counts.superseded, counts.inserted, counts.deleted, counts.failed) == (1, 1, 1, 0)
    assert race.scene.verify("task").ok


def test_a_stream_that_became_malformed_meanwhile_leaves_the_document_alone(race: Race, rebuild: Rebuild) -> None:
    def breaks_the_stream() -> None:
        race.scene.append(race.chat_id, ("chat.exploded", {}))
        race.set(title="another")

    race.before_replace(breaks_the_stream)
    summary = rebuild()

    counts = summary.read_models[CHATS]
    assert (counts.superseded, counts.replaced, counts.failed) == (1, 0, 1)
    assert not summary.ok
    assert [item.reason for item in summary.findings] == ["unknown_event_type"]
    assert race.chat()["title"] == "another"


@both_ways
def test_a_stream_that_ends_in_a_skipped_event_is_no_race(scene: Scene, full: bool) -> None:
    scene.index()
    scene.settings = scene.settings.model_copy(update={"allow_malformed": frozenset({"unknown_event_type"})})
    chat_id = scene.chat("noted", ("audit.noted", {}))
    summary = scene.rebuild("chat") if full else scene.rebuild_one(chat_id, "chat")
    assert (writes_of(summary), summary.ok) == ({"inserted": 1}, True)


@pytest.mark.parametrize(("code", "superseded"), [(112, 1), (251, 0), (24, 0)], ids=["conflict", "election", "lock"])
def test_a_transaction_that_the_server_puts_off_lost_to_nobody_unless_it_says_so(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, code: int, superseded: int
) -> None:
    scene.index()
    one, two = scene.chat("one"), scene.chat("two")
    scene.build()
    for key, chat_id in ((one, "parked"), (two, one), (one, two)):
        scene.tasks.update_one({"task_id": key}, {"$set": {"chat_id": chat_id}})
    within, left = ReadModelCollection._swap_within, [OperationFailure("", code, TRANSIENT)]

    def put_off(*parts: Any) -> Any:
        if left:
            raise left.pop()
        return within(*parts)

    monkeypatch.setattr(ReadModelCollection, "_swap_within", put_off)
    counts = scene.rebuild("task").read_models[TASKS]
    assert (counts.superseded, counts.replaced, counts.failed) == (superseded, 2, 0)


TRANSIENT = {"errorLabels": ["TransientTransactionError"]}
