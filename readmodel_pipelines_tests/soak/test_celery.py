"""`rebuild_slices` over several machines: one dies in the middle, nothing is done twice.

The machines are Celery workers, started as scaling_out.md has it.
"""

import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterRunStatus

from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.mongo.indexes import ensure_indexes
from readmodel_pipelines.mongo.names import shadow_names
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.environment import name_database
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.servers import celery_cluster
from readmodel_pipelines_tests.support.servers.celery_cluster import Cluster

pytestmark = pytest.mark.skipif(bool(celery_cluster.why_not()), reason=celery_cluster.why_not() or "it can run")

CHATS, MEAN_EVENTS = 32_000, 4
SLICES = [f"chat_{number:02d}_of_16" for number in range(1, 17)]
EVENTS_PER_SECOND = 1_500
"""Slow enough for a run to be killed in the middle of a slice, between two of its batches."""
MAX_RUNTIME = 25
"""Seconds after which Dagster takes a run for dead of which nobody can tell."""
FINISHED = (DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)


@pytest.fixture
def cluster(settings: Settings, database: Mongo, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    name_database(monkeypatch, settings)
    monkeypatch.setenv("READMODEL_MAX_EVENTS_PER_SECOND", str(EVENTS_PER_SECOND))
    prepare(database, settings)
    # Not pytest's own folder: a socket's path ends at 107 characters.
    with (
        tempfile.TemporaryDirectory(prefix="readmodel-celery-", ignore_cleanup_errors=True) as folder,
        celery_cluster.running(Path(folder)) as started,
    ):
        yield started


def prepare(database: Mongo, settings: Settings) -> None:
    """A read model with fields of others, then damaged in every way."""
    ensure_indexes(database, settings)
    database.events.insert_many(chat_events(CHATS, seed=11, mean_events=MEAN_EVENTS))
    ReadModelProjector(database, settings, "chat").rebuild_all()
    # The only rebuild on record is that of the slices.
    database.readmodel_rebuilds.delete_many({})
    live = database.chats_read_model
    live.update_many({}, {"$set": {"pinned": True}})
    live.update_many({"chat_id": {"$regex": "^[0-4]"}}, {"$set": {"title": "broken"}})
    live.delete_many({"chat_id": {"$regex": "^[5-6]"}})
    orphans = [{"chat_id": f"{number:08d}-0000-4000-8000-000000000000", "title": "nobody's"} for number in range(50)]
    live.insert_many(orphans)


def kill_in_the_middle(cluster: Cluster, database: Mongo, *, after: int = 4, worker_too: bool = True) -> str:
    """Once so many slices are done, kill a run in the middle of another, with its worker or alone; gives the partition.

    Alone is what the system does to a process when memory runs out.
    """
    ranges = database.readmodel_rebuilds
    partition = ""

    def found() -> bool:
        nonlocal partition
        if ranges.count_documents({"done": True}) < after:
            return False
        for item in ranges.find({"done": False, "events": {"$gt": 0}}):
            for run in cluster.runs(DagsterRunStatus.STARTED):
                partition = run.tags["dagster/partition"]
                if partition == SLICES[item["slice"] - 1] and (at := cluster.worker_of(run)) is not None:
                    worker, process = at
                    if worker_too:
                        worker.kill()
                    else:
                        os.kill(process, signal.SIGKILL)
                    return True
        return False

    cluster.wait_until(found, every=0.05)
    return partition


def partitions(runs: list[dg.DagsterRun]) -> Counter[str]:
    return Counter(run.tags["dagster/partition"] for run in runs)


def the_one_rebuild(database: Mongo) -> dict[str, Any]:
    (record,) = database.readmodel_rebuilds.find({"kind": "rebuild"})
    return record


def check(database: Mongo, settings: Settings, strategy: str) -> None:
    """What must hold at the end, however it went."""
    record = the_one_rebuild(database)
    assert (record["state"], record["strategy"]) == ("done", strategy)
    ranges = list(database.readmodel_rebuilds.find({"of": record["_id"]}))
    assert sorted(item["slice"] for item in ranges) == list(range(1, 17))
    assert all(item["done"] for item in ranges)
    # A slice that began anew would count its first batch twice: about 2,000. What was read ahead of a batch may count.
    again = sum(item["events"] for item in ranges) - database.events.estimated_document_count()
    print(f"{again} events were read again")
    assert 0 <= again < 1_000
    verified = ReadModelProjector(database, settings, "chat").verify_all()
    assert verified.ok, verified.findings[:3]
    live = database.chats_read_model
    assert live.count_documents({"pinned": True}) > CHATS / 2
    assert live.count_documents({"title": {"$in": ["broken", "nobody's"]}}) == 0
    copies = {"readmodel_before_chats_read_model"} if strategy == "shadow" else set()
    built = ("readmodel_before", "readmodel_shadow")
    assert {name for name in database.list_collection_names() if name.startswith(built)} == copies
    assert [database[name].find_one({}) for name in ("readmodel_deferred", "readmodel_touched")] == [None, None]


def test_runs_whose_process_or_worker_died_are_started_again_by_dagster_and_go_on(
    cluster: Cluster, database: Mongo, settings: Settings
) -> None:
    started = time.monotonic()
    cluster.daemon.backfill("rebuild_slices", SLICES, {"dagster/max_runtime": str(MAX_RUNTIME)})
    alone = kill_in_the_middle(cluster, database, after=2, worker_too=False)
    killed_at = time.monotonic()
    cluster.wait_until(lambda: partitions(cluster.runs(DagsterRunStatus.FAILURE)) == Counter([alone]))
    print(f"that {alone} was killed was known after {time.monotonic() - killed_at:.0f} s")
    with_worker = kill_in_the_middle(cluster, database, after=6)
    print(f"{with_worker} and its worker were killed after {time.monotonic() - started:.0f} s")
    cluster.start_worker()

    cluster.wait_until(lambda: len(cluster.runs(*FINISHED)) == len(SLICES) + 2)

    print(f"all was done after {time.monotonic() - started:.0f} s")
    assert partitions(cluster.runs(DagsterRunStatus.SUCCESS)) == Counter(SLICES)
    assert partitions(cluster.runs(DagsterRunStatus.FAILURE)) == Counter([alone, with_worker])
    check(database, settings, "in_place")


def test_failed_slices_of_a_shadow_are_launched_again_and_it_is_swapped_in_once(
    cluster: Cluster, database: Mongo, settings: Settings
) -> None:
    tags = {"dagster/max_runtime": str(MAX_RUNTIME), "dagster/max_retries": "0", "readmodel/strategy": "shadow"}
    renamed = [{"$match": {"operationType": "rename", "to.coll": "chats_read_model"}}]
    started = time.monotonic()
    with database.watch(renamed) as swaps:
        cluster.daemon.backfill("rebuild_slices", SLICES, tags)
        killed = kill_in_the_middle(cluster, database)
        cluster.wait_until(lambda: len(cluster.runs(*FINISHED)) == len(SLICES))
        assert partitions(cluster.runs(DagsterRunStatus.FAILURE)) == Counter([killed])
        assert the_one_rebuild(database)["state"] == "building"
        assert swaps.try_next() is None

        cluster.daemon.backfill("rebuild_slices", SLICES, tags, from_failure=True)
        cluster.wait_until(lambda: len(cluster.runs(*FINISHED)) == len(SLICES) + 1)

        print(f"all was done after {time.monotonic() - started:.0f} s")
        swap = swaps.next()
        assert swap["ns"]["coll"] in shadow_names("chats_read_model")
        assert swaps.try_next() is None
    assert partitions(cluster.runs(DagsterRunStatus.SUCCESS)) == Counter(SLICES)
    check(database, settings, "shadow")
