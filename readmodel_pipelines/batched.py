"""Batches of an iterable. Imports nothing of this project."""

from collections.abc import Generator, Iterable
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Generator[list[T], None, None]:
    """Lists of `size` items, and of the rest at the end; Python has it from 3.12 on."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
