"""A check: what was looked at, how it is, in a sentence, and what to do. A diagnosis is all of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Health(StrEnum):
    """How it is, from good to bad."""

    OK = "ok"
    WARNING = "warning"
    """Everything works; somebody ought to know."""
    PROBLEM = "problem"
    """Something does not work, or will give wrong results."""


@dataclass(frozen=True, slots=True)
class Check:
    """`found` is a sentence or two, `hint` says what to do, `details` are lines that belong to what was found."""

    name: str
    state: Health
    found: str
    hint: str = ""
    details: tuple[str, ...] = ()


@dataclass(slots=True)
class Diagnosis:
    """The checks in order, the names of those that nobody could make, and the settings in force, in JSON form."""

    settings: Sequence[Mapping[str, str]]
    checks: list[Check] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    no_mongodb: int = 0
    """The exit code of a command that finds no MongoDB to work on; 0 when there is one."""

    @property
    def exit_code(self) -> int:
        """As that of every command: 0 all well, 1 problems, else why there is no MongoDB."""
        return self.no_mongodb or int(self.state is Health.PROBLEM)

    @property
    def state(self) -> Health:
        """The worst there is."""
        return worst(check.state for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types; a check without details has none."""
        checks = (asdict(check) for check in self.checks)
        return {
            "state": self.state,
            "checks": [{name: value for name, value in told.items() if value != ()} for told in checks],
            "not_checked": self.not_checked,
            "settings": self.settings,
        }


def worst(states: Iterable[Health]) -> Health:
    """The worst of some states."""
    return max(states, key=list(Health).index, default=Health.OK)
