"""The states of a rebuild: none is forgotten in the table of what may follow."""

from readmodel_pipelines.rebuild_state import MAY_BECOME, UNFINISHED, RebuildState


def test_every_state_says_what_may_follow_it() -> None:
    assert set(MAY_BECOME) == set(RebuildState)


def test_what_is_unfinished_may_go_on_and_what_is_at_its_end_only_back() -> None:
    back = {RebuildState.ROLLED_BACK}
    assert all(MAY_BECOME[state] - back for state in UNFINISHED)
    assert all(MAY_BECOME[state] <= back for state in set(RebuildState) - set(UNFINISHED))


def test_no_record_comes_to_be_in_a_state_of_a_run_alone() -> None:
    assert not {RebuildState.PAUSED, RebuildState.INTERRUPTED} & set().union(*MAY_BECOME.values())
