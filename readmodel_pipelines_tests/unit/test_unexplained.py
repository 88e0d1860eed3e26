"""Values that no event explains: known at once where the long search comes to the same, and left to it elsewhere."""

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from bson.datetime_ms import DatetimeMS

from readmodel_pipelines.projections.chat import chat_document
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.registry import built_in
from readmodel_pipelines.reconcile.diagnosis import at_once, cause_of
from readmodel_pipelines.reconcile.outcome import Verdict
from readmodel_pipelines.reconcile.unexplained import are_unexplained
from readmodel_pipelines_tests.support.lost_updates import (
    WAYS,
    Events,
    Truth,
    damaged,
    one,
    stored_without,
    stream_of,
    streams,
    tied_streams,
    verdict_on,
)

CHATS, TASKS = built_in("chat")
KEY = "00000000-0000-4000-8000-000000000001"
CREATED = ("chat.created", {"type": "task", "workspace_id": "w", "created_by": "u"})
WRONG: dict[str, tuple[Any, ...]] = {
    "created_by": ("nobody", "", None, 7),
    "created_at": (DatetimeMS(5), "2026", None),
    "title": ("nobody", "", None),
    "status": ("nobody", "Closed", None),
    "due_date": (None, DatetimeMS(5)),
    "assigned_to": (None, "nobody", "u"),
    "version": (0, 7, 999, None),
}


def stream(*more: tuple[str, dict[str, Any]]) -> Events:
    return [
        {"aggregate_id": KEY, "aggregate_type": "Chat", "version": version, "event_type": kind, "data": data}
        for version, (kind, data) in enumerate((CREATED, *more), 1)
    ]


def renamed(title: str) -> tuple[str, dict[str, Any]]:
    return "chat.renamed", {"new_title": title}


def verdict_with(projection: Projection, events: Events, **stored: Any) -> Verdict:
    right = stored_without(projection, KEY, events, ())
    assert right is not None
    verdict = verdict_on(projection, KEY, events, {**right, **stored})
    assert verdict is not None
    return verdict


def is_told(events: Events, projection: Projection = CHATS, **stored: Any) -> bool:
    return are_unexplained(projection, KEY, events, verdict_with(projection, events, **stored).pairs)


def test_a_value_that_no_event_holds_in_a_field_of_the_first_event_is_told() -> None:
    assert is_told(stream(renamed("x"), renamed("y")), created_by="nobody")
    assert is_told(stream(), created_by="nobody", created_at=DatetimeMS(5))


@pytest.mark.parametrize("text", ["w", "W", "x", "STRASSE"])
def test_a_text_that_some_event_holds_but_for_space_and_case_is_left_to_the_search(text: str) -> None:
    assert not is_told(stream(renamed(" x "), renamed("straße")), created_by=text)


def test_a_field_that_changed_is_left_to_the_search() -> None:
    assert not is_told(stream(renamed("x"), renamed("y")), title="nobody")


def test_a_field_that_once_had_its_value_is_left_to_the_search() -> None:
    due = stream(("chat.due_date_set", {"new_due_date": "2026-01-01T00:00:00Z"}))
    assert not is_told(due, TASKS, due_date=None, created_by="nobody")


def test_a_field_that_one_side_lacks_and_a_list_are_left_to_the_search() -> None:
    assert not is_told(stream(), severity="nobody", created_by="nobody")
    assert not is_told(stream(), participants=["nobody"], created_by="nobody")


def test_a_stream_without_a_document_for_a_while_is_left_to_the_search() -> None:
    hidden = stream(("chat.type_changed", {"new_type": "discussion"}), ("chat.type_changed", {"new_type": "task"}))
    assert not is_told(hidden, TASKS, created_by="nobody")


def test_a_projection_that_fails_at_an_earlier_state_is_left_to_the_search() -> None:
    def document(aggregate_id: str, chat: Any) -> dict[str, Any]:
        assert isinstance(chat_document(aggregate_id, chat)["title"], str)
        return chat_document(aggregate_id, chat) | {"title": chat.title[0]}

    assert not is_told(stream(renamed("x")), replace(CHATS, document=document), created_by="nobody")


def _wrong(projection: Projection, seed: int) -> Iterator[Truth]:
    """Documents that lack updates, and right ones and such with a value from elsewhere."""
    random = Random(f"{seed} {projection.name}")
    for made in (streams(30, seed), tied_streams(30, seed)):
        for chosen in WAYS.values():
            yield from damaged(projection, made, chosen, seed)
        for key, events in made.items():
            for lost in ((), one(events, random)):
                stored = stored_without(projection, key, events, lost)
                fields = random.sample([name for name in WRONG if name in projection.owned], random.choice([1, 2]))
                if stored is not None:
                    stored |= {name: random.choice(WRONG[name]) for name in fields}
                if verdict := verdict_on(projection, key, events, stored):
                    yield Truth(verdict, events, frozenset(lost))


@pytest.mark.parametrize("projection", [CHATS, TASKS], ids=["chats", "tasks"])
def test_events_that_were_folded_before_show_the_same_cause_as_those_that_are_checked_again(
    projection: Projection,
) -> None:
    told = 0
    for seed in range(4):
        for truth in _wrong(projection, seed):
            checked = stream_of(projection, truth)
            folded = replace(checked, intact=list(checked.events()))
            if at_once(truth.verdict) is None:
                assert cause_of(truth.verdict, folded) == cause_of(truth.verdict, checked), truth
                told += are_unexplained(projection, checked.aggregate_id, truth.events, truth.verdict.pairs)
    assert told > 50
