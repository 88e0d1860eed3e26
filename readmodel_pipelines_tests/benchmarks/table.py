"""One table: each verb in each state of a store, beside what the machine can do at best. `make bench`.

The limit of a rebuild is draining the events in order, raw, and writing the same documents with their indexes, raw;
that of a verification is draining. Each figure is that of the fastest of some rounds, each run in a process of its own.
With `--base` another commit's engine takes turns with this one on the same store, and the last columns say how they
differ: time of the processor is what to go by where others use the machine.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.names import FINDINGS
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.benchmarks import case
from readmodel_pipelines_tests.benchmarks.measuring import Best, bench_server
from readmodel_pipelines_tests.benchmarks.processes import Peak, cpu_seconds
from readmodel_pipelines_tests.benchmarks.reconcile import (
    ORDER,
    PROJECTIONS,
    appended,
    drain,
    empty,
    fill,
    projected,
    write_raw,
)
from readmodel_pipelines_tests.support.scene import Mongo

_HOME = Path(__file__).parents[2]
_SMALL_CACHE_SHARE = 3
_SMALLEST_CACHE = 8 * 1024 * 1024


def _as_it_is(_: Mongo, __: Settings) -> None:
    """The read models are right already."""


def _all_wrong(database: Mongo, _: Settings) -> None:
    _break(database, {})


def _tenth_wrong(database: Mongo, _: Settings) -> None:
    ids = [chat["chat_id"] for chat in database.chats_read_model.find({}, {"chat_id": 1}, sort=[("chat_id", 1)])]
    _break(database, {"chat_id": {"$in": ids[::10]}})


def _break(database: Mongo, where: dict[str, Any]) -> None:
    for item in PROJECTIONS:
        database[item.read_model].update_many(where, {"$set": {"created_by": "nobody"}})


@dataclass(frozen=True, slots=True)
class Case:
    """A verb, the state that it meets, what it is set beside, and how many times that it may take.

    `order` is READMODEL_READ_ORDER: what would be chosen goes by the size of the store.
    """

    verb: str
    beside: str
    goal: float
    met: Callable[[Mongo, Settings], None] = _as_it_is
    small_cache: bool = False
    order: str = "index"


CASES = {
    "rebuild into empty": Case("rebuild", "drain + write", 1.2, empty),
    "verify, healthy": Case("verify", "drain", 1.0),
    "rebuild, healthy": Case("rebuild", "drain", 1.0),
    "rebuild, 100 % wrong": Case("rebuild", "drain + write", 2.0, _all_wrong),
    "rebuild, 10 % wrong": Case("rebuild", "rebuild, healthy", 1.3, _tenth_wrong),
    "verify, 100 % wrong": Case("verify", "verify, healthy", 2.0, _all_wrong),
    "shadow": Case("shadow", "drain + write", 1.8),
    "versions": Case("versions", "verify, healthy", 0.2),
    "verify, small cache": Case("verify", "verify, healthy", 2.0, small_cache=True),
    "verify, small cache, scan": Case("verify", "verify, healthy", 2.0, small_cache=True, order="scan"),
    "versions, small cache": Case("versions", "versions", 2.0, small_cache=True),
}


@dataclass(slots=True)
class Figures:
    """What one run took; of several the fastest counts, for processors and memory by themselves."""

    seconds: float
    client_cpu: float
    server_cpu: float
    peak_mib: float
    round_trips: int

    def best(self, other: "Figures | None") -> "Figures":
        """The lesser of each."""
        if other is None:
            return self
        return Figures(*(min(pair) for pair in zip(asdict(self).values(), asdict(other).values(), strict=True)))

    @property
    def cpu(self) -> float:
        """Of both sides."""
        return self.client_cpu + self.server_cpu


class Bench:
    """A store, and the engines that are measured on it by turns: this one, and the other one if there is one."""

    def __init__(self, database: Mongo, settings: Settings, engines: dict[str, Path], events: int) -> None:
        self._database = database
        self._settings = settings
        self._engines = engines
        self._events = events
        self._server = database.client.admin.command("serverStatus")
        self.found: dict[str, dict[str, Figures]] = {name: {} for name in engines}
        self.limits = Best()
        self.set_cache(self._large_cache)

    @cached_property
    def _large_cache(self) -> int:
        """Twice what the events take, so that all of them stay in it."""
        usual: int = self._server["wiredTiger"]["cache"]["maximum bytes configured"]
        return max(usual, 2 * int(self._database.command("collStats", "events")["size"]))

    def round(self, cases: Iterable[str], documents: dict[Any, list[dict[str, Any]]], number: int) -> None:
        """Each of these cases once, by each engine; whoever is first is second in the next round."""
        database = self._database
        turns = list(self._engines.items())[:: 1 if number % 2 else -1]
        for name in cases:
            one = CASES[name]
            for engine, place in turns:
                _make_right(database, self._settings)
                one.met(database, self._settings)
                with self._small_cache() if one.small_cache else nullcontext():
                    figures = self.measured(one.verb, place, one.order)
                self.found[engine][name] = figures.best(self.found[engine].get(name))
        models = [(item.read_model, [(item.key, 1)]) for item in PROJECTIONS]
        self.limits.timed("drain events", lambda: drain(database, "events", ORDER))
        self.limits.timed("drain models", lambda: [drain(database, *model) for model in models])
        empty(database, self._settings)
        self.limits.timed("write", lambda: write_raw(database, documents))

    @contextmanager
    def _small_cache(self) -> Iterator[None]:
        """A third of what the events take, and of few as little as the server works with."""
        size = self._database.command("collStats", "events")["size"]
        self.set_cache(max(_SMALLEST_CACHE, size // _SMALL_CACHE_SHARE))
        try:
            yield
        finally:
            self.set_cache(self._large_cache)

    def set_cache(self, size: int) -> None:
        self._database.client.admin.command("setParameter", 1, wiredTigerEngineRuntimeConfig=f"cache_size={size}")

    def measured(self, verb: str, engine: Path, order: str) -> Figures:
        """What one run of a verb takes in a process of its own."""
        uri = self._settings.mongodb_uri
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (engine, _HOME))),
            "READMODEL_MONGODB_URI": uri.get_secret_value() if uri else "",
            "READMODEL_DATABASE": self._settings.database,
            "READMODEL_READ_ORDER": order,
            "READMODEL_SPOOL_DIR": str((self._settings.reports_dir or Path()) / "spool"),
        }
        peak, before = Peak(), cpu_seconds(self._server["pid"])
        command = [sys.executable, "-P", "-m", case.__name__, verb]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            with peak.of(process):
                said, _ = process.communicate()
            if process.returncode:
                raise SystemExit(f"{verb} did not end well")
        server_cpu = cpu_seconds(self._server["pid"]) - before
        told = json.loads(said.splitlines()[-1])
        return Figures(told["seconds"], told["client_cpu"], server_cpu, peak.mib, told["round_trips"])

    def beside(self, engine: str, case: Case) -> float:
        """The seconds of what a case is set beside; 0 where that was not measured."""
        draining = self.limits["drain events"]
        if case.beside == "drain + write":
            return draining + self.limits["write"]
        if case.beside == "drain":
            return draining + self.limits["drain models"]
        other = self.found[engine].get(case.beside)
        return other.seconds if other else 0.0

    def as_json(self) -> dict[str, Any]:
        """Everything that was measured."""
        engines = {
            engine: {
                name: {
                    **asdict(figures),
                    "microseconds_an_event": 1e6 * figures.seconds / self._events,
                    "beside": CASES[name].beside,
                    "beside_seconds": self.beside(engine, CASES[name]),
                    "goal": CASES[name].goal,
                }
                for name, figures in found.items()
            }
            for engine, found in self.found.items()
        }
        return {"events": self._events, "limits": self.limits, "engines": engines}

    def lines(self) -> Iterator[str]:
        """The table, a line for each case of each engine."""
        several = len(self._engines) > 1
        yield (
            f"{'case':26}{'engine ' if several else ''}{'seconds':>9}{'limit':>8}{'ratio':>7}{'goal':>6}{'us/event':>9}"
            f"{'trips':>7}{'MiB':>7}{'client':>8}{'server':>8}{'  time   processor' if several else ''}"
        )
        for name in self.found["this"]:
            for engine, found in self.found.items():
                yield self._line(name, engine, found[name], several=several)

    def _line(self, name: str, engine: str, figures: Figures, *, several: bool) -> str:
        one = CASES[name]
        limit = self.beside(engine, one)
        ratio = f"{figures.seconds / limit:7.2f}" if limit else f"{'':7}"
        line = (
            f"{name:26}{f'{engine:7}' if several else ''}{figures.seconds:9.2f}{limit:8.2f}{ratio}{one.goal:6.1f}"
            f"{1e6 * figures.seconds / self._events:9.2f}{figures.round_trips:7}{figures.peak_mib:7.0f}"
            f"{figures.client_cpu:8.2f}{figures.server_cpu:8.2f}"
        )
        if engine != "this" or not several:
            return line
        base = self.found["base"][name]
        return f"{line}{_change(figures.seconds, base.seconds)}{_change(figures.cpu, base.cpu):>11}"


def _change(now: float, before: float) -> str:
    return f" {100 * (now / before - 1):+6.1f} %" if before else ""


def _make_right(database: Mongo, settings: Settings) -> None:
    ReadModelProjector(database, settings).rebuild_all()
    database[FINDINGS].drop()


@contextmanager
def _engines(base: str) -> Iterator[dict[str, Path]]:
    """Where each engine's code lies: this tree, and that of another commit if one is named."""
    if not base:
        yield {"this": _HOME}
        return
    with tempfile.TemporaryDirectory(prefix="readmodel-base-") as folder:
        # The package alone: what measures is this tree's.
        command = ["git", "-C", str(_HOME), "archive", base, "readmodel_pipelines"]
        packed = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        subprocess.run(["tar", "-x", "-C", folder], input=packed.stdout, check=True)
        yield {"base": Path(folder), "this": _HOME}


