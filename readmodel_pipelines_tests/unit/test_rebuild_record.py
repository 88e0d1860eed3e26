"""The record of a rebuild: what older versions left out has a default, and each state says what it may follow."""

from datetime import UTC, datetime
from typing import Any

import pytest

from readmodel_pipelines.bookkeeping.rebuild_record import record_of
from readmodel_pipelines.mongo.driver import ODD_RECORD
from readmodel_pipelines.rebuild_state import MAY_FOLLOW, UNFINISHED, RebuildState

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC).replace(tzinfo=None)
STORED: dict[str, Any] = {
    "_id": "0123456789ab",
    "kind": "rebuild",
    "state": "building",
    "strategy": "shadow",
    "read_models": ["chats_read_model"],
    "started_at": NOON,
    "updated_at": NOON,
    "what a newer version writes": 1,
}


def test_what_a_record_of_an_older_version_lacks_has_a_default() -> None:
    record = record_of(STORED)
    assert (record.id, record.state, record.in_shadow, record.first_pass) == ("0123456789ab", "building", True, True)
    assert (record.names, record.idle_seconds, record.copies) == (["chats_read_model"], 0.0, {})
    assert record.stored == STORED


@pytest.mark.parametrize("wrong", [{"state": "thinking"}, {"state": None}, {"read_models": ...}, {"started_at": ...}])
def test_a_record_of_another_form_is_an_odd_one(wrong: dict[str, Any]) -> None:
    document = {name: value for name, value in (STORED | wrong).items() if value is not ...}
    with pytest.raises(ODD_RECORD):
        record_of(document)


# States

OF_A_RUN_ALONE = {RebuildState.PAUSED, RebuildState.INTERRUPTED}


def test_every_state_says_what_it_may_follow() -> None:
    assert set(MAY_FOLLOW) == set(RebuildState)


def test_what_is_unfinished_goes_on_and_what_is_at_its_end_only_goes_back() -> None:
    going_on = {before for state, befores in MAY_FOLLOW.items() for before in befores if state != "rolling_back"}
    assert going_on == set(UNFINISHED)
    assert MAY_FOLLOW[RebuildState.ROLLED_BACK] == (RebuildState.ROLLING_BACK,)


def test_no_record_comes_to_be_in_a_state_of_a_run_alone() -> None:
    assert not any(MAY_FOLLOW[state] for state in OF_A_RUN_ALONE)
    assert all(OF_A_RUN_ALONE.isdisjoint(befores) for befores in MAY_FOLLOW.values())
