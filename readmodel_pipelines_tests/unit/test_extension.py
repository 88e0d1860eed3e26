"""Read models of one's own: what is loaded, what is refused and in which words, and that one pass feeds them all."""

import re
import runpy
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from bson import Int64
from bson.datetime_ms import DatetimeMS
from hypothesis import given
from hypothesis import settings as trying
from hypothesis import strategies as st

from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.docs.examples import chat_activity
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.events.stream import EventType, Fold, Malformed, Reason, Stream, fold_streams
from readmodel_pipelines.events.together import part_of, together
from readmodel_pipelines.projections.chat import CHAT_FOLD, CHATS
from readmodel_pipelines.projections.extension import check_extension
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.registry import built_in, by_fold, names, projections_for
from readmodel_pipelines.projections.task import TASK_FOLD
from readmodel_pipelines.reconcile.join import Lane, MergeJoin
from readmodel_pipelines.reconcile.outcome import Counts, Outcome, Verdict
from readmodel_pipelines.reconcile.ports import ReadModel
from readmodel_pipelines.settings import Settings

EXAMPLE = Path(chat_activity.__file__)
(ACTIVITY,) = chat_activity.READ_MODELS
EVENTS = list(chat_events(30, seed=4, mean_events=6))
A_FEW_LINES = 100

Event = dict[str, Any]


CREATED = ("chat.created", {"workspace_id": "w"})


# The example


def test_the_example_is_one_short_file() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < A_FEW_LINES


# What the settings name is loaded


def with_own(source: object, **changed: Any) -> tuple[Projection, ...]:
    return projections_for(Settings(projections=(str(source),), **changed))


def test_a_file_and_a_module_are_loaded_once_and_stand_behind_the_built_in_ones() -> None:
    by_file, by_module = with_own(EXAMPLE), with_own("readmodel_pipelines.docs.examples.chat_activity")

    assert names(by_file) == names(by_module) == ("chat", "task", "chat_activity")
    assert with_own(EXAMPLE)[-1] is by_file[-1]
    assert by_module[-1] is ACTIVITY
    assert names(projections_for(Settings())) == ("chat", "task")


def test_a_change_of_generation_leaves_it_alone() -> None:
    legacy = with_own(EXAMPLE, task_source="task")

    assert [item.read_model for item in legacy] == ["chats_read_model", "tasks_read_model", "chat_activity_read_model"]
    assert [names(group) for group in by_fold(legacy)] == [("chat", "chat_activity"), ("task",)]


