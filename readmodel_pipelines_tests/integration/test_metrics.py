"""`readmodel metrics` on a real MongoDB: what it says, what it costs, and that it answers whatever MongoDB does."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner, Result

from readmodel_pipelines.cli.main import app
from readmodel_pipelines.metrics import Exporter, serving, text
from readmodel_pipelines.metrics.catalogue import METRICS
from readmodel_pipelines.mongo.connection import open_database, server_time
from readmodel_pipelines.mongo.findings import VERIFICATIONS
from readmodel_pipelines.mongo.leases import Leases, hold_leases
from readmodel_pipelines.mongo.rebuilds import COLLECTION as REBUILDS
from readmodel_pipelines.mongo.rebuilds import Rebuilds, State
from readmodel_pipelines.mongo.repair_queue import RepairQueue
from readmodel_pipelines.rebuild import Request as Rebuild
from readmodel_pipelines.rebuild import rebuild
from readmodel_pipelines.repair import RepairWorker
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.verification import Coverage, verify
from readmodel_pipelines.verification import Request as Verification

Values = Callable[..., float]

SECONDS = 20.0
"""Longer than anything here takes on a machine that has other things to do."""
GONE = "mongodb://127.0.0.1:9/?connectTimeoutMS=200"


def parsed(shown: str) -> Values:
    """A way to ask for the value of a metric with just these labels."""
    found = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(shown)
        for sample in family.samples
    }

    def value(name: str, **labels: str) -> float:
        return found[f"readmodel_{name}", frozenset(labels.items())]

    return value


def names_in(shown: str) -> set[str]:
    return set(re.findall(r"^(readmodel_\w+)", shown, flags=re.MULTILINE))


def scrape(settings: Settings) -> str:
    said: list[str] = []
    with Exporter(settings, SECONDS, said.append) as exporter:
        shown = text(exporter)
    assert said == []
    return shown


@pytest.fixture
def busy(scene: Any) -> Any:
    """Something of all there is: a done and an unfinished rebuild, verifications, findings, repairs, dead letters."""
    scene.ensure_indexes()
    ids = [scene.chat(f"chat {number}") for number in range(8)]
    assert rebuild(scene.database, scene.settings, [], Rebuild()).ok
    verify(scene.database, scene.settings, [], Verification())
    queue = RepairQueue(scene.database, scene.settings)
    scene.chats.update_one({"chat_id": ids[0]}, {"$set": {"title": "wrong"}})
    assert queue.add(ids[0], "chat")
    assert RepairWorker(scene.database, scene.settings).work().completed == 1
    scene.append(ids[1], ("chat.exploded", {}))
    assert queue.add(ids[1], "chat")
    assert RepairWorker(scene.database, scene.settings).work().parked == 1
    assert queue.add(ids[2], "task")
    ten_minutes_ago = server_time(scene.database) - timedelta(minutes=10)
    scene.database.repair_queue.update_one({"aggregate_id": ids[2]}, {"$set": {"created_at": ten_minutes_ago}})
    scene.tasks.delete_one({"task_id": ids[3]})
    verify(scene.database, scene.settings, ["task"], Verification(Coverage(sample=8)))
    return scene


def begun(scene: Any) -> dict[str, Any]:
    """A rebuild in place of the chats, half of whose ranges are done."""
    about = {"read_models": ["chats_read_model"], "names": ["chat"], "strategy": "in_place"}
    return Rebuilds(scene.database).begin("a" * 12, about, [(1, None), (1, None)] and _two_ranges())


def _two_ranges() -> list[Any]:
    from readmodel_pipelines.reconcile.ranges import IdRange

    return [(1, IdRange(None, "8")), (1, IdRange("8", None))]
