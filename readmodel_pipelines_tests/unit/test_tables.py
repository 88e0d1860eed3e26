"""Long tables: the default run has each line once, the whole run has every crossing."""

from itertools import product

import pytest

from readmodel_pipelines_tests.support.tables import each_once


@pytest.mark.parametrize("sizes", [(1,), (7,), (2, 3), (10, 3), (2, 2, 5)], ids=str)
def test_each_line_comes_up_in_no_more_crossings_than_the_longest_table_has_lines(sizes: tuple[int, ...]) -> None:
    crossings = [tuple(enumerate(map(str, lines))) for lines in product(*map(range, sizes))]
    chosen = each_once(crossings)
    assert {line for number in chosen for line in crossings[number]} == {line for lines in crossings for line in lines}
    assert len(chosen) == max(sizes)


def test_the_lines_of_a_short_table_take_turns() -> None:
    crossings = [((0, long), (1, short)) for long, short in product("abcdefgh", "xy")]
    shorts = [crossings[number][1] for number in each_once(crossings)]
    assert shorts.count((1, "x")) == shorts.count((1, "y")) == 4


def test_a_line_that_is_left_out_by_hand_is_not_missed() -> None:
    assert each_once([((0, "a"), (1, "x")), ((0, "b"), (1, "y"))]) == {0, 1}
