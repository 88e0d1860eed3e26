"""The exporter: asks MongoDB at each scrape, and says what it learned as metrics, over HTTP or as text.

MongoDB may be away, slow or locked: the scrape is answered all the same, in time, with `readmodel_up 0`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from typing import Self

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import GaugeMetricFamily
from pydantic import SecretStr
from pymongo.database import Database
from pymongo.errors import PyMongoError

from readmodel_pipelines.errors import MongoUnavailable, UsageError
from readmodel_pipelines.metrics.catalogue import METRICS
from readmodel_pipelines.metrics.facts import Facts
from readmodel_pipelines.metrics.families import families
from readmodel_pipelines.metrics.gather import gather
from readmodel_pipelines.mongo.connection import errors_in_words, open_database
from readmodel_pipelines.mongo.scan import Document
from readmodel_pipelines.projector import choose_projections
from readmodel_pipelines.settings import Settings

Note = Callable[[str], object]


class Exporter:
    """A collector for prometheus_client; several scrapes may come at once.

    A scrape waits for MongoDB for `seconds` at most. `note` is told when MongoDB goes away or keeps something back, and
    when that is over.

    Raises:
        UsageError: the settings name read models that cannot be loaded.
    """

    def __init__(self, settings: Settings, seconds: float, note: Note) -> None:
        self._settings = settings
        self._seconds = seconds
        self._note = note
        self._projections = choose_projections(settings, ())
        self._version = version("readmodel-pipelines")
        self._opening = threading.Lock()
        self._stack = ExitStack()
        self._database: Database[Document] | None = None
        self._told = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Every metric, without asking MongoDB."""
        return (item.family() for item in METRICS)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One scrape."""
        started = time.perf_counter()
        facts = self._look()
        return families(facts, time.perf_counter() - started, self._version)

    def check(self) -> None:
        """Look once, for the notes; a connection string that nobody can read is met here.

        Raises:
            UsageError: it is that.
        """
        self._look()

    def _look(self) -> Facts | None:
        try:
            # The driver mends a lost connection by itself: the client is opened once, and closed at the end.
            with errors_in_words(self._settings):
                facts = gather(self._opened(), self._settings, self._projections, self._seconds)
        except MongoUnavailable as error:
            self._tell(f"{error.message} Until that is over the metrics say readmodel_up 0. {error.hint}")
            return None
        except PyMongoError as error:
            self._tell(f"MongoDB at {self._settings.shown_uri()}: {error}")
            return None
        self._tell(" ".join(f"{part} cannot be read: {why}" for part, why in facts.parts.items() if why))
        return facts

    def _opened(self) -> Database[Document]:
        with self._opening:
            if self._database is None:
                self._database = self._stack.enter_context(open_database(_without_starting(self._settings)))
            return self._database

    def _tell(self, trouble: str) -> None:
        """Say it once, not at each scrape."""
        if bool(trouble) != bool(self._told):
            self._note(trouble or "Everything can be read again.")
        self._told = trouble
