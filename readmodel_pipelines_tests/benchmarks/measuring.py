"""How the benchmarks measure: a server of their own, the best of some rounds, the peak memory of a process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import SecretStr

from readmodel_pipelines.embedded import server as embedded
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


def in_a_process(module: str, flag: str, *argument: object) -> dict[str, Any]:
    """What the benchmark tells that is run alone, so that nothing else counts as its memory."""
    run = [sys.executable, "-m", module, flag, "|".join(map(str, argument))]
    told: dict[str, Any] = json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
    return told


def peak_mib() -> float:
    """Of this process. Not getrusage, whose peak begins with that of the process that started this one."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024
