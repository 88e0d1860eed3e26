"""The gate: a shadow is verified, like any read model, before it takes the place of the live collection."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from readmodel_pipelines.batched import batched
from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.lanes import Contested, OpenedPass, counts_of
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.projections.registry import names
from readmodel_pipelines.rebuild.catch_up import CatchUp
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict
from readmodel_pipelines.reconcile.ranges import IdRange
from readmodel_pipelines.spread import Look, Suspects, looker
from readmodel_pipelines.workers.pool import work_off

_LOOKS = 5
_MOST = 20_000
_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Gate:
    """What a look at shadows needs. `meanwhile` is entered while other processes look, for that takes long."""

    store: Store
    shadows: Collection[str]
    contested: Contested
    ranges: Sequence[IdRange]
    workers: int
    catch_up: CatchUp
    meanwhile: Callable[[], AbstractContextManager[object]]

    def what_is_wrong(self) -> list[tuple[str, Verdict]]:
        """(read model, verdict) of what is wrong in the shadows, and still is once they have caught up."""
        for _ in range(_LOOKS):
            suspects, all_of_them = self._suspects()
            wrong = list(self._still_wrong(suspects))
            if wrong or all_of_them:
                return wrong
        return [(item.read_model, Verdict(None, Outcome.DIFFERENT)) for item in self.store.projections]

    def _suspects(self) -> tuple[dict[str, list[str]], bool]:
        """Aggregates by read model, and whether these are all: there may be more than are worth holding."""
        suspects: dict[str, list[str]] = {item.read_model: [] for item in self.store.projections}
        malformed: dict[str, list[str]] = {item.read_model: [] for item in self.store.projections}
        all_of_them = True

        def told(message: Any) -> None:
            nonlocal all_of_them
            if not isinstance(message, Suspects):
                return
            for verdict in message.verdicts:
                kind = malformed if verdict.outcome is Outcome.MALFORMED else suspects
                if len(kind[message.read_model]) < _MOST:
                    kind[message.read_model].append(verdict.aggregate_id)
                else:
                    all_of_them = False

        look = Look(self.store.settings, names(self.store.projections), self.shadows, self.contested)
        with self.meanwhile():
            for _ in work_off(looker, look, self.ranges, self.workers, told, self.store.database):
                pass
        for item in self.store.projections:
            for ids in batched(filter(is_plain, malformed[item.read_model]), _BATCH):
                # Nobody can say what they ought to be, but that they stay as they are.
                self.catch_up.carry(item, self.shadows, ids)
        return suspects, all_of_them

    def _still_wrong(self, suspects: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Verdict]]:
        counts = counts_of(self.store.projections)
        opened = OpenedPass(self.store, counts, self.contested, shadows=self.shadows)
        versions = {
            name: {
                key: version for ids in batched(of, _BATCH) for key, version in opened.events.last_versions(ids).items()
            }
            for name, of in suspects.items()
        }
        # Events that came while we looked are in the shadow after this.
        self.catch_up.once(self.shadows)
        for lane in opened.lanes:
            name, again = lane.projection.read_model, opened.again(lane)
            for ids in batched(suspects[name], _BATCH):
                wrong = [item for item in again.verdicts(ids) if item.outcome is not Outcome.MALFORMED]
                # A stream that never stands still has grown again: its document is right up to where it caught up.
                since = {item.aggregate_id: versions[name].get(item.aggregate_id, 1) for item in wrong}
                caught_up = again.behind(since)
                yield from ((name, item) for item in wrong if item.aggregate_id not in caught_up)
