"""How time and memory grow with the store, on a server whose cache stays as it is. `make bench-more`.

Each verb runs in a process of its own. The exponent of time is 1 where twice the events take twice as long; it is told
of seconds, and of time of the processor, which others on the machine disturb less. The goal is 1.03 from 10^5 to 10^7.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.benchmarks.measuring import bench_server
from readmodel_pipelines_tests.benchmarks.reconcile import appended, empty, fill
from readmodel_pipelines_tests.benchmarks.table import Bench, Figures

_HOME = Path(__file__).parents[2]
VERBS = ("rebuild", "verify", "shadow")
EVENTS_OF_A_CHAT = 20

Grown = dict[int, dict[str, Figures]]
"""The figures of each verb, by the number of events."""


def main() -> None:
    """Measure each size and print each figure as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--cache-gb", type=float, default=0.25, help="what the server may hold")
    parser.add_argument("--order", choices=["auto", "index", "scan"], default="auto", help="READMODEL_READ_ORDER")
    arguments = parser.parse_args()
    with bench_server() as settings:
        grown: Grown = {}
        for events, verb, figures in measured(settings, arguments.events, arguments.cache_gb, arguments.order):
            grown.setdefault(events, {})[verb] = figures
            print(
                f"{events:11,} events  {verb:8} {figures.seconds:8.2f} s  client {figures.client_cpu:8.2f} s  "
                f"server {figures.server_cpu:8.2f} s  peak {figures.peak_mib:5.0f} MiB",
                flush=True,
            )
    for verb in VERBS:
        seconds, cpu = exponents(grown, verb)
        print(f"{verb:8} time grows with the power {seconds:.2f}, time of the processors with {cpu:.2f}")


def measured(
    settings: Settings, sizes: Sequence[int], cache_gb: float, order: str = "auto"
) -> Iterator[tuple[int, str, Figures]]:
    """Each verb on a store of each size: a rebuild into empty read models, a verification, a shadow."""
    for events in sizes:
        scaled = settings.model_copy(update={"database": f"growth_{events}"})
        with open_database(scaled) as database:
            fill(database, scaled, appended(events // EVENTS_OF_A_CHAT))
            empty(database, scaled)
            there = database.events.estimated_document_count()
            bench = Bench(database, scaled, {"this": _HOME}, there)
            bench.set_cache(int(cache_gb * 1024**3))
            for verb in VERBS:
                yield there, verb, bench.measured(verb, _HOME, order)
            database.client.drop_database(database.name)


def exponents(grown: Grown, verb: str) -> tuple[float, float]:
    """Of seconds, and of time of the processors, from the smallest store to the largest."""
    few, many = min(grown), max(grown)
    if few == many:
        return math.nan, math.nan
    small, large = grown[few][verb], grown[many][verb]
    factor = math.log(many / few)
    return math.log(large.seconds / small.seconds) / factor, math.log(large.cpu / small.cpu) / factor


if __name__ == "__main__":
    main()
