"""A check: what was looked at, how it is, in a sentence, and what to do. A diagnosis is all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

_PROBLEMS = 1


class Health(StrEnum):
    """How it is."""

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

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        told = {"name": self.name, "state": self.state.value, "found": self.found, "hint": self.hint}
        return told | ({"details": list(self.details)} if self.details else {})


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting in force, as it may be shown, and where it is from: the environment or its default."""

    variable: str
    value: str
    from_environment: bool

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        source = "environment" if self.from_environment else "default"
        return {"variable": self.variable, "value": self.value, "from": source}


@dataclass(slots=True)
class Diagnosis:
    """The checks in order, the names of those that nobody could make, and the settings in force."""

    settings: Sequence[Setting]
    checks: list[Check] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    no_mongodb: int = 0
    """The exit code of a command that finds no MongoDB to work on; 0 when there is one."""

    @property
    def exit_code(self) -> int:
        """As that of every command: 0 all well, 1 problems, else why there is no MongoDB."""
        return self.no_mongodb or (_PROBLEMS if self.number(Health.PROBLEM) else 0)

    @property
    def state(self) -> Health:
        """The worst there is."""
        return worst(*(check.state for check in self.checks))

    def number(self, state: Health) -> int:
        """How many checks are so."""
        return sum(check.state is state for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "state": self.state.value,
            "checks": [check.as_json() for check in self.checks],
            "not_checked": self.not_checked,
            "settings": [setting.as_json() for setting in self.settings],
        }


def worst(*states: Health) -> Health:
    """The worst of some states."""
    order = (Health.OK, Health.WARNING, Health.PROBLEM)
    return max(states, key=order.index, default=Health.OK)
