"""Batches of whatever comes one by one. Imports nothing of this project."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """So many at a time, the last time what is left; Python has it from 3.12 on."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
