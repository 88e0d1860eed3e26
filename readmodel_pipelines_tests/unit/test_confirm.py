"""What a verification tells: what stands when it is looked at again, once a writer had its moment."""

from collections.abc import Collection, Mapping, Sequence
from typing import cast

import pytest

from readmodel_pipelines.events.stream import Malformed, Reason
from readmodel_pipelines.reconcile import confirm
from readmodel_pipelines.reconcile.confirm import SEEN_BYTES, Confirm, FirstLook
from readmodel_pipelines.reconcile.outcome import Counts, Outcome, Verdict, Why
from readmodel_pipelines.reconcile.ports import BATCH, BATCH_BYTES
from readmodel_pipelines.reconcile.recheck import Recheck
from readmodel_pipelines.spread import _Sending

GRACE = 5.0
MANY = [f"a{number:05d}" for number in range(10 * BATCH)]


class World:
    """Aggregates by id: what is found of each at which second, and since when it has young events."""

    def __init__(self) -> None:
        self.now = 100.0
        self.wrong_until: dict[str, float] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.twice: set[str] = set()
        self.young_ids: dict[str, int] = {}
        self.behind_ids: set[str] = set()
        self.changed_ids: set[str] = set()
        self.asked_behind: list[Mapping[str, int]] = []
        self.batches: list[list[str]] = []
        self.size = 0
        self.counts = Counts()
        self.noted: list[Verdict] = []

    def sink(self, grace: float = GRACE) -> Confirm:
        again = cast(Recheck, self)
        return Confirm(
            self.counts, again, self.noted.extend, grace_seconds=grace, clock=lambda: self.now, sleep=self.sleep
        )

    def over(self, *ids: str, grace: float = GRACE) -> dict[str, str]:
        sink = self.sink(grace)
        for aggregate_id in ids:
            self.counts.checked += 1
            sink.accept(Verdict(aggregate_id, Outcome.DIFFERENT))
        sink.finish()
        assert self.counts.checked == self.counts.same + len(self.noted)
        return {verdict.aggregate_id: verdict.outcome.value for verdict in self.noted}

    def verdicts(self, ids: Sequence[str]) -> list[Verdict]:
        self.batches.append(list(ids))
        found = []
        for key in sorted(set(ids)):
            if self.now < self.wrong_until.get(key, 1e9):
                found.append(Verdict(key, self.outcomes.get(key, Outcome.DIFFERENT), size=self.size))
                found += [Verdict(key, Outcome.UNEXPECTED, reason=Why.DUPLICATE_KEY)] if key in self.twice else []
        return found

    def standing(self, seen: Sequence[Verdict], seconds: float) -> tuple[list[Verdict], Mapping[str, int]]:
        ids = [verdict.aggregate_id for verdict in seen]
        young = self.young(ids, seconds) if seconds else {}
        return [verdict for verdict in seen if verdict.aggregate_id not in self.changed_ids], young

    def young(self, ids: Sequence[str], seconds: float) -> Mapping[str, int]:
        return {key: self.young_ids[key] for key in ids if key in self.young_ids}

    def behind(self, since: Mapping[str, int]) -> Collection[str]:
        self.asked_behind.append(since)
        return self.behind_ids & since.keys()

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def world() -> World:
    return World()


def test_what_is_right_at_the_second_look_is_same(world: World) -> None:
    world.wrong_until = {"a": 0.0}
    assert world.over("a", "b") == {"b": "different"}
    assert (world.counts.same, world.now) == (1, 100.0), "no event is young: nothing is waited for"


def test_only_what_changed_since_it_was_seen_is_compared_again(world: World) -> None:
    world.changed_ids, world.wrong_until = {"b", "d"}, {"b": 0.0}
    sink = world.sink()
    for name in "abcd":
        world.counts.checked += 1
        sink.accept(Verdict(name, Outcome.DIFFERENT, {"chat_id": name}, {"chat_id": name}, version=1))
    sink.finish()
    assert world.batches == [["b", "d"]]
    assert [verdict.aggregate_id for verdict in world.noted] == ["a", "c", "d"]
    assert (world.counts.checked, world.counts.same) == (4, 1)


def test_what_has_young_events_is_told_after_the_grace_time_if_it_still_stands(world: World) -> None:
    world.young_ids = {"a": 3, "b": 3}
    world.wrong_until = {"a": 101.0}
    assert world.over("a", "b", "c") == {"c": "different", "b": "different"}
    assert world.now == 100.0 + GRACE


def test_what_is_then_without_its_young_events_lags(world: World) -> None:
    world.young_ids = {"a": 3, "b": 7}
    world.behind_ids = {"b"}
    assert world.over("a", "b") == {"a": "different", "b": "lagging"}
    assert world.asked_behind == [{"a": 2, "b": 6}]


