"""Who is blocked by whom when documents wait for one another's unique keys."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, cast

import pytest
from bson import ObjectId
from hypothesis import given, settings
from hypothesis import strategies as st

from readmodel_pipelines.projections.projection import Document
from readmodel_pipelines.projections.task import TASKS_OF_CHATS
from readmodel_pipelines.reconcile.conflicts import Tangle, blocked_by, untangle
from readmodel_pipelines.reconcile.join import Lane
from readmodel_pipelines.reconcile.outcome import Counts, Outcome, Verdict
from readmodel_pipelines.reconcile.ports import ReadModel
from readmodel_pipelines_tests.support.recheck import recheck


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
def test_blocked_is_what_waits_in_the_end_for_one_that_stays(holders: dict[str, list[str]], movable: set[str]) -> None:
    free = free_ones(holders, movable)
    blocked = blocked_by(holders, movable)
    assert blocked.keys() == movable - free
    for key, in_the_way in blocked.items():
        assert in_the_way in holders[key]
        assert in_the_way not in free


@pytest.mark.parametrize(
    ("holders", "blocked"),
    [
        ({"a": ["b"], "b": ["c"], "c": ["a"]}, {}),
        ({"a": ["b"], "b": ["c"], "c": ["X"], "d": []}, {"a": "b", "b": "c", "c": "X"}),
        ({"a": ["b"], "b": ["a", "X"]}, {"a": "b", "b": "X"}),
    ],
    ids=["a cycle is free", "a chain behind one that stays", "a cycle with one way out to a stayer"],
)
def test_who_is_blocked_is_blocked_by_the_next(holders: dict[str, list[str]], blocked: dict[str, str]) -> None:
    assert blocked_by(holders, holders) == blocked


class Documents:
    """Documents by task id, each holding one chat id: just enough of a read model to ask who holds what."""

    def __init__(self, held: Mapping[Any, str]) -> None:
        self.documents = [{"_id": key, "task_id": key, "chat_id": chat} for key, chat in held.items()]

    def claims(self, changes: Sequence[Verdict]) -> list[list[tuple[Sequence[str], bytes]]]:
        return [[] for _ in changes]

    def holders(self, changes: Sequence[Verdict]) -> list[tuple[Verdict, Document, Sequence[str]]]:
        return [
            (change, document, ["chat_id"])
            for change in changes
            if change.expected is not None
            for document in self.documents
            if document["chat_id"] == change.expected["chat_id"] and document["task_id"] != change.aggregate_id
        ]


def change(key: Any, chat: str | None) -> Verdict:
    expected = None if chat is None else {"task_id": key, "chat_id": chat}
    return Verdict(key, Outcome.DIFFERENT, expected, {"_id": key, "task_id": key})


def untangled(
    held: Mapping[Any, str], stuck: Sequence[Verdict], others: Mapping[Any, Verdict], *, deleting: bool = True
) -> Tangle:
    lane = Lane(TASKS_OF_CHATS, cast(ReadModel, Documents(held)), Counts())
    return untangle(recheck(lane, others.values()), stuck, deleting=deleting)


def blocked_in(tangle: Tangle) -> dict[Any, Any]:
    return {key: holder.key for key, holder in tangle.blocked.items()}


TO_C2 = change("a", "2")
ODD = ObjectId()


@pytest.mark.parametrize(
    ("held", "others", "along", "blocked"),
    [
        pytest.param({"a": "1", "b": "2"}, [change("b", "1")], ["b"], {}, id="two exchange their keys"),
        pytest.param({"a": "1", "b": "2"}, [change("b", "3")], ["b"], {}, id="a holder gets another key"),
        pytest.param({"b": "2"}, [change("b", None)], ["b"], {}, id="a holder is deleted"),
        pytest.param({"b": "2", "c": "3"}, [change("b", "3")], [], {"a": "b"}, id="only the stuck are called blocked"),
        pytest.param({ODD: "2"}, [], [], {"a": ODD}, id="a holder whose key is no string"),
    ],
)
def test_who_waits_moves_together_with_the_holders_of_its_key_or_is_blocked_by_one_that_stays(
    held: Mapping[Any, str], others: list[Verdict], along: list[str], blocked: dict[str, Any]
) -> None:
    tangle = untangled(held, [TO_C2], {item.aggregate_id: item for item in others})
    assert blocked_in(tangle) == blocked
    assert tangle.movable == ([] if blocked else [TO_C2, *others])
    assert [item.aggregate_id for item in tangle.movable[1:]] == along


def test_a_holder_that_may_not_be_deleted_yet_keeps_its_key() -> None:
    tangle = untangled({"b": "2"}, [TO_C2], {"b": change("b", None)}, deleting=False)
    assert (tangle.movable, blocked_in(tangle)) == ([], {"a": "b"})


@given(st.permutations(range(6)), st.permutations(range(6)), st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)))
def test_what_can_move_moves_together(held: list[int], wanted: list[int], stayers: set[int], deleted: set[int]) -> None:
    before = {f"t{task}": f"c{chat}" for task, chat in enumerate(held)}
    plan = {f"t{task}": change(f"t{task}", None if task in deleted else f"c{chat}") for task, chat in enumerate(wanted)}
    for task in stayers:
        del plan[f"t{task}"]
    stuck = [item for item in plan.values() if item.expected]
    tangle = untangled(before, stuck, plan)
    after = dict(before)
    for item in tangle.movable:
        after.pop(item.aggregate_id, None)
    for item in tangle.movable:
        if item.expected:
            after[item.aggregate_id] = item.expected["chat_id"]
    assert len(set(after.values())) == len(after)
    moved = {item.aggregate_id for item in tangle.movable}
    assert tangle.blocked.keys() == {item.aggregate_id for item in stuck} - moved
    assert not moved & {holder.key for holder in tangle.blocked.values() if not holder.keeps}
