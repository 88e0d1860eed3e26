"""The states of a rebuild: none is forgotten in the table of what each may follow."""

from readmodel_pipelines.rebuild_state import MAY_FOLLOW, UNFINISHED, RebuildState

OF_A_RUN_ALONE = {RebuildState.PAUSED, RebuildState.INTERRUPTED}


def test_every_state_says_what_it_may_follow() -> None:
    assert set(MAY_FOLLOW) == set(RebuildState)


def test_what_is_unfinished_goes_on_and_what_is_at_its_end_only_goes_back() -> None:
    going_on = {before for state, befores in MAY_FOLLOW.items() for before in befores if state != "rolled_back"}
    assert going_on == set(UNFINISHED)
    assert set(MAY_FOLLOW[RebuildState.ROLLED_BACK]).isdisjoint(UNFINISHED)


def test_no_record_comes_to_be_in_a_state_of_a_run_alone() -> None:
    assert not any(MAY_FOLLOW[state] for state in OF_A_RUN_ALONE)
    assert all(OF_A_RUN_ALONE.isdisjoint(befores) for befores in MAY_FOLLOW.values())
