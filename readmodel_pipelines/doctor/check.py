"""A check: its name, state, result and hint. A diagnosis is the list of all checks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Health(StrEnum):
    """The state of a check, from good to bad."""

    OK = "ok"
    WARNING = "warning"
    """Everything works, with something worth knowing."""
    PROBLEM = "problem"
    """Something does not work, or will give wrong results."""


@dataclass(frozen=True, slots=True)
class Check:
    """`found` is the result in one or two sentences, `hint` the fix, and `details` are further lines of the result."""

    name: str
    state: Health
    found: str
    hint: str = ""
    details: tuple[str, ...] = ()


@dataclass(slots=True)
class Diagnosis:
    """The checks in order, the names of those that could not be made, and the settings in force, in JSON form."""

    settings: Sequence[Mapping[str, str]]
    checks: list[Check] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    no_mongodb: int = 0
    """The exit code of a command without MongoDB; 0 if it is reachable."""

    @property
    def exit_code(self) -> int:
        """The exit code of the command: 0 all well, 1 problems, else the reason why MongoDB is missing."""
        return self.no_mongodb or int(self.state is Health.PROBLEM)

    @property
    def state(self) -> Health:
        """The worst state of all checks."""
        return worst(check.state for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types, without empty details."""
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
