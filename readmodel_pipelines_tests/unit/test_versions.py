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
UNDECIDED = replace(TASKS_OF_CHATS, decided_by=())


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

    def outlines(self, _: object, event_types: Sequence[str]) -> Iterator[Outline]:
        event = {"aggregate_id": ID, "event_type": self.begins, "version": self.ends[0], "data": self.created}
        yield Outline(ID, *self.ends, event if event_types else None)

    def deciding(self, _: object, event_types: Sequence[str]) -> Iterator[dict[str, Any]]:
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
