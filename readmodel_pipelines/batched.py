"""Batches of an iterable. Imports nothing of this project."""

from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Generator[list[T], None, None]:
    """Lists of `size` items, and of the rest at the end; Python has it from 3.12 on."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def fitting(items: Iterable[T], size_of: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """Lists whose items together have at most this size; an item that is larger has one of its own."""
    batch: list[T] = []
    size = 0
    for item in items:
        own = size_of(item)
        if batch and size + own > most:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += own
    if batch:
        yield batch
