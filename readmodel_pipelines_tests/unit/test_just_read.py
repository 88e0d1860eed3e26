"""The stream that was read last, had from the batches of the read that are still held."""

from typing import Any

import pytest

from readmodel_pipelines.events.exact import Odd
from readmodel_pipelines.mongo.just_read import HELD, JustRead
from readmodel_pipelines.projections.chat import CHAT_FOLD

SYMBOL = Odd(0x0E, b"\2\0\0\0b\0")


def events(aggregate_id: Any, number: int) -> list[dict[str, Any]]:
    return [{"aggregate_id": aggregate_id, "version": version} for version in range(1, number + 1)]


def read(each: list[dict[str, Any]], size: int) -> JustRead:
    just_read = JustRead(CHAT_FOLD)
    for start in range(0, len(each), size):
        just_read.add(each[start : start + size])
    return just_read


@pytest.mark.parametrize("size", range(1, 12))
@pytest.mark.parametrize("following", [0, 1, 2])
def test_a_stream_is_had_whole_or_not_at_all(size: int, following: int) -> None:
    streams = [events("a", 3), events("b", 5), events("c", following)]
    held = read([event for stream in streams for event in stream], size).of("b")
    assert held in ([], streams[1])
    assert bool(held) >= (size > 3)
    assert bool(held) <= (size > 1)


def test_the_first_stream_of_a_read_is_had_too() -> None:
    first = events("a", HELD)
    assert read(first, 1).of("a") == first
    assert read([*first, *events("b", 1)], 1).of("a") == []
    assert read(first, 1).of("b") == []
    assert JustRead(CHAT_FOLD).of("a") == []


def test_a_symbol_among_the_events_of_its_text_is_not_taken_for_one_of_them() -> None:
    one, two, three = events("b", 3)
    for size in (1, 2, 5):
        assert read([*events("a", 1), one, two | {"aggregate_id": SYMBOL}, three], size).of("b") == []
