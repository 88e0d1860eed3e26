"""The tier of versions: what it suspects, from ends of streams, versions of documents, and the events that decide."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from readmodel_pipelines.events.stream import Reason
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.task import TASKS_OF_CHATS
from readmodel_pipelines.reconcile.join import Lane
from readmodel_pipelines.reconcile.outcome import Counts, Outcome, Verdict
from readmodel_pipelines.reconcile.ports import EventStore, Outline, ReadModel
from readmodel_pipelines.reconcile.versions import reconcile_versions

ID = "00000000-0000-4000-8000-000000000000"
TASK, TALK = ({"type": kind, "title": ""} for kind in ("task", "discussion"))
UNDECIDED = replace(TASKS_OF_CHATS, decided_by={})


class Store:
    """One stream: the ends of its versions, the number of its events, its first one, and later ones that decide."""

    def __init__(
        self,
        ends: tuple[Any, Any, int],
        created: dict[str, Any] | None,
        *later: dict[str, Any],
        begins: str = "chat.created",
        skips: bool = False,
    ) -> None:
        self.ends, self.created, self.later, self.begins, self.skips = ends, created, later, begins, skips

    def outlines(self, _: object, fields: Collection[str] | None) -> Iterator[Outline]:
        event = {"aggregate_id": ID, "event_type": self.begins, "version": self.ends[0], "data": self.created}
        yield Outline(ID, *self.ends, None if fields is None else event)

    def deciding(self, _: object, event_types: Sequence[str], fields: Collection[str]) -> Iterator[dict[str, Any]]:
        assert set(fields) <= {"type", "new_type"}
        assert "chat.created" not in event_types or self.begins != "chat.created"
        yield from self.later

    def skipping(self, _: object) -> Iterator[str]:
        yield from [ID] if self.skips else []


class Model:
    def __init__(self, *versions: int) -> None:
        self._versions = versions

    def versions(self) -> list[dict[str, object]]:
        return [{"_id": None, "task_id": ID, "version": version} for version in self._versions]


def suspected(
    store: Store, model: Model, allowed: Collection[str] = (), projection: Projection = TASKS_OF_CHATS
) -> tuple[list[tuple[Outcome, str | None]], Counts]:
    verdicts: list[Verdict] = []
    lane = Lane(projection, cast(ReadModel, model), Counts(), emit=verdicts.append)
    reconcile_versions(cast(EventStore, store), [lane], allowed)
    assert lane.counts.checked == lane.counts.same + lane.counts.undecided + len(verdicts)
    return [(verdict.outcome, verdict.reason) for verdict in verdicts], lane.counts


@pytest.mark.parametrize(("allowed", "suspects"), [((), 1), ((Reason.VERSION_GAP,), 0)])
def test_a_gap_is_suspected_but_where_gaps_are_allowed(allowed: Collection[str], suspects: int) -> None:
    found, _ = suspected(Store((1, 5, 3), TASK), Model(5), allowed)
    assert found == [(Outcome.MALFORMED, Reason.VERSION_GAP)] * suspects


@pytest.mark.parametrize(
    ("created", "versions", "outcomes"),
    [
        (TASK, [3], []),
        (TASK, [2], [Outcome.DIFFERENT]),
        (TASK, [], [Outcome.MISSING]),
        (TALK, [], []),
        (TALK, [3], [Outcome.UNEXPECTED]),
        (None, [3], [Outcome.MALFORMED]),
        ({"type": 5}, [3], [Outcome.MALFORMED]),
    ],
)
def test_presence_is_decided_by_the_events_that_decide_it(
    created: dict[str, Any] | None, versions: list[int], outcomes: list[Outcome]
) -> None:
    found, _ = suspected(Store((1, 3, 3), created), Model(*versions))
    assert [outcome for outcome, _ in found] == outcomes


def later(version: int, event_type: str, **data: Any) -> dict[str, Any]:
    return {"aggregate_id": ID, "event_type": event_type, "version": version, "data": data}


BECAME_TALK = later(2, "chat.type_changed", new_type="discussion", title="")


@pytest.mark.parametrize(
    ("store", "versions", "outcomes"),
    [
        (Store((1, 3, 3), TASK, BECAME_TALK), [], []),
        (Store((1, 3, 3), TASK, BECAME_TALK), [3], [Outcome.UNEXPECTED]),
        (Store((1, 3, 3), TASK, later(3, "chat.deleted")), [], []),
        # It is read twice where another stream begins otherwise, and is one event all the same.
        (Store((1, 3, 3), TASK, later(1, "chat.created", **TASK), begins="chat.created"), [3], []),
        # It may begin with another event than the one that creates.
        (
            Store((1, 3, 3), {"new_title": ""}, later(2, "chat.created", **TALK), begins="chat.renamed"),
            [3],
            [Outcome.UNEXPECTED],
        ),
    ],
)
def test_later_events_decide_presence_too(store: Store, versions: list[int], outcomes: list[Outcome]) -> None:
    found, _ = suspected(store, Model(*versions))
    assert [outcome for outcome, _ in found] == outcomes


@pytest.mark.parametrize(("versions", "undecided", "outcomes"), [([3], 1, []), ([], 1, []), ([2], 0, ["different"])])
def test_without_such_events_nothing_that_only_the_fold_tells_is_called_right(
    versions: list[int], undecided: int, outcomes: list[str]
) -> None:
    found, counts = suspected(Store((1, 3, 3), None), Model(*versions), projection=UNDECIDED)
    assert ([outcome.value for outcome, _ in found], counts.undecided) == (outcomes, undecided)


def test_a_stream_with_events_that_are_skipped_is_looked_at_as_a_whole() -> None:
    store = Store((1, 3, 3), TASK, skips=True)
    assert suspected(store, Model(3))[0] == []
    assert len(suspected(store, Model(3), [Reason.UNKNOWN_EVENT_TYPE])[0]) == 1


def stream(number: int, data: Any, **odd: Any) -> dict[str, Any]:
    """The first event of one of several streams."""
    created = {"aggregate_id": f"{ID[:-1]}{number}", "event_type": "chat.created", "version": 1, "data": data}
    return {**created, **odd}


class Streams(Store):
    """Several streams, each with one event."""

    def __init__(self, *events: dict[str, Any]) -> None:
        super().__init__((1, 1, 1), None)
        self.events = events

    def outlines(self, _: object, fields: Collection[str] | None) -> Iterator[Outline]:
        assert fields == {"type", "new_type"}
        yield from (Outline(event["aggregate_id"], 1, 1, 1, event) for event in self.events)


class Keys(Model):
    """A document for each of these streams."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers

    def versions(self) -> list[dict[str, object]]:
        return [{"_id": None, "task_id": f"{ID[:-1]}{number}", "version": 1} for number in self.numbers]


