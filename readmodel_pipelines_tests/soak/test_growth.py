"""Ten times the events take ten times as long and no more memory, on a server whose cache does not hold them.

READMODEL_GROWTH_EVENTS has other sizes than 10^5 and 10^6 (`100000,10000000` for 10^7), and
READMODEL_GROWTH_CACHE_GB another cache than 0.25 GB.
"""

import os

from readmodel_pipelines_tests.benchmarks.growth import VERBS, Grown, exponents, measured
from readmodel_pipelines_tests.benchmarks.measuring import bench_server

SIZES = [int(size) for size in os.environ.get("READMODEL_GROWTH_EVENTS", "100000,1000000").split(",")]
CACHE_GB = float(os.environ.get("READMODEL_GROWTH_CACHE_GB", "0.25"))
ROOM_MIB = 64


def test_a_larger_store_takes_as_much_longer_as_it_is_larger_and_no_more_memory() -> None:
    grown: Grown = {}
    with bench_server() as settings:
        for events, verb, figures in measured(settings, SIZES, CACHE_GB):
            grown.setdefault(events, {})[verb] = figures
            print(f"{events:,} events, {verb}: {figures}", flush=True)
    few, many = min(grown), max(grown)
    for verb in VERBS:
        _, of_processors = exponents(grown, verb)
        print(f"{verb}: {exponents(grown, verb)}")
        assert of_processors < 1.15
        # A large store has worker processes, each with what Python takes.
        assert grown[many][verb].peak_mib < 3 * grown[few][verb].peak_mib + ROOM_MIB