@pytest.mark.parametrize("outcome", [Outcome.ORPHAN, Outcome.MALFORMED])
def test_what_no_writer_is_about_to_mend_does_not_lag(world: World, outcome: Outcome) -> None:
    world.young_ids, world.behind_ids, world.outcomes = {"a": 1}, {"a"}, {"a": outcome}
    assert world.over("a") == {"a": outcome.value}


def test_a_second_document_for_a_key_does_not_lag_beside_the_one_that_does(world: World) -> None:
    world.young_ids, world.behind_ids, world.twice = {"a": 3}, {"a"}, {"a"}
    world.over("a")
    assert [(item.outcome, item.reason) for item in world.noted] == [
        (Outcome.LAGGING, None),
        (Outcome.UNEXPECTED, Why.DUPLICATE_KEY),
    ]


def test_without_a_grace_time_nothing_is_waited_for(world: World) -> None:
    world.young_ids = {"a": 3}
    assert world.over("a", grace=0) == {"a": "different"}
    assert world.now == 100.0


def test_a_duplicate_is_told_beside_the_document_that_it_duplicates(world: World) -> None:
    world.twice = {"m"}
    world.over(*MANY[: BATCH - 1], "m", "m", "n")
    assert [len(batch) for batch in world.batches] == [BATCH + 1, 1]
    assert [item.outcome for item in world.noted if item.aggregate_id == "m"] == [Outcome.DIFFERENT, Outcome.UNEXPECTED]


def test_a_document_that_became_a_duplicate_meanwhile_is_counted_too(world: World) -> None:
    world.twice = {"a"}
    assert len(world.over("a")) == 1
    assert (world.counts.checked, len(world.noted)) == (2, 2)


def test_what_no_query_can_ask_for_stands_as_it_was_seen(world: World) -> None:
    sink = world.sink()
    for odd in (None, 7, "\udcff"):
        sink.accept(Verdict(odd, Outcome.MALFORMED, malformed=Malformed(Reason.BAD_AGGREGATE_ID, "odd")))
    sink.finish()
    assert [verdict.aggregate_id for verdict in world.noted] == [None, 7, "\udcff"]
    assert world.batches == []


def test_however_many_may_lag_no_more_than_some_are_held(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirm, "PUT_OFF", 3 * BATCH)
    world.young_ids = dict.fromkeys(MANY, 2)
    sink = world.sink()
    held = 0
    for name in MANY:
        world.counts.checked += 1
        sink.accept(Verdict(name, Outcome.DIFFERENT))
        held = max(held, len(sink._put_off))
    sink.finish()
    assert held <= 4 * BATCH
    assert len(world.noted) == world.counts.checked == len(MANY)


@pytest.mark.parametrize("grace", [0.0, GRACE])
def test_wide_documents_are_looked_at_a_few_at_a_time(grace: float) -> None:
    world, wide = World(), BATCH_BYTES // 4
    world.young_ids = dict.fromkeys(MANY[:10], 5)
    world.size = wide
    sink = world.sink(grace)
    for aggregate_id in MANY[:10]:
        world.counts.checked += 1
        sink.accept(Verdict(aggregate_id, Outcome.DIFFERENT, size=wide))
    sink.finish()
    assert {len(batch) for batch in world.batches} <= {4, 2}
    assert len(world.noted) == 10


def test_a_first_look_confirms_what_stands_and_leaves_what_changed_and_what_is_young(world: World) -> None:
    world.changed_ids, world.young_ids = {"b"}, {"c": 3}
    explained: list[str] = []
    again = cast(Recheck, world)
    look = FirstLook(world.counts, again, world.noted.extend, GRACE, lambda item: explained.append(item.aggregate_id))
    seen = [Verdict(name, Outcome.DIFFERENT, {"chat_id": name}, {"chat_id": name}, version=1) for name in "abc"]
    for verdict in seen:
        look.see(verdict)
    # The second document for `a` is gone since, and `d` has no expected one.
    every = [seen[0], Verdict("a", Outcome.UNEXPECTED), *seen[1:], Verdict("d", Outcome.ORPHAN)]
    assert [verdict.aggregate_id for verdict in look.rest_of(every)] == ["b", "c", "d"]
    assert [verdict.aggregate_id for verdict in world.noted] == ["a"]
    assert explained == ["a", "b", "c"]
    assert world.counts.same == 1
    assert look.rest_of([]) == []


def test_of_wide_documents_a_worker_holds_only_a_few(world: World) -> None:
    sent: list[object] = []
    look = FirstLook(world.counts, cast(Recheck, world), world.noted.extend, GRACE, lambda _: None)
    sink = _Sending("chats_read_model", sent.append, look)
    for name in MANY[:10]:
        document = {"chat_id": name}
        sink.accept(Verdict(name, Outcome.DIFFERENT, document, document, version=1, size=SEEN_BYTES // 4))
        assert len(look._seen) <= 4
    sink.send()
    assert [verdict.aggregate_id for verdict in world.noted] == MANY[:10]
    assert sent == []