@pytest.mark.parametrize(
    "odd", [{"type": True}, {"type": 1}, {"type": None}, {"type": "discussion", "title": 1}, [], None]
)
def test_streams_are_decided_as_others_with_the_same_values_and_no_other_ones(odd: Any) -> None:
    events = [stream(1, TASK), stream(2, odd), stream(3, TASK), stream(4, TALK), stream(5, TALK), stream(6, odd)]
    found, _ = suspected(Streams(*events), Keys(1, 5))
    alone, _ = suspected(Streams(events[1]), Keys())
    assert [outcome for outcome, _ in found] == [
        *(outcome for outcome, _ in alone),
        Outcome.MISSING,
        Outcome.UNEXPECTED,
        *(outcome for outcome, _ in alone),
    ]


@pytest.mark.parametrize("odd", [{"aggregate_type": 5}, {"event_type": "chat.exploded"}, {"version": "1"}])
def test_a_fault_of_one_stream_decides_no_other_and_none_of_another_hides_it(odd: dict[str, Any]) -> None:
    events = [stream(1, TASK), stream(2, TASK, **odd), stream(3, TASK), stream(4, TASK, **odd)]
    found, counts = suspected(Streams(*events), Keys(1, 2, 3, 4))
    assert [outcome for outcome, _ in found] == [Outcome.MALFORMED] * 2
    assert counts.same == 2


def test_a_fault_that_one_projection_has_with_one_stream_is_not_remembered_for_others() -> None:
    failed: list[str] = []

    def once(aggregate_id: str, chat: Any) -> dict[str, Any] | None:
        if not failed:
            failed.append(aggregate_id)
            raise KeyError
        return TASKS_OF_CHATS.document(aggregate_id, chat)

    projection = replace(TASKS_OF_CHATS, document=once)
    found, counts = suspected(Streams(*(stream(number, TASK) for number in range(3))), Keys(0, 1, 2), (), projection)
    assert ([outcome for outcome, _ in found], counts.same) == ([Outcome.MALFORMED], 2)
