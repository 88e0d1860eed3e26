"""Live traffic: an application that saves events and updates its read models, and now and then fails to.

It saves through `EventRepository` as any application would; the faults are injected into its updates. What fails is in
the repair queue, and stays wrong until somebody repairs it.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import groupby, islice
from operator import itemgetter

from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.driver import Database, Document, PyMongoError
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.repair.repository import EventRepository, NewEvent
from readmodel_pipelines.settings import Settings

MARKER = "readmodel_demo"
"""The collection that says which others a demo made, and how many events are its own."""

_FAULTS = 0.25
_SECONDS_BETWEEN = 1.0
# Another than that of the demo's own chats: these begin while everybody watches.
_SEED = 20_231
_CHATS = 100_000
_OPEN_CHATS = 12
_ENVELOPE = {"event_type", "aggregate_id", "aggregate_type", "occurred_at", "version", "metadata"}


class InjectedFault(Exception):
    """What an update fails with here; in production a lost connection or a bug."""


class Traffic:
    """Several chats at once, one event with every `step`. One in four updates fails, some of them half done."""

    def __init__(self, database: Database, settings: Settings, *, seed: int = 0) -> None:
        self.failed = 0
        self._random = random.Random(seed)
        self._marker, self._events = database[MARKER], settings.events_collection
        self._repository = EventRepository(database, settings, project=self._project)
        self._first, self._both = (ReadModelProjector(database, settings, *names) for names in (["chat"], []))
        self._chats = _interleaved(chat_events(_CHATS, seed=_SEED + seed, mean_events=12), _OPEN_CHATS, self._random)

    def step(self) -> None:
        """Save the next event and update its read models, or fail to."""
        event = next(self._chats)
        own = {name: value for name, value in event["data"].items() if name not in _ENVELOPE}
        self._marker.update_one({"_id": self._events}, {"$inc": {"events": 1}})
        new, after = [NewEvent(event["event_type"], own)], event["version"] - 1
        self.failed += not self._repository.save(event["aggregate_id"], "chat", new, expected_version=after).projected

    def _project(self, aggregate_id: str) -> None:
        if self._random.random() >= _FAULTS:
            self._both.rebuild_some([aggregate_id])
        elif self._random.random() < 0.5:
            raise InjectedFault("no read model was updated")
        else:
            self._first.rebuild_some([aggregate_id])
            raise InjectedFault("chats_read_model was updated, tasks_read_model was not")


@contextmanager
def traffic_in_background(settings: Settings) -> Iterator[None]:
    """Traffic of another application while the block runs."""
    stop = threading.Event()

    def go_on() -> None:
        # Until the server ends, which is told by everything else that needs it.
        with suppress(ReadModelError, PyMongoError), open_database(settings) as database:
            traffic = Traffic(database, settings, seed=1)
            while not stop.wait(_SECONDS_BETWEEN):
                traffic.step()

    thread = threading.Thread(target=go_on, name="live traffic", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _interleaved(events: Iterator[Document], streams: int, choice: random.Random) -> Iterator[Document]:
    """Events that come stream by stream, mixed so that several streams grow at once, each in its own order."""
    rest = (list(stream)[::-1] for _, stream in groupby(events, key=itemgetter("aggregate_id")))
    growing: list[list[Document]] = []
    while True:
        growing += islice(rest, streams - len(growing))
        stream = choice.choice(growing)
        # The last event is the first that is still to come.
        yield stream.pop()
        if not stream:
            growing.remove(stream)
