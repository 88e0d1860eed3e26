"""Sample events in the application's own form (`DATA_CONTRACT.md`), for the demo, the tests and the benchmarks.

The same arguments give the same documents, ObjectIds included: nothing here reads a clock. Streams are valid and come
ordered by aggregate id, then version; they are made one event at a time, so that a million events need no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from readmodel_pipelines.demo.sample_chats import chat_life, long_chat_life
from readmodel_pipelines.demo.sample_tasks import task_life
from readmodel_pipelines.demo.sample_values import Values

_Life = Callable[[Values, str, int], Iterator[dict[str, Any]]]


def chat_events(streams: int, *, seed: int = 0, mean_events: int = 20) -> Iterator[dict[str, Any]]:
    """The events of that many chats: event documents, ready to insert.

    Args:
        streams: how many chats.
        seed: another seed gives other chats.
        mean_events: about so many events a chat on average; one chat has between 1 and 3 times as many.
    """
    return _streams(chat_life, Values(seed, "chats"), streams, mean_events)


def task_events(streams: int, *, seed: int = 0, mean_events: int = 9) -> Iterator[dict[str, Any]]:
    """The events of that many legacy tasks; arguments as for `chat_events`."""
    return _streams(task_life, Values(seed, "tasks"), streams, mean_events)


def long_stream(events: int, *, seed: int = 0) -> Iterator[dict[str, Any]]:
    """One chat stream of exactly that many events, whose state stays small however long it is."""
    _at_least("events", events, 1)
    values = Values(seed, "long")
    return long_chat_life(values, values.uuid(), events)


def _streams(life: _Life, values: Values, streams: int, mean_events: int) -> Iterator[dict[str, Any]]:
    _at_least("streams", streams, 0)
    _at_least("mean_events", mean_events, 1)
    return (
        event
        for index in range(streams)
        for event in life(values, values.ascending_uuid(index, streams), _length(values, mean_events))
    )


def _length(values: Values, mean: int) -> int:
    # The square of a uniform draw has the mean 1/3: many short streams, a few long ones.
    return 1 + int((3 * mean - 1) * values.random() ** 2)


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} is {value}, but sample data needs at least {least}: pass a larger number.")
