"""Another writer of the read models, whose changes come just before one of ours."""

from collections.abc import Callable
from typing import Any

from readmodel_pipelines.moments import Moment
from readmodel_pipelines_tests.support.at_a_moment import At


class OtherWriter:
    """Runs another writer's change just before one of our writes reaches the server."""

    def __init__(self, at: At) -> None:
        self._at = at
        self.times = 0

    def before(self, method: str, act: Callable[[list[Any]], object], *, when: Callable[[list[Any]], bool]) -> None:
        """`act` on the changes of every call of `method` (`write`, `swap`) for which `when` says so."""

        def interrupted(changes: list[Any]) -> None:
            if when(changes):
                self.times += 1
                act(changes)

        self._at({"write": Moment.WRITE, "swap": Moment.TRANSACTION}[method], interrupted)

    def once_before(self, method: str, kind: str, act: Callable[[list[Any]], object]) -> None:
        """`act` before the first batch that holds a change of that kind: `insert`, `replace` or `delete`."""
        self.before(method, act, when=lambda changes: not self.times and any(kind_of(item) == kind for item in changes))


def kind_of(change: Any) -> str:
    if change.expected is None:
        return "delete"
    return "insert" if change.actual is None else "replace"
