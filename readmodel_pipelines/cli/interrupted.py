"""Ctrl-C, or a polite kill: what was done until then, and how to go on. It ends with exit code 130."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from readmodel_pipelines.cli.voice import voice

if TYPE_CHECKING:
    from readmodel_pipelines.reconcile.counts import Counts
    from readmodel_pipelines.reconcile.progress import Progress
    from readmodel_pipelines.reconcile.summary import Summary

_COUNTED = ("same", "missing", "different", "unexpected", "orphan", "lagging", "malformed", "undecided")
_WRITTEN = ("inserted", "replaced", "deleted", "failed")


class Interrupted(KeyboardInterrupt):
    """It was met by somebody who knows what was done until then."""

    def __init__(self, message: str, *, hint: str = "", done: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.done = done or {}


def again(*more: str) -> str:
    """The command that was typed, and what to add to it to go on."""
    return shlex.join(["readmodel", *voice.typed, *(item for item in more if item not in voice.typed)])


class Reached:
    """How far a pass over events came; passes on what it is told."""

    def __init__(self, on_progress: Progress) -> None:
        self._on_progress = on_progress
        self.events = self.of_about = 0
        self.read_models: Mapping[str, Counts] = {}

    def __call__(self, done: int, total: int, counts: Mapping[str, Counts]) -> None:
        """Remember it."""
        self.events, self.of_about, self.read_models = done, max(done, total), counts
        self._on_progress(done, total, counts)

    def in_words(self) -> str:
        """How far, and with what outcomes."""
        if not self.events:
            return "Interrupted"
        outcomes = _told(self.read_models, _COUNTED)
        return f"Interrupted after {self.events:,} of about {self.of_about:,} events{outcomes}"

    def as_json(self) -> dict[str, Any]:
        """The same, of plain JSON types."""
        counts = {name: each.as_dict() for name, each in self.read_models.items()}
        return {"events": self.events, "of_about": self.of_about, "read_models": counts}


def interrupted_look(reached: Reached, *, remembers: bool) -> Interrupted:
    """A verification or a dry run was interrupted."""
    kept = " What was found so far is remembered." if remembers and reached.events else ""
    return Interrupted(
        f"{reached.in_words()}. No read model was changed.{kept}",
        hint=f"Again: {again()}",
        done=reached.as_json() if reached.events else None,
    )


def interrupted_rebuild(summary: Summary | None) -> Interrupted:
    """A rebuild was interrupted; of a full one its summary so far."""
    if summary is None:
        return Interrupted(
            "Interrupted. The document is as it was, or what its events say.", hint=f"Make sure with: {again()}"
        )
    if summary.rebuild.rebuild is None:
        return Interrupted("Interrupted before the rebuild began: nothing was written.", hint=f"Begin with: {again()}")
    about = f"Rebuild {summary.rebuild.rebuild} ({summary.rebuild.strategy}) is not done"
    counts = _told(summary.read_models, (*_COUNTED, *_WRITTEN))
    return Interrupted(
        f"Interrupted. {about}; so far {summary.events:,} events were read{counts}.",
        hint=f"Go on with: {again('--resume')}",
        done=summary.as_json(),
    )


def _told(read_models: Mapping[str, Counts], names: tuple[str, ...]) -> str:
    told = []
    for read_model, counts in read_models.items():
        numbers = [f"{number:,} {name}" for name, number in counts.as_dict().items() if name in names and number]
        told.append(f"; {read_model}: {', '.join([f'{counts.checked:,} compared', *numbers])}")
    return "".join(told)
