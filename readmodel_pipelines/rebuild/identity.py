"""What makes a rebuild the one that it is: its slices, and what must not change for it to be resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.mongo.names import collection_of
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.rebuild_state import Strategy
from readmodel_pipelines.settings import Settings


@dataclass(frozen=True, slots=True)
class Slice:
    """Slice `number`, from 1, of `of`: a part of a rebuild that several machines share."""

    number: int
    of: int

    def __post_init__(self) -> None:
        """Refuses one that is none."""
        if not 1 <= self.number <= self.of:
            raise UsageError(f"{self.number}/{self.of} is no slice.", hint="Slices count from 1.")

    @classmethod
    def parse(cls, text: str) -> Slice:
        """From the form `3/16`.

        Raises:
            UsageError: it is none.
        """
        number, _, of = text.partition("/")
        if not (number.strip().isdecimal() and of.strip().isdecimal()):
            raise UsageError(f"{text!r} is no slice.", hint="Give it as K/N with K from 1 to N, for example 3/16.")
        return cls(int(number), int(of))


def identity_of(
    settings: Settings, projections: Sequence[Projection], strategy: Strategy, slices: int
) -> dict[str, Any]:
    """What must be the same for a rebuild to be resumed."""
    return {
        "strategy": strategy,
        "schema_versions": {item.read_model: item.schema_version for item in projections},
        "collections": [settings.events_collection, *(collection_of(settings, item) for item in projections)],
        "task_source": settings.task_source,
        "allow_malformed": sorted(settings.allow_malformed),
        "slices": slices,
    }


def why_anew(before: Mapping[str, Any], identity: Mapping[str, Any], age_seconds: float, valid_days: float) -> str:
    """Why a rebuild that was interrupted cannot be resumed; empty when it can."""
    if age_seconds > valid_days * 86_400:
        return f"it is {age_seconds / 86_400:.1f} days old, and valid for {valid_days:g} (READMODEL_REBUILD_VALID_DAYS)"
    changed = [
        f"{name.replace('_', ' ')} was {_shown(before.get(name))} and is {_shown(value)}"
        for name, value in identity.items()
        if before.get(name) != value
    ]
    return ", ".join(changed)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def code_version() -> str:
    """The version of this package, for the record."""
    try:
        return version("readmodel-pipelines")
    except PackageNotFoundError:
        return "not installed"
