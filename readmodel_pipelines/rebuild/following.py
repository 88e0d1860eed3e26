"""Aggregates that got events, and documents whose foreign fields changed, while a rebuild goes on.

They are followed from before the rebuild's first read, consumed as it goes, and kept on the server, so that neither
memory nor the server's history limits how long it may take. The token is written after what it stands for, so that a
crash repeats and never skips.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from readmodel_pipelines.bookkeeping.kept_keys import EVENTS, Touched
from readmodel_pipelines.bookkeeping.rebuilds import RebuildRecord, Rebuilds
from readmodel_pipelines.cutover.foreign import ForeignFollower
from readmodel_pipelines.mongo.changes import Follower, HistoryLost
from readmodel_pipelines.mongo.driver import PyMongoError
from readmodel_pipelines.mongo.store import Store

_EVERY_SECONDS = 0.5
_NOTE_SECONDS = 1.0


class Following:
    """Follows events, and with `live` foreign fields too, for a rebuild: in the background, and on demand.

    Without history `lost` says why, and what was done so far has to be done again; where the server keeps none, that
    is so from the beginning, but after a second pass. `touched` is what was noticed.
    """

    def __init__(self, store: Store, rebuild: RebuildRecord) -> None:
        self._rebuild = rebuild
        self._rebuilds = Rebuilds(store.database)
        self.touched = Touched(store.database, rebuild.owner())
        self._lock = threading.Lock()
        self.lost = rebuild.no_history if rebuild.first_pass else ""
        self._failed: Exception | None = None
        self._events: Follower | None = None
        self._noted_at = time.monotonic()
        self.foreign: dict[str, ForeignFollower] = {}
        stored_as = [spelling for item in store.projections for spelling in item.fold.stored_as]
        try:
            if rebuild.token:
                self._events = Follower(store.events, stored_as, rebuild.token)
            for item in store.projections:
                if token := rebuild.live_tokens.get(item.read_model):
                    self.foreign[item.read_model] = ForeignFollower(store.live(item), item, token)
        except HistoryLost as error:
            self.lost = str(error)

    @contextmanager
    def in_background(self) -> Iterator[threading.Thread]:
        """Follow while something takes long, so that the server's history cannot run away."""
        stop = threading.Event()
        thread = threading.Thread(target=self._follow, args=[stop], name="following events", daemon=True)
        thread.start()
        try:
            yield thread
        finally:
            stop.set()
            thread.join()

    def close(self) -> None:
        """Let go of everything."""
        for follower in (self._events, *self.foreign.values()):
            if follower is not None:
                follower.close()

    def drain(self, foreign: Collection[str]) -> None:
        """Remember everything that was touched up to now: aggregates, and foreign fields of these read models.

        Those of one that is swapped already are left in the stream, which alone still tells what was written. Raises
        what went wrong in the background.
        """
        with self._lock:
            if self._failed is not None:
                raise self._failed
            try:
                self._drain(foreign)
            except HistoryLost as error:
                self.lost = str(error)

    def _drain(self, foreign: Collection[str]) -> None:
        if self.lost:
            return
        followed: dict[str, Follower | ForeignFollower] = {EVENTS: self._events} if self._events else {}
        followed |= {name: self.foreign[name] for name in foreign}
        tokens = {}
        for kind, follower in followed.items():
            for ids in follower.drain():
                self.touched.add(kind, ids)
                self._noted_at = 0.0 if ids else self._noted_at
            tokens["token" if kind == EVENTS else f"live_tokens.{kind}"] = follower.token
        # Where nothing happened the history is read twice, should we be killed.
        if tokens and time.monotonic() - self._noted_at >= _NOTE_SECONDS:
            self._rebuilds.note(self._rebuild, **tokens)
            self._noted_at = time.monotonic()

    def _follow(self, stop: threading.Event) -> None:
        while not stop.wait(_EVERY_SECONDS) and not self.lost:
            try:
                self.drain(self.foreign)
            except PyMongoError:
                # The next look, at the latest that of the end, says what is wrong.
                continue
            except Exception as error:  # noqa: BLE001 - the next look raises it
                self._failed = error
                return
