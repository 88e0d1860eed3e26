"""To act at a moment of the work: each time, the first time, at the n-th time; or to die there."""

import itertools
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest

from readmodel_pipelines.moments import Moment, listening

Act = Callable[[], object]
At = Callable[[Moment, Callable[..., object]], None]
"""The fixture `at`: acts at a moment for the rest of the test."""


class Killed(Exception):
    """StoredState for SIGKILL where a process of its own would be too slow."""


def each(act: Act) -> Callable[..., None]:
    """Acts whenever the moment comes, whatever its facts are."""

    def acting(**_: object) -> None:
        act()

    return acting


def nth(number: int, act: Act) -> Callable[..., None]:
    """Acts when the moment comes for the n-th time, and not while it acts."""
    times = itertools.count(1)

    def acting(**_: object) -> None:
        if next(times) == number:
            act()

    return acting


def once(act: Act) -> Callable[..., None]:
    """Acts when the moment comes for the first time."""
    return nth(1, act)


def raises(error: BaseException) -> Act:
    """What goes wrong at the moment."""

    def failing() -> NoReturn:
        raise error

    return failing


@contextmanager
def dying() -> Iterator[None]:
    """What runs in the block is killed, and lets go of its connections as a process does: no traceback holds them."""
    with pytest.raises(Killed) as death:
        yield
    traceback.clear_frames(death.tb)


@contextmanager
def killed_at(moment: Moment, number: int = 1) -> Iterator[None]:
    """What runs in the block dies when the moment comes for the n-th time; it has to come."""
    with listening(moment, nth(number, raises(Killed()))), dying():
        yield
