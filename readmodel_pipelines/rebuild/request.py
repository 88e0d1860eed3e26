"""The request for a rebuild, and the parts of it that must stay the same for a resume."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.rebuild_state import Strategy
from readmodel_pipelines.reconcile.summary import DEFAULT_MAX_FINDINGS
from readmodel_pipelines.settings import MOST_SLICES
from readmodel_pipelines.wording import cut

_LONGEST = 100
_SLICE = re.compile(r"\s*([0-9]{1,6})\s*/\s*([0-9]{1,6})\s*")
_FORM = f"Give it as K/N with K from 1 to N, and N at most {MOST_SLICES:,}, for example 3/16."


@dataclass(frozen=True, slots=True)
class Slice:
    """Slice `number`, from 1, of `of`: a part of a rebuild that several machines share."""

    number: int
    of: int

    def __post_init__(self) -> None:
        """Raise UsageError if the numbers are no slice."""
        if not 1 <= self.number <= self.of <= MOST_SLICES:
            raise UsageError(f"{self.number}/{self.of} is no slice.", hint=_FORM)

    @classmethod
    def parse(cls, text: str) -> Slice:
        """Parse the form `3/16`.

        Raises:
            UsageError: the text is no slice.
        """
        match = _SLICE.fullmatch(text)
        if match is None:
            raise UsageError(f"{cut(text, _LONGEST)!r} is no slice.", hint=_FORM)
        return cls(*map(int, match.groups()))


@dataclass(frozen=True, slots=True)
class RebuildRequest:
    """The read models and options of a rebuild.

    With `resume` an unfinished rebuild continues if its definition is unchanged; otherwise it is dropped with a
    warning. A `slice` does its part; the last one finishes the rebuild. `campaign` names the backfill of the slices, so
    that a late one begins no other rebuild. With `off_peak` it stops at the end of the window in the settings. With
    `allow_no_events` it begins without any event, so that every document is an orphan.
    """

    strategy: Strategy = "in_place"
    resume: bool = False
    allow_deletions: bool = False
    off_peak: bool = False
    slice: Slice | None = None
    campaign: str = ""
    allow_no_events: bool = False
    max_findings: int = DEFAULT_MAX_FINDINGS

    @property
    def slices(self) -> int:
        """The number of slices; 1 for a rebuild without slices."""
        return self.slice.of if self.slice else 1


def identity_of(store: Store, request: RebuildRequest) -> dict[str, Any]:
    """The values that must be unchanged for a resume."""
    return {
        "strategy": request.strategy,
        "schema_versions": {item.read_model: item.schema_version for item in store.projections},
        "collections": [store.events.name, *(store.live(item).name for item in store.projections)],
        "task_source": store.settings.task_source,
        "allow_malformed": sorted(store.settings.allow_malformed),
        "slices": request.slices,
    }


def why_not_resumable(
    before: Mapping[str, Any], identity: Mapping[str, Any], age_seconds: float, valid_days: float
) -> str:
    """The reason why an interrupted rebuild cannot be resumed; empty if it can."""
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
