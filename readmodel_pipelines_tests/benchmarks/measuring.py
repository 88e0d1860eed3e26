"""How the benchmarks measure: a server of their own, the best of some rounds, the peak memory of a process."""

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from pydantic import SecretStr

from readmodel_pipelines.embedded import server as embedded
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.rebuild import RebuildRequest, rebuild
from readmodel_pipelines.settings import Settings

T = TypeVar("T")


@contextmanager
def bench_server() -> Iterator[Settings]:
    """Settings of an embedded server that ends with the block."""
    with tempfile.TemporaryDirectory(prefix="readmodel-bench-") as folder:
        own = Settings(data_dir=Path(folder))
        try:
            uri = embedded.ensure_running(own, die_with_parent=True)
            yield Settings(mongodb_uri=SecretStr(uri), database="bench", reports_dir=Path(folder))
        finally:
            embedded.stop(own)


class Best(dict[str, float]):
    """The seconds of the fastest round of each thing that is timed."""

    def timed(self, name: str, work: Callable[[], T]) -> T:
        started = time.perf_counter()
        made = work()
        self[name] = min(self.get(name, float("inf")), time.perf_counter() - started)
        return made


def best(rounds: int, work: Callable[[], Any]) -> float:
    """The seconds of the fastest round."""
    found = Best()
    for _ in range(rounds):
        found.timed("", work)
    return found[""]


def in_a_process(work: Callable[[Settings], dict[str, Any]], settings: Settings) -> dict[str, Any]:
    """What the benchmark tells that is run alone, so that nothing else counts as its memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        return alone.submit(work, settings).result()


def rebuilt(settings: Settings) -> dict[str, Any]:
    """What a full rebuild as users run it took."""
    with open_database(settings) as database:
        summary = rebuild(database, settings, [], RebuildRequest())
    if not summary.ok:
        raise SystemExit("the rebuild did not succeed")
    return {"events": summary.events, "seconds": summary.seconds, "peak_mib": peak_mib()}


def peak_mib() -> float:
    """Of this process. Not getrusage, whose peak begins with that of the process that started this one."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024
