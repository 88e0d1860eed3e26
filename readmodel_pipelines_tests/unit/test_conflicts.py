"""Who is blocked by whom when documents wait for one another's unique keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, cast

from bson import ObjectId
from hypothesis import given, settings
from hypothesis import strategies as st

from readmodel_pipelines.projections.projection import Document
from readmodel_pipelines.projections.task import TASKS_OF_CHATS
from readmodel_pipelines.reconcile.conflicts import Tangle, blocked_by, untangle
from readmodel_pipelines.reconcile.counts import Counts
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict
from readmodel_pipelines.reconcile.ports import Change, ReadModel
from readmodel_pipelines.reconcile.run import Lane
from readmodel_pipelines.reconcile.second_look import SecondLook


def free_ones(holders: Mapping[str, Sequence[str]], movable: Iterable[str]) -> set[str]:
    """The largest set of movable keys that only wait for one another, by trying all of them."""
    every = sorted(movable)
    for size in range(len(every), 0, -1):
        for some in combinations(every, size):
            if all(set(holders.get(key, ())) <= set(some) for key in some):
                return set(some)
    return set()


names = st.sampled_from("abcde")


@settings(max_examples=300)
@given(st.dictionaries(names, st.lists(st.sampled_from("abcdeXY"), max_size=3)), st.sets(names))
def test_blocked_are_those_that_wait_in_the_end_for_one_that_stays(
    holders: dict[str, list[str]], movable: set[str]
) -> None:
    free = free_ones(holders, movable)
    blocked = blocked_by(holders, movable)
    assert blocked.keys() == movable - free
    for key, in_the_way in blocked.items():
        assert in_the_way in holders[key]
        assert in_the_way not in free


def test_a_cycle_is_free() -> None:
    assert blocked_by({"a": ["b"], "b": ["c"], "c": ["a"]}, "abc") == {}


def test_a_chain_behind_one_that_stays_is_blocked_each_by_the_next() -> None:
    assert blocked_by({"a": ["b"], "b": ["c"], "c": ["X"], "d": []}, "abcd") == {"a": "b", "b": "c", "c": "X"}


def test_a_cycle_with_one_way_out_to_a_stayer_is_blocked() -> None:
    assert blocked_by({"a": ["b"], "b": ["a", "X"]}, "ab").keys() == {"a", "b"}


class Documents:
    """Documents by task id, each holding one chat id: just enough of a read model to ask who holds what."""

    def __init__(self, held: Mapping[Any, str]) -> None:
        self.documents = [{"_id": key, "task_id": key, "chat_id": chat} for key, chat in held.items()]

    def holders(self, changes: Sequence[Change]) -> list[tuple[Change, Document]]:
        return [
            (change, document)
            for change in changes
            if change.expected is not None
            for document in self.documents
            if document["chat_id"] == change.expected["chat_id"] and document["task_id"] != change.key
        ]


def change(key: Any, chat: str | None) -> Change:
    expected = None if chat is None else {"task_id": key, "chat_id": chat}
    return Change(key, expected, {"_id": key, "task_id": key})


class Again:
    """A second look at documents, which gives the changes that they need."""

    def __init__(self, held: Mapping[Any, str], others: Mapping[Any, Change]) -> None:
        self.lane = Lane(TASKS_OF_CHATS, cast(ReadModel, Documents(held)), Counts())
        self._others = others

    def verdicts(self, ids: Sequence[str]) -> list[Verdict]:
        changes = [self._others[key] for key in ids if key in self._others]
        return [Verdict(item.key, Outcome.DIFFERENT, item.expected, item.actual) for item in changes]

    def odd_orphans(self, documents: Sequence[Document]) -> list[Verdict]:
        return []


def untangled(
    held: Mapping[Any, str], stuck: Sequence[Change], others: Mapping[Any, Change], *, deleting: bool = True
) -> Tangle:
    return untangle(cast(SecondLook, Again(held, others)), stuck, deleting=deleting)


def test_two_that_exchange_their_keys_move_together() -> None:
    stuck = [change("a", "2"), change("b", "1")]
    tangle = untangled({"a": "1", "b": "2"}, stuck, {})
    assert tangle.movable == stuck
    assert tangle.blocked == {}


def test_a_holder_that_gets_another_key_moves_along() -> None:
    other = change("b", "3")
    tangle = untangled({"a": "1", "b": "2"}, [change("a", "2")], {"b": other})
    assert tangle.movable == [change("a", "2"), other]


def test_a_holder_that_is_deleted_gives_its_key_up() -> None:
    other = change("b", None)
    tangle = untangled({"b": "2"}, [change("a", "2")], {"b": other})
    assert tangle.movable == [change("a", "2"), other]


def test_a_holder_that_may_not_be_deleted_yet_keeps_its_key() -> None:
    tangle = untangled({"b": "2"}, [change("a", "2")], {"b": change("b", None)}, deleting=False)
    assert (tangle.movable, tangle.blocked) == ([], {"a": "b"})


def test_a_holder_that_stays_blocks_whoever_waits_and_is_named() -> None:
    stuck = [change("a", "2"), change("c", "1"), change("d", "4")]
    tangle = untangled({"a": "1", "b": "2"}, stuck, {})
    assert tangle.blocked == {"a": "b", "c": "a"}
    assert tangle.movable == [stuck[2]]


def test_only_those_that_were_stuck_are_called_blocked() -> None:
    tangle = untangled({"b": "2", "c": "3"}, [change("a", "2")], {"b": change("b", "3")})
    assert tangle.blocked == {"a": "b"}
    assert tangle.movable == []


def test_a_holder_whose_key_is_no_string_is_named_as_it_is() -> None:
    odd = ObjectId()
    assert untangled({odd: "2"}, [change("a", "2")], {}).blocked == {"a": odd}


@given(st.permutations(range(6)), st.permutations(range(6)), st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)))
def test_what_is_movable_can_be_written_together(
    held: list[int], wanted: list[int], stayers: set[int], deleted: set[int]
) -> None:
    before = {f"t{task}": f"c{chat}" for task, chat in enumerate(held)}
    plan = {f"t{task}": change(f"t{task}", None if task in deleted else f"c{chat}") for task, chat in enumerate(wanted)}
    for task in stayers:
        del plan[f"t{task}"]
    stuck = [item for item in plan.values() if item.expected]
    tangle = untangled(before, stuck, plan)
    after = dict(before)
    for item in tangle.movable:
        after.pop(item.key, None)
    for item in tangle.movable:
        if item.expected:
            after[item.key] = item.expected["chat_id"]
    assert len(set(after.values())) == len(after)
    moved = {item.key for item in tangle.movable}
    assert tangle.blocked.keys() == {item.key for item in stuck} - moved
    assert not moved & set(tangle.blocked.values())


def test_a_long_chain_is_followed_to_its_end() -> None:
    held = {f"t{number}": f"c{number}" for number in range(50)}
    others = {f"t{number}": change(f"t{number}", f"c{number + 1}") for number in range(1, 50)}
    assert len(untangled(held, [change("t0", "c1")], others).movable) == 50
    del others["t49"]
    tangle = untangled(held, [change("t0", "c1")], others)
    assert (tangle.movable, tangle.blocked) == ([], {"t0": "t1"})
