"""The history of an aggregate: what each event changed, who set what last, where the stored document stands."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bson.datetime_ms import DatetimeMS

from readmodel_pipelines.demo.sample_data import long_stream
from readmodel_pipelines.errors import AggregateNotFound, UsageError
from readmodel_pipelines.events.stream import fold_streams
from readmodel_pipelines.history.formatting import end_as_json, step_as_json
from readmodel_pipelines.history.history import History, HistoryRequest, history, moment_of
from readmodel_pipelines.history.steps import Replay, SetBy, Step
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.registry import built_in
from readmodel_pipelines.reconcile.outcome import Outcome
from readmodel_pipelines_tests.support.recorded import read_documents
from readmodel_pipelines_tests.support.scene import BOTH, Scene, typed, uuid
from readmodel_pipelines_tests.support.verbs.command_line import NOBODY, Cli

CHATS, TASKS = BOTH
RENAMED = ("chat.renamed", {"new_title": "second"})
AGAIN = ("chat.renamed", {"new_title": "third"})


def looked_at(
    scene: Scene, aggregate_id: str, *names: str, request: HistoryRequest | None = None
) -> tuple[History, list[Step]]:
    steps: list[Step] = []
    found = history(scene.database, scene.settings, names, aggregate_id, request or HistoryRequest(), steps.append)
    json.dumps([end_as_json(found), [step_as_json(step) for step in steps]])
    return found, steps


def stored(scene: Scene, aggregate_id: str) -> dict[str, tuple[str, int | None]]:
    found, _ = looked_at(scene, aggregate_id)
    return {name: (item.outcome.value, item.at_version) for name, item in found.read_models.items()}


@pytest.fixture
def chat(scene: Scene) -> str:
    """A chat of four events, whose documents are right."""
    scene.index()
    chat_id = scene.chat("first", RENAMED, AGAIN)
    scene.build()
    return chat_id


# What the application wrote


@pytest.mark.parametrize("generation", ["small", "legacy_tasks"])
def test_the_last_state_of_every_recorded_stream_is_the_read_model(corpus: Path, generation: str) -> None:
    projections = built_in("chat") if generation == "small" else built_in("task")[1:]
    files = (CHATS, TASKS) if generation == "small" else ("tasks_written_by_repository",)
    events = read_documents(corpus / generation / "events.jsonl.gz")
    for projection, file in zip(projections, files, strict=True):
        recorded = {item[projection.key]: item for item in read_documents(corpus / generation / f"{file}.jsonl.gz")}
        for aggregate_id in sorted({event["aggregate_id"] for event in events}):
            stream = [
                item for item in events_of(events, aggregate_id) if item["aggregate_type"] in projection.fold.stored_as
            ]
            if not stream:
                continue
            replay = Replay([projection], aggregate_id, {}, lambda _: None)
            replay.run(stream)
            position = replay.positions[projection.read_model]
            wanted, got = dict(recorded.get(aggregate_id, {})), dict(position.document or {})
            wanted.pop("_id", None)
            if generation == "legacy_tasks":
                # What the repository wrote counts some events apart.
                assert wanted.pop("version") <= got.pop("version")
            assert typed(got) == typed(wanted), aggregate_id
            assert position.blame == naive_blame(projection, stream), aggregate_id


@pytest.mark.each_once
def test_a_recorded_read_model_stands_at_the_end_of_its_streams(scene: Scene, corpus: Path, whole: bool) -> None:
    scene.index()
    for name in ("events", *BOTH):
        scene.collection(name).insert_many(read_documents(corpus / "small" / f"{name}.jsonl.gz"))
    for aggregate_id in sorted(scene.events.distinct("aggregate_id"))[:: 1 if whole else 10]:
        found, steps = looked_at(scene, aggregate_id)
        assert len(steps) == found.shown == found.last_version == found.version
        stands = {(item.outcome, item.at_version) for item in found.read_models.values()}
        assert stands == {(Outcome.SAME, found.last_version)}


def events_of(events: list[dict[str, Any]], aggregate_id: str) -> list[dict[str, Any]]:
    return sorted((item for item in events if item["aggregate_id"] == aggregate_id), key=lambda item: item["version"])


def naive_blame(projection: Projection, events: list[dict[str, Any]]) -> dict[str, SetBy]:
    """Each version folded from the beginning, and compared with the one before it."""
    blame: dict[str, SetBy] = {}
    before: dict[str, Any] = {}
    for number, event in enumerate(events, 1):
        (stream,) = fold_streams(events[:number], projection.fold)
        after: dict[str, Any] = projection.document(stream.aggregate_id, stream.result) or {}
        for field in before.keys() | after.keys():
            if typed(before.get(field, "nothing")) != typed(after.get(field, "nothing")):
                blame[field] = SetBy(number, event["event_type"])
        before = after
    return blame


# Where the stored document stands


def test_a_document_that_missed_updates_stands_at_the_version_that_it_had(scene: Scene, chat: str) -> None:
    scene.chats.update_one({}, {"$set": {"title": "second"}})
    assert stored(scene, chat) == {CHATS: ("different", 3), TASKS: ("same", 4)}


def test_a_document_that_was_never_made_stands_before_the_first_event(scene: Scene, chat: str) -> None:
    scene.tasks.delete_one({})
    assert stored(scene, chat) == {CHATS: ("same", 4), TASKS: ("missing", 0)}


def test_a_document_that_no_event_explains_stands_nowhere(scene: Scene, chat: str) -> None:
    scene.chats.update_one({}, {"$set": {"title": "by hand"}})
    assert stored(scene, chat)[CHATS] == ("different", None)


def test_a_document_that_ought_to_be_gone_stands_before_its_deletion(scene: Scene, chat: str) -> None:
    scene.append(chat, ("chat.deleted", {}))
    assert stored(scene, chat) == {CHATS: ("same", 5), TASKS: ("unexpected", 4)}


def test_a_document_without_events_is_an_orphan(scene: Scene, chat: str) -> None:
    scene.chats.insert_one({"chat_id": NOBODY})
    found, steps = looked_at(scene, NOBODY, "chat")
    assert (found.read_models[CHATS].outcome, steps) == (Outcome.ORPHAN, [])


def test_an_id_that_is_unknown_or_none_is_an_error_and_so_is_a_field_that_nobody_has(scene: Scene, chat: str) -> None:
    with pytest.raises(AggregateNotFound):
        looked_at(scene, NOBODY)
    with pytest.raises(UsageError, match="is no aggregate id"):
        looked_at(scene, "chat")
    with pytest.raises(UsageError, match="'titel'") as unknown:
        looked_at(scene, chat, request=HistoryRequest(field="titel"))
    assert "title" in unknown.value.hint


def test_nothing_is_written(scene: Scene, chat: str) -> None:
    before = scene.dump()
    looked_at(scene, chat)
    assert scene.dump() == before


# What it was at a moment


def test_at_a_version_the_document_and_the_blame_are_those_of_then(scene: Scene, chat: str) -> None:
    found, steps = looked_at(scene, chat, "chat", request=HistoryRequest(at_version=3))
    assert [step.version for step in steps] == [1, 2, 3]
    item = found.read_models[CHATS]
    assert item.document is not None
    assert item.document["title"] == "second"
    assert item.blame["title"] == SetBy(3, "chat.renamed")
    # Of the whole stream, all the same.
    assert (item.outcome, item.at_version, found.version, found.last_version) == (Outcome.SAME, 4, 3, 4)


def test_before_the_first_event_there_is_no_document(scene: Scene, chat: str) -> None:
    found, steps = looked_at(scene, chat, "chat", request=HistoryRequest(at_version=0))
    assert (steps, found.version, found.read_models[CHATS].document) == ([], 0, None)


def test_at_a_time_it_ends_before_the_first_event_that_occurred_later(scene: Scene, chat: str) -> None:
    # The clock of whoever wrote the fourth was behind.
    for version, second in enumerate((0, 10, 20, 5), 1):
        occurred = {"$set": {"occurred_at": DatetimeMS(second * 1000)}}
        scene.events.update_one({"version": version}, occurred)
    moment = datetime(1970, 1, 1, 0, 0, 12, tzinfo=UTC)
    found, _ = looked_at(scene, chat, "chat", request=HistoryRequest(at=moment))
    assert (found.version, int(found.occurred_at)) == (2, 10_000)


@pytest.mark.parametrize(
    ("typed_in", "moment"),
    [
        ("2026-11-02", datetime(2026, 11, 2, tzinfo=UTC)),
        ("2026-11-02T03:05Z", datetime(2026, 11, 2, 3, 5, tzinfo=UTC)),
        (" 2026-11-02 04:05:00+01:00", datetime(2026, 11, 2, 3, 5, tzinfo=UTC)),
    ],
)
def test_a_time_is_taken_in_utc_unless_it_says_otherwise(typed_in: str, moment: datetime) -> None:
    assert moment_of(typed_in) == moment


def test_what_is_no_time_and_a_time_and_a_version_are_refused() -> None:
    with pytest.raises(UsageError, match="is no time"):
        moment_of("yesterday")
    with pytest.raises(UsageError, match="version and a time"):
        HistoryRequest(1, datetime.now(UTC))


def test_of_a_field_only_the_events_that_changed_it_are_told(scene: Scene, chat: str) -> None:
    found, steps = looked_at(scene, chat, request=HistoryRequest(field="title"))
    assert [step.version for step in steps] == [1, 2, 3, 4]
    assert {name for step in steps for changes in step.changed.values() for name in changes} == {"title"}
    assert [set(item.blame) for item in found.read_models.values()] == [{"title"}, {"title"}]
    _, steps = looked_at(scene, chat, request=HistoryRequest(field="is_public"))
    assert [step.version for step in steps] == [1]


# Malformed streams


def test_a_malformed_stream_is_shown_up_to_the_event_that_is_to_blame(scene: Scene, chat: str) -> None:
    scene.append(chat, ("chat.renamed", {"new_title": 7}), ("chat.renamed", {"new_title": "later"}))
    blamed = scene.events.find_one({"version": 5}) or {}
    found, steps = looked_at(scene, chat)
    assert [step.version for step in steps] == [1, 2, 3, 4]
    assert found.malformed is not None
    assert (found.malformed.reason, found.malformed.version, found.malformed.event_id) == (
        "bad_field",
        5,
        blamed["_id"],
    )
    assert {item.outcome for item in found.read_models.values()} == {Outcome.MALFORMED}
    assert {item.at_version for item in found.read_models.values()} == {4}


def test_a_stream_that_is_let_pass_shows_what_is_skipped(scene: Scene, chat: str) -> None:
    scene.append(chat, ("chat.exploded", {}), ("chat.renamed", {"new_title": "later"}))
    scene.settings = scene.settings.model_copy(update={"allow_malformed": frozenset({"unknown_event_type"})})
    _, steps = looked_at(scene, chat, "chat")
    assert [(step.version, bool(step.changed)) for step in steps][-2:] == [(5, False), (6, True)]


def test_a_legacy_task_whose_chat_is_claimed_twice_says_so(legacy_scene: Scene) -> None:
    legacy_scene.index()
    task = legacy_scene.task("one", uuid("chat"))
    legacy_scene.task("two", uuid("chat"))
    found, steps = looked_at(legacy_scene, task, "task")
    finding = found.read_models[TASKS].finding
    assert finding is not None
    assert (finding.reason, [step.version for step in steps]) == ("key_conflict", [1])


# On the command line


def test_the_document_of_json_has_the_names_that_scripts_know(scene: Scene, chat: str, cli: Cli) -> None:
    scene.chats.update_one({}, {"$set": {"title": "second"}})
    ended = cli("history", "--type", "chat", "--id", chat, "--json")
    told = json.loads(ended.stdout)
    assert ended.exit_code == 0
    assert told["aggregate_id"] == chat
    assert [event["version"] for event in told["events"]] == [1, 2, 3, 4]
    assert told["events"][3] == {
        "version": 4,
        "event_type": "chat.renamed",
        "occurred_at": None,
        "changed": {CHATS: {"title": {"before": "second", "after": "third"}}},
    }
    assert told["events"][0]["changed"][CHATS]["title"] == {"before": {"$absent": True}, "after": ""}
    assert told["blame"][CHATS]["title"] == {"version": 4, "event_type": "chat.renamed"}
    assert (told["stored"][CHATS]["outcome"], told["stored"][CHATS]["at_version"]) == ("different", 3)
    assert told["documents"][CHATS]["title"] == "third"


def test_people_read_who_changed_what_and_what_the_stored_document_lacks(scene: Scene, chat: str, cli: Cli) -> None:
    scene.append(chat, ("chat.participant_added", {"user_id": "u1"}))
    scene.chats.update_one({}, {"$set": {"title": "second"}})
    said = cli("history", "--type", "all", "--id", chat.upper()).stdout
    assert f'{CHATS}  title: "second" → "third"' in said
    assert f'{CHATS}  participants: + "u1"' in said
    assert "version: 3 → 4" not in said
    assert f"Stored in {CHATS}: different: it equals version 3 of the stream. It lacks 2 events" in said
    assert f"`readmodel rebuild-readmodel --type all --id {chat}` repairs it" in said
    of_title = cli("history", "--type", "chat", "--id", chat, "--field", "title", "--at-version", "3").stdout
    assert '"second"' in of_title
    assert '"third"' not in of_title.partition("Stored in")[0]


@pytest.mark.parametrize(
    ("arguments", "code"), [(("--id", NOBODY), 1), (("--id", "x"), 2), (("--id", NOBODY, "--at", "soon"), 2), ((), 2)]
)
def test_what_cannot_be_told_is_an_error_in_one_document(
    chat: str, cli: Cli, arguments: tuple[str, ...], code: int
) -> None:
    ended = cli("history", "--type", "chat", *arguments, "--json")
    assert ended.exit_code == code
    assert json.loads(ended.stdout)["error"]["message"]


def test_a_history_that_is_interrupted_is_one_document_still(
    scene: Scene, chat: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> dict[str, Any]:
        if interrupted.after:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        interrupted.after = True  # type: ignore[attr-defined]
        return {"version": 1}

    interrupted.after = False  # type: ignore[attr-defined]
    monkeypatch.setattr("readmodel_pipelines.history.formatting.step_as_json", interrupted)
    ended = cli("history", "--type", "chat", "--id", chat, "--json")
    told = json.loads(ended.stdout)
    assert (ended.exit_code, told["error"]["code"], told["events"]) == (130, "interrupted", [{"version": 1}])


MEASURED = """
import resource, sys
from readmodel_pipelines.cli.main import app
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try: app(sys.argv[1:])
except SystemExit: pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
"""


@pytest.fixture
def megabytes(env: dict[str, str]) -> Callable[[str], tuple[int, int]]:
    """The most memory that a history took, and the bytes that it printed."""

    def measure(aggregate_id: str) -> tuple[int, int]:
        run = [sys.executable, "-c", MEASURED, "history", "--type", "all", "--id", aggregate_id, "--json"]
        ended = subprocess.run(run, env=env, capture_output=True, check=True)
        assert json.loads(ended.stdout)["last_version"]
        return int(ended.stderr.split()[-1]), len(ended.stdout)

    return measure


def test_a_long_history_takes_no_more_memory_than_a_short_one(
    scene: Scene, megabytes: Callable[[str], tuple[int, int]], whole: bool
) -> None:
    scene.index()
    short = scene.chat("short")
    events = list(long_stream(200_000 if whole else 5_000))
    scene.add(events)
    few, _ = megabytes(short)
    many, printed = megabytes(events[0]["aggregate_id"])
    assert printed > (40_000_000 if whole else 1_000_000)
    # The driver holds two batches of events.
    assert many < few + 40, (few, many)
