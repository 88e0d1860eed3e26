"""Another writer of the read models, whose changes come just before one of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from readmodel_pipelines.mongo.read_model import ReadModelCollection


class OtherWriter:
    """Runs another writer's change just before one of our writes reaches the server."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.times = 0

    def before(self, method: str, act: Callable[[list[Any]], object], *, when: Callable[[list[Any]], bool]) -> None:
        """`act` on the changes of every call of `method` (`write`, `swap`) for which `when` says so."""
        original = getattr(ReadModelCollection, method)

        def interrupted(model: ReadModelCollection, changes: Any) -> Any:
            if when(changes):
                self.times += 1
                act(changes)
            return original(model, changes)

        self._patch.setattr(ReadModelCollection, method, interrupted)

    def once_before(self, method: str, kind: str, act: Callable[[list[Any]], object]) -> None:
        """`act` before the first batch that holds a change of that kind: `insert`, `replace` or `delete`."""
        self.before(method, act, when=lambda changes: not self.times and any(kind_of(item) == kind for item in changes))


def kind_of(change: Any) -> str:
    if change.expected is None:
        return "delete"
    return "insert" if change.actual is None else "replace"
