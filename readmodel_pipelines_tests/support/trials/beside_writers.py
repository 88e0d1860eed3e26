"""Verifies, or rebuilds, while an application writes, and holds what comes of it against what is true."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.indexes import ensure_indexes
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.rebuild import RebuildRequest, rebuild
from readmodel_pipelines.rebuild_state import Strategy
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.verification.coverage import Bucket, Coverage
from readmodel_pipelines.verification.verify import VerificationRequest, verify
from readmodel_pipelines_tests.support.environment import uri_of
from readmodel_pipelines_tests.support.processes import live_writer
from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.verbs.rebuilding import leftovers

_QUIET_CHATS = 300
_LAST_LOOK = 2.0
_COVERAGES = (Coverage(), Coverage(since_last=True), Coverage(bucket=Bucket(1, 2), since_last=True))


@dataclass(slots=True)
class Seen:
    """How often was verified beside how many events, how many lagged, and for how many the writer was late."""

    verifications: int = 0
    lagging: int = 0
    seconds: list[float] = field(default_factory=list)
    events: int = 0
    late: int = 0


def verify_beside_a_writer(settings: Settings, *, seconds: float, rate: int, grace: float = 2.0) -> Seen:
    """Verify until the writer ends. Raises AssertionError at a false alarm, or when a true one is missed.

    On a slow machine the writer may be later than the grace time, and what is told of such a chat is true.
    """
    settings = settings.model_copy(update={"grace_seconds": grace})
    seen = Seen()
    with open_database(settings) as database:
        ensure_indexes(database, settings)
        quiet = list(chat_events(_QUIET_CHATS, seed=5))
        database.events.insert_many(quiet)
        ReadModelProjector(database, settings).rebuild_all()
        damages = iter(sorted({event["aggregate_id"] for event in quiet}))
        truth: set[tuple[str, str]] = set()
        alarms: set[str] = set()
        with (
            writer(settings, seconds=seconds, rate=rate, more=(f"--too-late={grace * 0.9}",)) as process,
            ThreadPoolExecutor(1) as pool,
        ):
            # What it says at its end may be more than a pipe holds: it ends when somebody reads that.
            told = pool.submit(process.communicate)
            while not told.done() or seen.verifications < len(_COVERAGES):
                coverage = _COVERAGES[seen.verifications % len(_COVERAGES)]
                started = time.monotonic()
                # All of them are kept: of a writer that the machine holds up there are thousands.
                summary = verify(database, settings, [], VerificationRequest(coverage, max_findings=1_000_000))
                seen.seconds.append(time.monotonic() - started)
                found = {(item.read_model, item.aggregate_id) for item in summary.findings}
                alarms |= {aggregate_id for _, aggregate_id in found - truth}
                if coverage.everything:
                    assert found >= truth, "a true finding is missed"
                    # A new damage, for the next look at everything.
                    damaged = next(damages)
                    database.chats_read_model.update_one({"chat_id": damaged}, {"$set": {"title": "broken"}})
                    truth.add(("chats_read_model", damaged))
                seen.verifications += 1
                seen.lagging += sum(counts.lagging for counts in summary.read_models.values())
            output = json.loads(told.result()[0])
        assert alarms <= set(output["late"]), "a false alarm"
        seen.events, seen.late = output["events"], len(output["late"])
        last = verify(database, settings, [], VerificationRequest(max_findings=1_000_000))
        assert {(item.read_model, item.aggregate_id) for item in last.findings} == truth
        assert truth
        database.client.drop_database(database.name)
    return seen


def rebuild_beside_writers(
    settings: Settings, *, strategy: Strategy, seconds: float, writers: int, rate: int, seed: int, quiet_chats: int
) -> tuple[int, int]:
    """Rebuild while writers append, project, fail to, and write a field of their own; then nothing may be wrong.

    Gives the number of events appended, and that of documents caught up with.
    """
    chance = random.Random(seed)
    settings = settings.model_copy(update={"lease_seconds": 20.0})
    with open_database(settings) as database, ExitStack() as running:
        ensure_indexes(database, settings)
        database.events.insert_many(list(chat_events(quiet_chats, seed=5, mean_events=8)))
        ReadModelProjector(database, settings).rebuild_all()
        database.chats_read_model.update_many({}, {"$set": {"title": "damaged", "not_ours": 1}})
        each = [
            running.enter_context(
                writer(
                    settings,
                    seconds=seconds,
                    rate=rate // writers,
                    seed=1_000 * seed + number,
                    more=("--failing=0.1", f"--own-field=own_{number}"),
                )
            )
            for number in range(writers)
        ]
        quiet = database.events.estimated_document_count()
        while database.events.estimated_document_count() == quiet:
            time.sleep(0.05)
        time.sleep(chance.uniform(0.0, seconds / 2))
        summary = rebuild(database, settings, [], RebuildRequest(strategy))
        assert summary.ok, summary.as_json()
        assert summary.about["state"] == "done"
        ended = time.time() - _LAST_LOOK
        told = [json.loads(process.communicate(timeout=240)[0]) for process in each]
        last = ReadModelProjector(database, settings).verify_all()
        # On a slow machine the writers may outlive the rebuild, and what fails after it is no business of its.
        later = {item for output in told for item, at in output["failed"].items() if at > ended}
        assert {item.aggregate_id for item in last.findings} <= later, (seed, last.as_json())
        assert database.chats_read_model.count_documents({"not_ours": 1}) == quiet_chats, seed
        stored = {item["chat_id"]: item for item in database.chats_read_model.find()}
        for number, output in enumerate(told):
            for chat_id, value in output["own"].items():
                wanted = {"count": value, "all": list(range(1, value + 1))}
                assert stored[chat_id].get(f"own_{number}") == wanted, (seed, chat_id)
        assert leftovers(Scene(database, settings)) == [], seed
        database.client.drop_database(database.name)
    return sum(output["events"] for output in told), summary.about["caught_up"]


@contextmanager
def writer(settings: Settings, *, seconds: float, rate: int, seed: int = 0, more: Sequence[str] = ()) -> Iterator[Any]:
    """A writer that ends with the block."""
    command = [sys.executable, "-m", live_writer.__name__, uri_of(settings), settings.database]
    command += [f"--seconds={seconds}", f"--rate={rate}", f"--seed={seed}", *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
