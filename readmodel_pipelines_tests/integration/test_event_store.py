"""The event store on a real server: long streams in flat memory, many ids, the plans of its queries."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from readmodel_pipelines.demo.sample_data import long_stream
from readmodel_pipelines.lanes import contested
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.scan import drain
from readmodel_pipelines.mongo.spooling import spool
from readmodel_pipelines.projections.chat import CHAT_FOLD
from readmodel_pipelines.projections.task import TASKS_OF_LEGACY_STREAMS
from readmodel_pipelines.reconcile.cause import CauseKind
from readmodel_pipelines.spool.sorted_file import SortedFileWriter
from readmodel_pipelines_tests.support.environment import uri_of
from readmodel_pipelines_tests.support.scene import Scene, found_in, uuid
from readmodel_pipelines_tests.support.verbs.verifying import look

LONG = 30_000

_FOLD = """
import resource, sys
from pydantic import SecretStr
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.settings import Settings

settings = Settings(mongodb_uri=SecretStr(sys.argv[1]), database=sys.argv[2])
with open_database(settings) as database:
    projector = ReadModelProjector(database, settings)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for summary in (projector.verify_all(), projector.verify_consistency(sys.argv[3])):
        print(summary.events, sum(counts.missing for counts in summary.read_models.values()))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.fixture
def long_one(scene: Scene) -> tuple[Any, str]:
    """One stream of so many events."""
    scene.index()
    batch: list[dict[str, Any]] = []
    for event in long_stream(LONG):
        batch.append(event)
        if len(batch) == 10_000:
            scene.events.insert_many(batch, ordered=False)
            batch = []
    return scene, found_in(scene.events)["aggregate_id"]


def test_a_stream_of_30_000_events_folds_without_being_held(long_one: Any) -> None:
    scene, aggregate_id = long_one
    uri = uri_of(scene.settings)
    unit = 1 if sys.platform == "darwin" else 1024
    # What a process held at most begins with what its parent held, so a shell is the parent, not pytest.
    command = ["/bin/sh", "-c", '"$@"; exit "$?"', "sh", sys.executable, "-c", _FOLD, uri, scene.database.name]
    run = subprocess.run([*command, aggregate_id], capture_output=True, text=True, check=True)
    *folds, grown = run.stdout.splitlines()
    assert folds == [f"{LONG} 2"] * 2, "each of all and of one saw every event, and both documents missing"
    # Held, the decoded events would be 35 MB; a few batches are three.
    assert int(grown) * unit < 16 * 1024 * 1024
    summary = scene.rebuild()
    assert summary.ok
    assert scene.tasks.find_one()["version"] == LONG


def test_of_large_events_no_more_are_held_than_the_server_sends_at_once(scene: Scene, tmp_path: Path) -> None:
    scene.index()
    scene.stream("large", "Chat", *[("chat.renamed", {"new_title": "x" * 2_000_000})] * 12)
    query, spooled = EventStore(scene.events).query(CHAT_FOLD), list[int]()
    with closing(SortedFileWriter(tmp_path / "spool", 1)) as writer:
        spool(scene.events, query, writer, of_events=True, read=spooled.append)
    for held in (spooled, [*map(len, drain(scene.events, query, of_events=True))]):
        assert sum(held) == 12
        # A reply has at most 16 MiB.
        assert max(held) <= 8


def test_reading_one_aggregate_looks_at_its_events_alone(scene: Scene) -> None:
    ids = scene.fill(50)
    with scene.profiled() as work:
        scene.verify_one(ids[7])
    own = scene.events.count_documents({"aggregate_id": ids[7]})
    reads = [entry for entry in work if (entry["ns"], entry["op"]) == (scene.events.full_name, "query")]
    assert reads
    assert sum(read.get("docsExamined", 0) for read in reads) <= own
    assert all("COLLSCAN" not in read.get("planSummary", "") for read in reads)


def test_a_verification_reads_each_event_and_document_about_once(scene: Scene) -> None:
    scene.fill(200)
    events = scene.events.count_documents({})
    with scene.profiled() as work:
        scene.verify()
    for collection, most in ((scene.events, events), (scene.chats, 200), (scene.tasks, 200)):
        examined = sum(entry.get("docsExamined", 0) for entry in work if entry["ns"] == collection.full_name)
        assert examined <= most * 1.05 + 5, collection.name


def test_a_verification_that_finds_everything_wrong_reads_each_event_about_once(scene: Scene) -> None:
    scene.fill(200)
    scene.chats.update_many({}, {"$set": {"created_by": "nobody"}})
    events = scene.events.count_documents({})
    with scene.profiled() as work:
        findings = look(scene, "chat").findings
    assert {finding.cause and finding.cause.kind for finding in findings} == {CauseKind.FOREIGN_WRITE}
    examined = sum(entry.get("docsExamined", 0) for entry in work if entry["ns"] == scene.events.full_name)
    # The last one of each stream is looked at once more, because it may be young.
    assert examined <= events * 1.05 + len(findings) + 5


