"""The worked examples of docs/architecture, each played as its page has it: step by step, with the same names."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pymongo import InsertOne

from readmodel_pipelines.cutover.built import identity, moved_on
from readmodel_pipelines.errors import LeaseLost
from readmodel_pipelines.moments import Moment
from readmodel_pipelines.mongo.names import shadow_names
from readmodel_pipelines.reconcile.cause import CauseKind
from readmodel_pipelines.reconcile.finding import Finding
from readmodel_pipelines.reconcile.ranges import EVERYTHING
from readmodel_pipelines.spool.sorted_file import SortedFileWriter
from readmodel_pipelines_tests.support.at_a_moment import At, once
from readmodel_pipelines_tests.support.built import Alone, fenced
from readmodel_pipelines_tests.support.scene import Scene, found_in
from readmodel_pipelines_tests.support.verbs.rebuilding import full, in_shadow
from readmodel_pipelines_tests.support.verbs.verifying import look


def renamed(title: str) -> tuple[str, dict[str, str]]:
    return "chat.renamed", {"new_title": title}


def application(scene: Scene, chat: str, title: str) -> Callable[[], None]:
    """Appends an event, and updates the document."""

    def write() -> None:
        scene.append(chat, renamed(title))
        scene.chats.update_one({"chat_id": chat}, {"$set": {"title": title}})

    return write


def test_conditional_writes(scene: Scene, at: At) -> None:
    scene.index()
    chat = scene.chat("Milk")
    scene.build()
    scene.append(chat, renamed("Tea"))
    at(Moment.WRITE, once(application(scene, chat, "Coffee")))
    summary = scene.rebuild_one(chat, "chat")
    counts = summary.read_models["chats_read_model"]
    assert (counts.superseded, counts.replaced) == (1, 0)
    assert found_in(scene.chats, {"chat_id": chat})["title"] == "Coffee"
    assert scene.verify("chat").ok


def test_catching_up(scene: Scene, at: At) -> None:
    scene.index()
    chat = scene.chat("Tea")
    scene.build()
    at(Moment.RANGE_DONE, once(lambda: scene.append(chat, renamed("Coffee"))))
    summary = full(scene, "chat")
    assert summary.about["caught_up"] == 1
    assert found_in(scene.chats, {"chat_id": chat})["title"] == "Coffee"


def test_cutting_over(scene: Scene, at: At) -> None:
    scene.index()
    chat = scene.chat("Tea")
    scene.build()
    before = identity(scene.database, "chats_read_model")
    at(Moment.RANGE_DONE, once(application(scene, chat, "Coffee")))
    seen = []
    at(Moment.SWAP, lambda live: seen.append(identity(scene.database, live)))
    assert in_shadow(scene, "chat").ok
    assert seen == [before]
    assert identity(scene.database, "chats_read_model") != before
    assert found_in(scene.chats, {"chat_id": chat})["title"] == "Coffee"


def test_leases_and_fences(scene: Scene) -> None:
    names = shadow_names("chats_read_model")
    scene.database.create_collection("readmodel_shadow_chats_read_model")
    of_run_a = fenced(scene.database, "readmodel_shadow_chats_read_model")
    of_run_b = moved_on(scene.database, names, of_run_a.fence.identity, Alone())
    assert of_run_b is not None
    assert of_run_b.name == "readmodel_shadow2_chats_read_model"
    # Another collection has the name by now: the name alone would let run A write there.
    scene.database.create_collection("readmodel_shadow_chats_read_model")
    with pytest.raises(LeaseLost):
        of_run_a.bulk_write([InsertOne({"chat_id": "late"})])
    assert [scene.database[name].count_documents({}) for name in names[:2]] == [0, 0]


def test_age_and_cause(scene: Scene, finding: Callable[..., Finding]) -> None:
    scene.index()
    a = scene.chat("A", *[renamed(f"A{number}") for number in range(3, 18)])
    b = scene.chat("B", *[renamed(f"B{number}") for number in range(3, 7)])
    scene.build()
    closed = ("chat.closed", {"closed_by": "u", "previous_status": "To Do"})
    scene.append(a, closed, renamed("a new title"))
    scene.chats.update_one({"chat_id": a}, {"$set": {"title": "a new title"}})
    scene.append(b, closed)

    at_four = look(scene, "chat")
    of_a, of_b = finding(at_four, a), finding(at_four, b)
    assert of_a.cause is not None
    assert of_b.cause is not None
    assert (of_a.cause.kind, [event.version for event in of_a.cause.lost]) == (CauseKind.LOST_UPDATE, [18])
    assert (of_b.cause.kind, of_b.cause.at_version) == (CauseKind.BEHIND, 6)

    application(scene, b, "another")()
    at_five = look(scene, "chat")
    assert finding(at_five, a).first_seen == of_a.first_seen
    assert of_b.first_seen is not None
    assert (finding(at_five, b).first_seen or of_b.first_seen) > of_b.first_seen

    assert full(scene, "chat").ok
    assert look(scene, "chat").about["closed"] == 2


def test_reading_with_a_spool(tmp_path: Path) -> None:
    stored = ["B1", "A1", "C1", "B2", "A2", "C2", "A3", "B3"]
    writer = SortedFileWriter(tmp_path / "events", 8, run_bytes=4)
    for name in stored:
        writer.add([((name[:1].encode(), int(name[1])), name.encode())], 1)
    file = writer.finish()

    def decode(block: bytes) -> list[dict[str, str]]:
        text = block.decode()
        return [{"event": text[at : at + 2]} for at in range(0, len(text), 2)]

    def key_of(event: dict[str, str]) -> tuple[bytes, int]:
        return event["event"][:1].encode(), int(event["event"][1])

    assert len(file.runs) == 2
    read = [event["event"] for events in file.read(EVERYTHING, decode, key_of) for event in events]
    assert read == sorted(stored)
