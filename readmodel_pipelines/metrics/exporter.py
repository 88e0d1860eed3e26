"""The exporter: reads MongoDB at each scrape, and returns metrics over HTTP or as text.

If MongoDB is away, slow or locked, the scrape is answered in time with `readmodel_up 0`.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import GaugeMetricFamily
from pydantic import SecretStr

from readmodel_pipelines.embedded import server as embedded
from readmodel_pipelines.errors import MongoUnavailable, UsageError
from readmodel_pipelines.metrics.catalogue import METRICS
from readmodel_pipelines.metrics.scrape import Scrape, families, of_scrape
from readmodel_pipelines.mongo.connection import errors_in_words, open_database
from readmodel_pipelines.mongo.driver import Database, PyMongoError
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.projections.registry import choose_projections
from readmodel_pipelines.rebuild.request import code_version
from readmodel_pipelines.settings import Settings


class Exporter(ExitStack):
    """A collector for prometheus_client, in its `registry`; several scrapes may run at once.

    A scrape waits for MongoDB for at most `seconds`. `note` is called when MongoDB becomes unavailable or refuses a
    part, and when that is over.

    Raises:
        UsageError: the settings name read models that cannot be loaded.
    """

    def __init__(self, settings: Settings, seconds: float, note: Callable[[str], object]) -> None:
        super().__init__()
        self._settings = settings
        self._seconds = seconds
        self._note = note
        self._projections = choose_projections(settings, ())
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self._opening = threading.Lock()
        self._database: Database | None = None
        self._troubled = False

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Every metric, without reading MongoDB."""
        return (item.family() for item in METRICS.values())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One scrape."""
        started = time.perf_counter()
        scrape = self.look()
        seconds = time.perf_counter() - started
        samples = of_scrape(seconds, code_version(), None if scrape is None else scrape.parts, self._settings)
        return families(chain(samples, scrape.samples if scrape else ()))

    def look(self) -> Scrape | None:
        """Read MongoDB; None if it does not answer or refuses access.

        Raises:
            UsageError: the connection string is invalid.
        """
        try:
            # The driver restores a lost connection, so it is opened once and closed at the end.
            with errors_in_words(self._settings):
                with self._opening:
                    if self._database is None:
                        self._database = self.enter_context(
                            open_database(_without_starting(self._settings), waits=False)
                        )
                scrape = Scrape(Store(self._database, self._settings, self._projections), self._seconds)
        except MongoUnavailable as error:
            self._tell(f"{error.message} The metrics show readmodel_up 0 until then. {error.hint}".strip())
            return None
        except PyMongoError as error:
            self._tell(f"MongoDB at {self._settings.shown_uri()}: {error}")
            return None
        self._tell(" ".join(f"{part} cannot be read: {why}." for part, why in scrape.parts.items() if why))
        return scrape

    def _tell(self, trouble: str) -> None:
        """Once per change, not at each scrape."""
        if trouble and not self._troubled:
            self._note(trouble)
        elif self._troubled and not trouble:
            self._note("MongoDB answers everything again.")
        self._troubled = bool(trouble)


def text(exporter: Exporter) -> str:
    """One scrape, in Prometheus' text format."""
    return generate_latest(exporter.registry).decode()


@contextmanager
def serving(exporter: Exporter, host: str, port: int) -> Iterator[int]:
    """Answer scrapes in the background during the block; yields the port, a free one for 0.

    Raises:
        UsageError: the address or port cannot be used.
    """
    try:
        server, thread = start_http_server(port, host, exporter.registry)
    except OSError as error:
        raise UsageError(
            f"Metrics cannot be served at {host}:{port}: {error.strerror or error}.",
            hint="Give another --port or --host, or end the process that uses it.",
        ) from None
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _without_starting(settings: Settings) -> Settings:
    """The settings with the address of the embedded server if it is used; it is never started for a scrape."""
    if settings.mongodb_uri is not None:
        return settings
    server = embedded.status(settings)
    if not server.running:
        raise MongoUnavailable(
            "The embedded server does not run.",
            hint="`readmodel server start` starts it. Or set READMODEL_MONGODB_URI to another server.",
        )
    return settings.model_copy(update={"mongodb_uri": SecretStr(server.uri)})
