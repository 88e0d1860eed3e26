"""Forty failovers of a replica set of three: no verb ends for one, and nothing is wrong. A quarter of an hour.

READMODEL_MONGOD names the program that the members are.
"""

import os
import random
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
from pydantic import SecretStr

from readmodel_pipelines import spread
from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.environment import environment_of
from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.servers.three_members import three_members
from readmodel_pipelines_tests.support.trials.failovers import FAILOVERS, outlasted
from readmodel_pipelines_tests.support.verbs.command_line import EVERYTHING
from readmodel_pipelines_tests.support.verbs.rebuilding import leftovers
from readmodel_pipelines_tests.support.waiting import wait_until

_EACH = 10


def test_no_verb_ends_because_a_primary_steps_down_or_freezes_or_dies() -> None:
    failovers = [*FAILOVERS] * _EACH
    random.Random(1).shuffle(failovers)
    with three_members() as them:
        held = outlasted(them, failovers, seed=1, chats=2_000, report=print)
    assert held.events
    assert held.waits
    print(held)


def test_nor_do_their_worker_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "EVENTS_WORTH_A_PROCESS", 1_000)
    with three_members() as them:
        print(outlasted(them, [*FAILOVERS] * 2, seed=2, chats=2_000, report=print, workers=2))


@pytest.mark.parametrize("strategy", ["in_place", "shadow"])
def test_without_a_majority_a_rebuild_waits_its_time_ends_with_words_and_goes_on_when_it_is_resumed(
    strategy: str,
) -> None:
    words = [sys.executable, "-m", "readmodel_pipelines.cli.main", "rebuild-readmodel", *EVERYTHING]
    words += ["--strategy", strategy]
    slowly = {"READMODEL_FAILOVER_SECONDS": "5", "READMODEL_MAX_EVENTS_PER_SECOND": "100", "READMODEL_WORKERS": "1"}
    slowly["PYTHONFAULTHANDLER"] = "1"
    with three_members() as them:
        settings = Settings(mongodb_uri=SecretStr(them.uri), database="without")
        named = {**os.environ, **environment_of(settings)}
        with open_database(settings) as database:
            scene = Scene(database, settings)
            scene.ensure_indexes()
            scene.add(chat_events(400, seed=3, mean_events=8))

            def is_at_work() -> bool:
                return any(item["cursor"] for item in database.readmodel_rebuilds.find({"cursor": {"$exists": True}}))

            with subprocess.Popen(words, env=named | slowly, stderr=subprocess.PIPE, text=True) as rebuild:
                try:
                    wait_until(lambda: is_at_work() or rebuild.poll() is not None, every=0.05)
                    with them.without_majority(), suppress(subprocess.TimeoutExpired):
                        rebuild.wait(timeout=300)
                finally:
                    # Of one that still waits it tells where.
                    rebuild.send_signal(signal.SIGABRT)
                _, told = rebuild.communicate()
            assert rebuild.returncode == 3, told
            assert "does not answer" in told
            assert "waiting for it, up to 5 s" in told
            assert "Traceback" not in told
            them.wait_until_whole()
            # Nobody could take its lease back.
            wait_until(lambda: not any(item.startswith("rebuild:") for item in leftovers(scene)))
            resumed = subprocess.run([*words, "--resume"], env=named, capture_output=True, text=True, timeout=300)
            assert resumed.returncode == 0, resumed.stderr
            assert scene.verify().ok
            assert leftovers(scene) == []