@pytest.mark.parametrize(
    ("source", "content", "said"),
    [
        ("no_such_module_at_all", "", "names the module no_such_module_at_all"),
        ("/no/such/file.py", "", "names the file /no/such/file.py"),
        ("plain.txt", "", "plain.txt, which is no Python file"),
        ("empty.py", "", "adds no read model"),
        ("strings.py", "READ_MODELS = ('chat',)", "adds no read model"),
        ("broken.py", "\n1 / 0", "does not load: ZeroDivisionError: division by zero ({file}, line 2)"),
        ("lacking.py", "import no_such_library", "does not load: ModuleNotFoundError: No module named 'no_such_l"),
        ("syntax.py", "\n\ndef", "does not load: SyntaxError: invalid syntax ({file}, line 3)"),
        ("indented.py", " x", "does not load: IndentationError: unexpected indent ({file}, line 1)"),
        ("half.py", "raise ValueError('half \\ud83d')", "ValueError: half \\ud83d ({file}, line 1)"),
        ("lazy.py", "def __getattr__(name):\n    raise KeyError(name)", "does not load: KeyError: '"),
        ("script.py", "raise SystemExit(2)", "does not load: SystemExit: 2 ({file}, line 1)"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_words(tmp_path: Path, source: str, content: str, said: str) -> None:
    file = tmp_path / source
    if "." in source and "/" not in source:
        file.write_text(content)
        source = str(file)

    with pytest.raises(UsageError) as caught:
        with_own(source)

    assert caught.value.message.startswith("READMODEL_PROJECTIONS names ")
    assert said.format(file=file) in caught.value.message
    assert caught.value.hint


def test_a_file_that_was_mended_is_loaded_again(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("1 / 0")
    with pytest.raises(UsageError):
        with_own(file)

    file.write_text(EXAMPLE.read_text(encoding="utf-8"))

    assert with_own(file)[-1].name == "chat_activity"


def own_fold(**changes: Any) -> Fold[Any]:
    return replace(chat_activity.FOLD, **changes)


@dataclass(frozen=True)
class Frozen:
    created: bool = False
    version: int = 0


TAKEN = ("tasks_read_model", "elsewhere", "events", "repair_queue")
INVOICE = own_fold(aggregate_type="invoice", stored_as=("Invoice",))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        *(({"name": name}, f"the name {name} is taken") for name in ("chat", "all")),
        ({"name": "Chat Activity"}, "name is 'Chat Activity'; it must begin with a to z"),
        ({"name": "readmodel_x"}, "are reserved"),
        *(({"read_model": name}, f"{name} is taken") for name in TAKEN),
        *(({"read_model": name}, "are reserved") for name in ("readmodel_leases", "activity__rebuild_1")),
        ({"owned": ("workspace_id",)}, "owned lacks chat_id"),
        ({"unique": ("title",)}, "owned lacks title"),
        ({"owned": ("chat_id", "chat_id")}, "a field twice"),
        ({"owned": ("chat_id", "_id")}, "owned names '_id'"),
        ({"owned": ("chat_id", "a.b")}, "owned names 'a.b'"),
        ({"schema_version": 0}, "schema_version is 0"),
        ({"document": None}, "document is no function"),
        ({"claims": ("chat.created", "code")}, "claims names code of chat.created"),
        ({"decided_by": {"chat.exploded": ()}}, "decided_by names 'chat.exploded'"),
        ({"decided_by": {"chat.created": ("colour",)}}, "decided_by names colour of chat.created"),
        ({"decided_by": ("chat.created",)}, "decided_by must be a mapping"),
        ({"fold": own_fold(events={"chat.created": print})}, "have no EventType for chat.created"),
        ({"fold": own_fold(stored_as=("Chat",))}, "another stored_as or prefix"),
        ({"fold": own_fold(events={"chat.created": EventType(print)})}, "event types as the existing fold: chat.a"),
        ({"fold": own_fold(aggregate_type="conversation")}, "reads the events of chat streams"),
        ({"fold": own_fold(start=dict)}, "the fold's start makes no state with created and version: AttributeError"),
        ({"fold": own_fold(start=Frozen)}, "makes no state with created and version: FrozenInstanceError"),
        ({"fold": own_fold(start=lambda: 1 // 0)}, "makes no state with created and version: ZeroDivisionError"),
        ({"fold": own_fold(start=sys.exit)}, "makes no state with created and version: SystemExit"),
        ({"name": 7}, "name is 7, which is no text"),
        ({"description": b"bytes"}, "description is b'bytes', which is no text"),
        ({"read_model": "x" * 61}, "at most 60 characters"),
        ({"key": "half \ud83d"}, "key is 'half \\ud83d', which is no text"),
        ({"unique": "chat_id"}, "unique is 'chat_id', which is no tuple of texts"),
        ({"owned": ("chat_id", 7)}, "owned is ('chat_id', 7), which is no tuple of texts"),
        ({"claims": ("chat.created",)}, "cannot be checked: ValueError"),
        ({"fold": None}, "fold is no Fold"),
        ({"fold": own_fold(events=["chat.created"])}, "fold is no Fold with a mapping of events"),
        ({"fold": own_fold(stored_as="Chat")}, "stored_as is 'Chat', which is no tuple of texts"),
        ({"fold": own_fold(prefix=None)}, "prefix is None, which is no text"),
        ({"fold": own_fold(envelope="occurred_at")}, "envelope is 'occurred_at', which is no tuple of texts"),
        ({"fold": own_fold(envelope=("$where",))}, "envelope has invalid names of fields: '$where'"),
        (
            {"fold": own_fold(events={"chat.created": EventType(print, cast(Any, "title"))})},
            "fields of chat.created is 'title'",
        ),
        (
            {"fold": own_fold(events={"chat.created": EventType(print, ("a..b",))})},
            "fields of chat.created has invalid names of fields: 'a..b'",
        ),
        ({"fold": own_fold(events={"chat.created": EventType(cast(Any, "text"))})}, "no EventType for chat.created"),
    ],
)
def test_a_projection_that_is_not_whole_or_harms_another_is_refused(changes: dict[str, Any], said: str) -> None:
    collections = Settings(chats_collection="elsewhere").named_collections

    with pytest.raises(UsageError) as caught:
        check_extension("mine.py", replace(ACTIVITY, **changes), built_in("chat"), collections)

    assert said in caught.value.message
    assert caught.value.message.startswith("READMODEL_PROJECTIONS names mine.py, whose read model ")


@pytest.mark.parametrize(
    "fold", [CHAT_FOLD, TASK_FOLD, chat_activity.FOLD, INVOICE], ids=["chat", "task", "own", "new"]
)
def test_a_projection_may_have_a_built_in_fold_or_one_of_its_own(fold: Fold[Any]) -> None:
    added = replace(ACTIVITY, fold=fold, decided_by={})
    check_extension("mine.py", added, built_in("chat"), Settings().named_collections)


# One pass feeds several folds


def shown(stream: Stream[Any], document: Callable[[str, Any], Any]) -> Any:
    result = stream.result
    # Of two offences the pass tells the one that all folds share, although a fold's own may come before it.
    return "malformed" if isinstance(result, Malformed) else (document(stream.aggregate_id, result), result.version)


odd: st.SearchStrategy[Any] = st.sampled_from([None, 7, "text", {}, [], DatetimeMS(1), True])
damages = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.sampled_from(["version", "event_type", "data", "occurred_at", "workspace_id", "user_id", "type"]),
        odd,
    ),
    max_size=6,
)


@given(damages)
@trying(max_examples=60)
def test_each_fold_comes_to_what_it_comes_to_by_itself(damages: list[tuple[int, str, Any]]) -> None:
    events = [{**event, "data": dict(event["data"])} for event in EVENTS[:60]]
    for place, field, value in damages:
        holder = events[place] if field in events[place] else events[place]["data"]
        if isinstance(holder, dict):
            holder[field] = value
    folds: list[Fold[Any]] = [CHAT_FOLD, chat_activity.FOLD]
    of_both = list(fold_streams(events, together(folds)))

    for place, (fold, document) in enumerate(zip(folds, (CHATS.document, ACTIVITY.document), strict=True)):
        alone = [shown(stream, document) for stream in fold_streams(events, fold)]
        assert [shown(part_of(stream, place), document) for stream in of_both] == alone


def test_a_stream_that_no_fold_sees_created_is_told_with_its_first_event_though_that_one_was_let_pass() -> None:
    chat_id = EVENTS[0]["aggregate_id"]
    events = [
        {"_id": version, "aggregate_id": chat_id, "version": version, "event_type": kind, "data": {"new_title": "x"}}
        for version, kind in ((1, "chat.exploded"), (2, "chat.renamed"))
    ]
    folds: list[Fold[Any]] = [CHAT_FOLD, chat_activity.FOLD]
    (of_both,) = fold_streams(events, together(folds), ["unknown_event_type"])

    for place, fold in enumerate(folds):
        (alone,) = fold_streams(events, fold, ["unknown_event_type"])
        assert part_of(of_both, place) == alone


def test_one_pass_reads_what_any_of_them_reads_and_nothing_twice_and_one_fold_alone_is_passed_through() -> None:
    both = together([CHAT_FOLD, chat_activity.FOLD])

    assert both.envelope == ("occurred_at",)
    assert both.events["chat.created"].fields == ("workspace_id", "type", "is_public", "created_by", "created_at")
    assert together([CHAT_FOLD]) is CHAT_FOLD


# Faults of a projection's own code


def failing(activity: Any, event: Mapping[str, Any]) -> None:
    raise KeyError("no such thing")


def test_a_fold_that_raises_makes_its_own_read_model_malformed_and_no_other() -> None:
    fold = own_fold(events={**chat_activity.FOLD.events, "chat.renamed": EventType(failing)})
    renamed = {event["aggregate_id"] for event in EVENTS if event["event_type"] == "chat.renamed"}
    streams = list(fold_streams(EVENTS, together([CHAT_FOLD, fold])))

    own = [part_of(stream, 1) for stream in streams]
    refused = {stream.aggregate_id: stream.result for stream in own if isinstance(stream.result, Malformed)}
    assert 0 < len(renamed) < len(streams)
    assert refused.keys() == renamed
    for offence in refused.values():
        assert offence.reason is Reason.PROJECTION_FAILED
        assert offence.detail.startswith("KeyError: 'no such thing' (")
        assert f"{Path(__file__).name}, line" in offence.detail
    assert not any(isinstance(part_of(stream, 0).result, Malformed) for stream in streams)


def joined(projection: Projection, value: Any = None) -> Verdict:
    """The verdict on the first chat, whose document has that value; on None there is no document."""
    verdicts: list[Verdict] = []
    first = next(fold_streams(EVENTS, chat_activity.FOLD))
    documents = [] if value is None else [{"_id": 1, "chat_id": first.aggregate_id, "value": value}]
    MergeJoin(Lane(projection, cast(ReadModel, None), Counts(), verdicts.append), documents).meet(first)
    return verdicts[0]


def assert_failed(verdict: Verdict, said: str) -> None:
    assert (verdict.outcome, verdict.reason) == (Outcome.MALFORMED, Reason.PROJECTION_FAILED)
    assert verdict.malformed is not None
    assert said in verdict.malformed.detail


def making(**fields: Any) -> Projection:
    return replace(ACTIVITY, document=lambda chat_id, state: {"chat_id": chat_id, **fields}, owned=("chat_id", "value"))


@pytest.mark.parametrize(
    ("projection", "said"),
    [
        (replace(ACTIVITY, document=lambda chat_id, state: state.nothing), "AttributeError: 'Activity' object has no"),
        (making(other=1), "`owned` does not name: other"),
        (making(chat_id="another"), "key, chat_id, is not the id"),
        (making(value={1, 2}), "cannot encode object: {1, 2}"),
        (making(value=2**70), "cannot be stored"),
        (making(value=UUID(int=7)), "cannot be stored: cannot encode native uuid.UUID"),
        (replace(ACTIVITY, document=cast(Any, lambda chat_id, state: [chat_id, 1])), "list"),
    ],
    ids=["raises", "strange field", "wrong key", "no BSON", "too large a number", "UUID", "a list"],
)
def test_a_document_that_cannot_be_is_reported_and_never_written(projection: Projection, said: str) -> None:
    for verdict in (joined(projection), joined(projection, 1)):
        assert_failed(verdict, said)


@pytest.mark.parametrize(
    ("made", "read_back"),
    [(datetime(2026, 1, 1, tzinfo=UTC), DatetimeMS(1_767_225_600_000)), (2**40, Int64(2**40)), ((1, 2), [1, 2])],
    ids=["datetime", "large number", "tuple"],
)
def test_a_type_that_mongodb_gives_back_as_another_is_reported(made: Any, read_back: Any) -> None:
    assert_failed(joined(making(value=made), read_back), "MongoDB gives value back in another type")
    assert joined(making(value=read_back), "old").outcome is Outcome.DIFFERENT


# extending.md


PAGE = EXAMPLE.parents[1] / "extending.md"
_PYTHON = re.compile(r"^ *```python\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
BLOCKS = [textwrap.dedent(block) for block in _PYTHON.findall(PAGE.read_text(encoding="utf-8"))]
PROGRAMS = [block for block in BLOCKS if block.startswith("from ")]


def test_what_the_page_quotes_from_the_example_stands_there() -> None:
    source = EXAMPLE.read_text(encoding="utf-8")
    quoted = [block for block in BLOCKS if block not in PROGRAMS and "ReadModelProjector" not in block]

    assert len(quoted) == 3
    assert [block for block in quoted if block not in source] == []


def test_a_read_model_on_a_built_in_fold_is_as_short_as_the_page_says(tmp_path: Path) -> None:
    (program,) = [block for block in PROGRAMS if "READ_MODELS = " in block]
    file = tmp_path / "chat_files.py"
    file.write_text(program)

    added = projections_for(Settings(projections=(str(EXAMPLE), str(file))))[-1]

    assert names([added]) == ("chat_files",)
    made = [added.document(stream.aggregate_id, stream.result) for stream in fold_streams(EVENTS, CHAT_FOLD)]
    assert None in made
    assert any(document and document["files"] for document in made)


def test_the_tests_that_the_page_shows_pass(tmp_path: Path) -> None:
    (program,) = [block for block in PROGRAMS if "def test_" in block]
    file = tmp_path / "shown_tests.py"
    file.write_text(program)

    tests = [item for name, item in runpy.run_path(str(file)).items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()
