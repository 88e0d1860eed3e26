"""Aggregates that got events, and documents whose foreign fields changed, while a rebuild goes on.

They are followed from before the rebuild's first read, consumed as it goes, and kept on the server, so that neither
memory nor the server's history limits how long it may take. The token is written after what it stands for, so that a
crash repeats and never skips.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence

from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRecord
from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.bookkeeping.touched import EVENTS, Touched
from readmodel_pipelines.cutover.foreign import ForeignFollower
from readmodel_pipelines.mongo.changes import Follower, HistoryLost
from readmodel_pipelines.mongo.driver import Database, PyMongoError
from readmodel_pipelines.mongo.names import collection_of
from readmodel_pipelines.mongo.scan import Document
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.settings import Settings

_EVERY_SECONDS = 0.5


class Following:
    """Follows events, and with `live` foreign fields too, for a rebuild: in the background, and on demand.

    Without history `lost` says why, and what was done so far has to be done again.
    """

    def __init__(
        self,
        database: Database[Document],
        settings: Settings,
        rebuild: RebuildRecord,
        projections: Sequence[Projection],
        touched: Touched,
    ) -> None:
        self._rebuild = rebuild
        self._rebuilds = Rebuilds(database)
        self._touched = touched
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._follow, name="following events", daemon=True)
        self.lost = ""
        self._failed: Exception | None = None
        self._events: Follower | None = None
        self.foreign: dict[str, ForeignFollower] = {}
        stored_as = [spelling for item in projections for spelling in item.fold.stored_as]
        try:
            if rebuild.token:
                self._events = Follower(database[settings.events_collection], stored_as, rebuild.token)
            for item in projections:
                if token := rebuild.live_tokens.get(item.read_model):
                    live = database[collection_of(settings, item)]
                    self.foreign[item.read_model] = ForeignFollower(live, item, token)
        except HistoryLost as error:
            self.lost = str(error)

    def start(self) -> None:
        """Follow in the background until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """No more in the background."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def close(self) -> None:
        """Let go of everything."""
        self.stop()
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
        if self._events is not None:
            for ids in self._events.drain():
                self._touched.add(EVENTS, ids)
            self._rebuilds.note(self._rebuild, token=self._events.token)
        for read_model in foreign:
            follower = self.foreign[read_model]
            for ids in follower.drain():
                self._touched.add(read_model, ids)
            self._rebuilds.note(self._rebuild, **{f"live_tokens.{read_model}": follower.token})

    def _follow(self) -> None:
        while not self._stop.wait(_EVERY_SECONDS) and not self.lost:
            try:
                self.drain(self.foreign)
            except PyMongoError:
                # The next look, at the latest that of the end, says what is wrong.
                continue
            except Exception as error:  # noqa: BLE001 - the next look raises it
                self._failed = error
                return
