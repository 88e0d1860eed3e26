"""Batches of a range: saved with what was counted in them, paced by limits, load and the hours of the day."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

import pytest

from readmodel_pipelines.in_turn import InTurn
from readmodel_pipelines.pacing import BatchSize, RateLimit, Window
from readmodel_pipelines.projections.registry import built_in
from readmodel_pipelines.rebuild.batches import Batches
from readmodel_pipelines.reconcile.join import Lane
from readmodel_pipelines.reconcile.outcome import Counts
from readmodel_pipelines.side_by_side import side_by_side
from readmodel_pipelines.speed_limits import Pace, WindowClosed
from readmodel_pipelines_tests.support.clock import Clock

EVENTS_OF_A_STREAM = 10
SECONDS_OF_A_STREAM = 0.001
START = datetime(2026, 11, 1, 5, 59, tzinfo=UTC)

SECONDS = 240


class World:
    """A clock that only work and sleep move on, a store, a lane, a sink, and what was saved."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.events_read = 0
        self.flushed = 0
        self.saved: list[tuple[str | None, Mapping[str, Mapping[str, int]], int]] = []
        self.lane = Lane(built_in("chat")[0], None, Counts())  # type: ignore[arg-type]

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self.clock.now - 100.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def take(self) -> Callable[[], None]:
        return self.flush

    def flush(self) -> None:
        self.flushed += 1

    def save(self, cursor: str | None, counts: Mapping[str, Mapping[str, int]], events: int, _: float) -> None:
        self.saved.append((cursor, counts, events))

    def work(self, pace: Pace, streams: int) -> int:
        """Go through so many streams; gives how many until the window closed."""
        with InTurn(1) as behind:
            return self.through(self.saving(behind, pace), streams)

    def saving(self, behind: InTurn, pace: Pace) -> Batches:
        store: Any = self
        told: list[None] = []
        about = BatchSize(first=50), behind, told.append, side_by_side, self.clock
        return Batches(store, [self.lane], [self], self.save, pace, *about)

    def through(self, batches: Batches, streams: int) -> int:
        for number in range(streams):
            if batches.due():
                try:
                    batches.reached(f"{number:09d}")
                except WindowClosed:
                    return number
            self.events_read += EVENTS_OF_A_STREAM
            self.lane.counts.checked += 1
            self.lane.counts.inserted += 1
            self.clock.now += SECONDS_OF_A_STREAM
        batches.finish()
        return streams


def limited(world: World, **limits: Any) -> Pace:
    def limit(per_second: float | None) -> RateLimit:
        return RateLimit(per_second, clock=world.clock, sleep=world.clock.sleep)

    return Pace(limit(limits.get("events")), limit(limits.get("documents")), now=world.now, sleep=world.clock.sleep)


def test_every_batch_is_written_before_it_is_saved_and_the_counts_add_up() -> None:
    world = World()
    world.work(Pace(), 10_000)
    cursors = [cursor for cursor, _, _ in world.saved]
    assert cursors[-1] is None
    assert cursors[:-1] == sorted(cursor for cursor in cursors if cursor is not None)
    assert world.flushed == len(world.saved) > 3
    assert sum(events for _, _, events in world.saved) == 10_000 * EVENTS_OF_A_STREAM
    assert sum(counts["chats_read_model"]["checked"] for _, counts, _ in world.saved) == 10_000


@pytest.mark.parametrize(("what", "limit", "number"), [("events", 2_000.0, 40_000), ("documents", 100.0, 4_000)])
def test_a_limit_is_held_within_a_tenth(what: str, limit: float, number: int) -> None:
    world = World()
    world.work(limited(world, **{what: limit}), 4_000)
    assert number / world.seconds == pytest.approx(limit, rel=0.1)


@pytest.mark.parametrize(("what", "limit"), [("events", 200.0), ("documents", 20.0)])
def test_a_limit_holds_for_a_range_of_one_batch_too(what: str, limit: float) -> None:
    world = World()
    world.work(limited(world, **{what: limit}), 40)
    assert len(world.saved) == 1
    assert world.seconds == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize(
    ("limits", "first"),
    [({}, 1_000), ({"documents": 300.0}, 150), ({"events": 80.0, "documents": 300.0}, 40), ({"events": 1e9}, 1_000)],
)
def test_the_first_batch_is_no_larger_than_what_half_a_second_pays_for(limits: dict[str, float], first: int) -> None:
    assert limited(World(), **limits).first_batch == first


@pytest.mark.parametrize("events_per_second", [None, 3_000.0])
def test_the_end_of_the_window_is_kept_within_one_batch(events_per_second: float | None) -> None:
    world = World()
    pace = limited(world, events=events_per_second)
    pace.window = Window.parse("22:00-06:00", "UTC")
    done = world.work(pace, 10_000_000)
    assert 0 < done < 10_000_000
    # A minute was left when it began; a batch and its pause take about half a second.
    assert 60 <= world.seconds < 61.5
    assert world.saved[-1][0] == f"{done:09d}", "everything before the end is saved"


def test_a_run_waits_while_the_server_is_loaded_and_not_beyond_the_window() -> None:
    world = World()
    pace = limited(world)
    pace.window = Window.parse("22:00-06:00", "UTC")

    class Loaded:
        def reason_to_wait(self) -> str:
            return "87 operations are queued" if 1 < world.seconds < 20 or world.seconds > 30 else ""

    pace.load = Loaded()  # type: ignore[assignment]
    done = world.work(pace, 10_000_000)
    assert done < 15_000
    assert 60 <= world.seconds < 62


def test_the_next_batch_is_read_while_one_is_written_and_neither_is_counted_with_the_other() -> None:
    world, may_write, begun = World(), Event(), Event()

    def write() -> None:
        begun.set()
        assert may_write.wait(SECONDS)
        world.lane.counts.inserted += 50

    world.flush = write  # type: ignore[method-assign]
    with InTurn(2) as behind:
        batches = world.saving(behind, Pace())
        world.lane.counts.checked = 50
        batches.reached("a")
        assert begun.wait(SECONDS)
        world.lane.counts.checked += 7
        assert not world.saved, "it is not written yet"
        may_write.set()
        batches.finish()
    counted = [(cursor, counts["chats_read_model"]) for cursor, counts, _ in world.saved]
    assert [(cursor, counts["checked"], counts["inserted"]) for cursor, counts in counted] == [
        ("a", 50, 50),
        (None, 7, 50),
    ]


def test_a_batch_whose_write_failed_is_not_saved_and_ends_the_range() -> None:
    world = World()

    def write() -> None:
        raise LookupError("no primary")

    world.flush = write  # type: ignore[method-assign]
    with pytest.raises(LookupError, match="no primary"):
        world.work(Pace(), 10_000)
    assert not world.saved
