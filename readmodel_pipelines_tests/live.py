"""Verifies again and again while an application writes, and holds what it says against what is true."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.indexes import ensure_indexes
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.verification import Bucket, Coverage, Request, verify

_QUIET_CHATS = 300
_COVERAGES = (Coverage(), Coverage(since_last=True), Coverage(bucket=Bucket(1, 2), since_last=True))


@dataclass(slots=True)
class Seen:
    """How often was verified beside how many events, how many aggregates lagged, and how late the writer was."""

    verifications: int = 0
    lagging: int = 0
    seconds: list[float] = field(default_factory=list)
    events: int = 0
    latest: float = 0.0


def verify_beside_a_writer(settings: Settings, *, seconds: float, rate: int, grace: float = 2.0) -> Seen:
    """Verify until the writer ends. Raises AssertionError at a false alarm, or when a true one is missed."""
    settings = settings.model_copy(update={"grace_seconds": grace})
    seen = Seen()
    with open_database(settings) as database:
        ensure_indexes(database, settings, projections_for("chat"))
        quiet = list(chat_events(_QUIET_CHATS, seed=5))
        database.events.insert_many(quiet)
        ReadModelProjector(database, settings).rebuild_all()
        damages = iter(sorted({event["aggregate_id"] for event in quiet}))
        truth: set[tuple[str, str]] = set()
        with writer(settings, seconds=seconds, rate=rate) as process:
            while process.poll() is None:
                coverage = _COVERAGES[seen.verifications % len(_COVERAGES)]
                started = time.monotonic()
                summary = verify(database, settings, [], Request(coverage))
                seen.seconds.append(time.monotonic() - started)
                found = {(item.read_model, item.aggregate_id) for item in summary.findings}
                assert found <= truth, f"a false alarm of {coverage}: {found - truth}"
                if coverage.everything:
                    assert found == truth, "a true finding is missed"
                    # A new damage, for the next look at everything.
                    damaged = next(damages)
                    database.chats_read_model.update_one({"chat_id": damaged}, {"$set": {"title": "broken"}})
                    truth.add(("chats_read_model", damaged))
                seen.verifications += 1
                seen.lagging += sum(counts.lagging for counts in summary.read_models.values())
            output = json.loads(process.communicate(timeout=60)[0])
        seen.events, seen.latest = output["events"], output["latest"]
        last = verify(database, settings, [], Request())
        assert {(item.read_model, item.aggregate_id) for item in last.findings} == truth
        assert truth
        database.client.drop_database(database.name)
    return seen


@contextmanager
def writer(settings: Settings, *, seconds: float, rate: int, seed: int = 0) -> Iterator[Any]:
    """A writer that ends with the block."""
    uri = settings.mongodb_uri
    command = [sys.executable, "-m", "readmodel_pipelines_tests.live_writer", uri.get_secret_value() if uri else ""]
    command += [settings.database, f"--seconds={seconds}", f"--rate={rate}", f"--seed={seed}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
