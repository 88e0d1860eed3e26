"""How near full rebuilds come to what the machine can do, by strategy and number of workers. `make bench-more`.

The limit of a rebuild is draining the sorted events raw and writing the same documents raw, indexes there. That of a
shadow with its gate and its copy is draining the events twice and the live documents once, writing, copying on the
server and building the indexes. Each figure is the best of some rounds, taken in turn.
"""

import argparse
from typing import Any
from unittest.mock import patch

from readmodel_pipelines.cutover.definition import index_like
from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.rebuild import RebuildRequest, finish_shadow, rebuild
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.benchmarks.measuring import Best, bench_server
from readmodel_pipelines_tests.benchmarks.reconcile import ORDER, PROJECTIONS, drain, empty, fill, projected, write_raw
from readmodel_pipelines_tests.support.built import fence
from readmodel_pipelines_tests.support.scene import Mongo


def main() -> None:
    """Run the benchmarks that are asked for and print each figure as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chats", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    with bench_server() as settings:
        speed(settings, arguments.chats, arguments.rounds)


def speed(settings: Settings, chats: int, rounds: int) -> None:
    """Both strategies with one worker and with two, beside the limits."""
    best = Best()
    timed = best.timed
    with open_database(settings) as database:
        fill(database, settings, chat_events(chats))
        documents = projected(database, settings)
        events = database.events.estimated_document_count()

        def run(strategy: Any, workers: int, *, copy: bool = True) -> None:
            changed = settings.model_copy(update={"workers": workers, "keep_copy": copy})
            if not rebuild(database, changed, [], RebuildRequest(strategy)).ok:
                raise SystemExit("the rebuild did not succeed")

        def with_workers(workers: int) -> None:
            of = f"{workers} workers"
            timed(f"in place, healthy, {of}", lambda: run("in_place", workers))
            timed(f"shadow, healthy, {of}", lambda: run("shadow", workers))
            empty(database, settings)
            timed(f"in place, empty, {of}", lambda: run("in_place", workers))
            empty(database, settings)
            with patch.object(finish_shadow, "_pass_gate"):
                timed(f"shadow, empty, no gate, no copy, {of}", lambda: run("shadow", workers, copy=False))

        for _ in range(rounds):
            timed("drain events", lambda: drain(database, "events", ORDER))
            timed("drain models", lambda: [drain(database, p.read_model, [(p.key, 1)]) for p in PROJECTIONS])
            timed("copy on server", lambda: [_copy(database, p.read_model) for p in PROJECTIONS])
            timed(
                "build indexes",
                lambda: [
                    index_like(database, p.read_model, fence(database, f"copy_of_{p.read_model}"), p)
                    for p in PROJECTIONS
                ],
            )
            for workers in (1, 2):
                with_workers(workers)
            empty(database, settings)
            timed("write raw", lambda: write_raw(database, documents))
    for name, seconds in best.items():
        print(f"{name:48} {seconds:7.3f} s   {events / seconds:10,.0f} events/s")
    limit = best["drain events"] + best["write raw"]
    healthy = best["drain events"] + best["drain models"]
    whole = limit + best["drain events"] + best["drain models"] + best["copy on server"] + best["build indexes"]
    ratios = (
        ("shadow without gate and copy", "shadow, empty, no gate, no copy", limit, "limit"),
        ("shadow with gate and copy   ", "shadow, healthy", whole, "limit (at most 2.5)"),
        ("in place, healthy           ", "in place, healthy", healthy, "drain (at most 3)"),
    )
    for workers in (1, 2):
        for what, run_of, least, target in ratios:
            print(f"{workers} workers: {what} {best[f'{run_of}, {workers} workers'] / least:.2f} x {target}")
    for what in ("in place, empty", "in place, healthy", "shadow, healthy"):
        ratio = best[f"{what}, 1 workers"] / best[f"{what}, 2 workers"]
        print(f"two workers are {ratio:.2f} times as fast as one: {what}")


def _copy(database: Mongo, name: str) -> None:
    database[f"copy_of_{name}"].drop()
    database[name].aggregate([{"$out": f"copy_of_{name}"}])


if __name__ == "__main__":
    main()
