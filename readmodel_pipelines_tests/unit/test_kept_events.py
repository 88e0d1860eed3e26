"""The events of a second look are kept for whoever asks why: whole streams, of the last look, and not too many."""

from typing import Any

import pytest

from readmodel_pipelines.projections.registry import built_in
from readmodel_pipelines.reconcile import kept_events
from readmodel_pipelines.reconcile.kept_events import KeptEvents, dated


def stream(key: Any, number: int) -> list[dict[str, Any]]:
    return [{"aggregate_id": key, "version": version, "data": {"title": "t"}} for version in range(1, number + 1)]


def test_every_event_passes_in_its_order_and_whole_streams_are_kept_until_they_are_taken() -> None:
    kept, events = KeptEvents(), [*stream("a", 3), *stream("b", 2), *stream(7, 2)]
    assert list(kept.passing(events)) == events
    assert kept.take("a") == events[:3]
    assert kept.take("a") is None
    assert kept.take("b") == events[3:5]


def test_another_look_forgets_the_one_before_and_what_was_not_read_to_its_end_is_not_kept() -> None:
    kept = KeptEvents()
    list(kept.passing(stream("a", 3)))
    passing = kept.passing([*stream("b", 3), *stream("c", 3)])
    assert [next(passing)["version"] for _ in range(4)] == [1, 2, 3, 1]
    assert kept.take("a") is None
    assert kept.take("b") is not None
    assert kept.take("c") is None


def test_no_more_is_kept_than_there_is_room_for_and_what_lies_beyond_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kept_events, "MOST_OF_A_STREAM", 5)
    monkeypatch.setattr(kept_events, "MOST_EVENTS", 12)
    kept = KeptEvents()
    list(kept.passing([*stream("long", 6), *stream("a", 5), *stream("b", 5)]))
    assert [kept.take(key) is not None for key in ("long", "a", "b")] == [False, True, False]


@pytest.mark.parametrize("projection", built_in("chat"), ids=["chats", "tasks"])
def test_events_say_when_they_occurred(projection: Any) -> None:
    assert "occurred_at" in dated(projection).fold.envelope