def test_the_claims_of_one_aggregate_are_looked_up_in_an_index_that_holds_them(legacy_scene: Scene) -> None:
    scene = legacy_scene
    scene.index()
    one, two, *_ = [scene.task(f"task {n}", "taken" if n < 2 else f"chat {n}") for n in range(60)]
    scene.events.create_index("data.ChatID")
    with scene.profiled() as work:
        (claims,) = contested(EventStore(scene.events), [TASKS_OF_LEGACY_STREAMS], [one]).values()
    assert set(claims) == {one, two}
    examined = [
        entry["docsExamined"] for entry in work if entry["ns"] == scene.events.full_name and "docsExamined" in entry
    ]
    assert examined
    assert sum(examined) <= 5


@pytest.mark.parametrize("nothing", [None, "", ...], ids=["null", "empty", "left out"])
def test_aggregates_that_claim_the_empty_key_contest_one_another(legacy_scene: Scene, nothing: Any) -> None:
    scene = legacy_scene
    scene.index()
    one = scene.task("one", None)
    data = {} if nothing is ... else {"ChatID": nothing}
    scene.stream("11111111-0000-4000-a000-000000000000", "Task", ("task.created", data))
    scene.task("another", "chat")
    (claims,) = contested(EventStore(scene.events), [TASKS_OF_LEGACY_STREAMS], [one]).values()
    assert set(claims) == {one, "11111111-0000-4000-a000-000000000000"}


@pytest.mark.each_once
@pytest.mark.parametrize("values", [("a", "b"), ("a", None), (None, "a"), (7, "a"), ("a", "a")], ids=repr)
@pytest.mark.parametrize("look_at", ["it alone", "the other alone", "all"])
def test_a_stream_that_claims_two_keys_is_told_and_stands_in_nobodys_way(
    legacy_scene: Scene, values: tuple[Any, Any], look_at: str
) -> None:
    scene = legacy_scene
    scene.index()
    twice, other = uuid("twice"), scene.task("other", "a")
    scene.stream(twice, "Task", ("task.created", {"ChatID": values[0], "ChatIX": values[1], "Title": "x"}))
    scene.replace_bytes("events", {"aggregate_id": twice}, b"ChatIX", b"ChatID")
    ids = {"it alone": [twice], "the other alone": [other], "all": None}[look_at]
    events = EventStore(scene.events)
    (claims,) = contested(events, [TASKS_OF_LEGACY_STREAMS], ids).values()
    assert set(claims) == (set() if look_at == "the other alone" else {twice})
    assert events.other_claimant(TASKS_OF_LEGACY_STREAMS.fold, ("task.created", "ChatID"), "a", other) is None
    assert not scene.rebuild().ok
    assert [item["task_id"] for item in scene.tasks.find()] == [other]


def test_an_array_id_does_not_make_the_server_sort_everything_in_memory(scene: Scene, plain_index: None) -> None:
    scene.put((1, "chat.created", {}), aggregate_id=["x", "y"])
    scene.add({**event, "_id": number} for number, event in enumerate(long_stream(2_000)))
    admin = scene.database.client.admin
    parameters: dict[str, Any] = {
        "allowDiskUseByDefault": False,
        "internalQueryMaxBlockingSortMemoryUsageBytes": 200_000,
    }
    before = {name: admin.command({"getParameter": 1, name: 1})[name] for name in parameters}
    for name, value in parameters.items():
        admin.command({"setParameter": 1, name: value})
    try:
        summary = scene.verify()
    finally:
        for name, value in before.items():
            admin.command({"setParameter": 1, name: value})
    assert [counts.malformed for counts in summary.read_models.values()] == [1, 1]


def test_streams_of_other_aggregate_types_are_left_alone(scene: Scene) -> None:
    scene.index()
    chat_id = scene.chat("one")
    for number, kind in enumerate(("User", "Workspace", None, 7, "CHAT", "chats")):
        scene.stream(f"0000000{number}{chat_id[8:]}", kind, ("user.created", {}))
    lower = f"aaaaaaaa{chat_id[8:]}"
    scene.stream(lower, "chat", ("chat.created", {"type": "bug"}))
    summary = scene.rebuild()

    assert summary.ok
    assert sorted(chat["chat_id"] for chat in scene.chats.find()) == sorted([chat_id, lower])


def test_more_streams_than_a_batch_holds_are_all_read(scene: Scene) -> None:
    scene.index()
    scene.add(
        {
            "aggregate_id": f"aaaaaaaa-0000-4000-a000-{number:012d}",
            "aggregate_type": "Chat",
            "event_type": "chat.created",
            "version": 1,
            "data": {"type": "bug"},
        }
        for number in range(2_501)
    )
    assert [counts.inserted for counts in scene.rebuild().read_models.values()] == [2_501, 2_501]
    scene.chats.update_many({}, {"$set": {"title": "damaged"}})
    scene.tasks.delete_many({"task_id": {"$regex": "[1-5]$"}})
    before = scene.rebuild(dry_run=True)
    assert before.read_models == scene.rebuild().read_models
    assert scene.verify().ok