def _run(settings: Settings, arguments: argparse.Namespace, engines: dict[str, Path]) -> None:
    with open_database(settings) as database:
        fill(database, settings, appended(arguments.chats))
        documents: dict[Any, Any] = projected(database, settings)
        bench = Bench(database, settings, engines, database.events.estimated_document_count())
        for number in range(arguments.rounds):
            bench.round(_cases(arguments.cases), documents, number)
    print("\n".join(bench.lines()))
    print(
        f"{bench.as_json()['events']:,} events, best of {arguments.rounds}; limits: "
        + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in bench.limits.items())
        + ". client and server are seconds of the processor, round trips those of the first process."
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(bench.as_json(), indent=2) + "\n")


def _cases(wanted: Sequence[str]) -> list[str]:
    """Those whose name has one of the words, in the table's order."""
    return [name for name in CASES if not wanted or any(word in name for word in wanted)]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chats", type=int, default=5_000, help="each has 20 events on the average")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--base", default="", help="a commit whose engine is measured beside")
    parser.add_argument("--cases", nargs="*", default=[], help="words; a case whose name has one of them is measured")
    parser.add_argument("--json", type=Path, help="a file for the same figures")
    arguments = parser.parse_args()
    with _engines(arguments.base) as engines, bench_server() as settings:
        _run(settings, arguments, engines)


if __name__ == "__main__":
    main()
