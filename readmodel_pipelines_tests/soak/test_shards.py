"""What only a sharded cluster does: a shard without a primary (code 133), and a renaming that nobody can take back."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.moments import Moment, listening
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.environment import environment_of
from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.servers.programs import NotToBeHad, programs
from readmodel_pipelines_tests.support.servers.topologies import Served, served
from readmodel_pipelines_tests.support.verbs.command_line import EVERYTHING
from readmodel_pipelines_tests.support.verbs.rebuilding import leftovers
from readmodel_pipelines_tests.support.waiting import wait_until

_READMODEL = (sys.executable, "-m", "readmodel_pipelines.cli.main")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Served]:
    try:
        with served(programs("8.2.0"), "sharded by range") as cluster:
            yield cluster
    except NotToBeHad as why:
        pytest.skip(f"not run: {why}")


@pytest.mark.parametrize("shard", [0, 1])
def test_a_shard_without_a_primary_ends_no_verb_and_no_service(cluster: Served, tmp_path: Path, shard: int) -> None:
    settings = Settings(mongodb_uri=SecretStr(cluster.uri), database=f"shard_{shard}")
    named = {**os.environ, **environment_of(settings)}
    said = tmp_path / "said"
    cluster.lay_out(settings.database)
    with open_database(settings) as database, said.open("w") as out:
        scene = Scene(database, settings)
        scene.ensure_indexes()
        scene.add(chat_events(60, seed=3, mean_events=8))
        assert scene.rebuild().ok
        queue, chats = RepairQueue(database, settings), sorted(set(database.events.distinct("aggregate_id")))

        def is_repaired(times: int) -> bool:
            # What the statistics tell is an estimate, which a server that died loses.
            return database.repair_queue.count_documents({"status": "completed"}) >= times * len(chats)

        def enqueue() -> None:
            for chat in chats:
                queue.add(chat, "chat")

        enqueue()
        work = subprocess.Popen(
            [*_READMODEL, "repair-queue", "work", "--every", "0.2"], env=named, stdout=out, stderr=subprocess.STDOUT
        )
        try:
            wait_until(lambda: is_repaired(1), every=0.2)
            # It has all of this to do once the shard is dead.
            work.send_signal(signal.SIGSTOP)
            enqueue()
            assert cluster.sharded
            (member,) = cluster.sharded.shards[shard].members
            member.kill()
            work.send_signal(signal.SIGCONT)
            verify = subprocess.Popen(
                [*_READMODEL, "verify-consistency", *EVERYTHING], env=named, stderr=subprocess.PIPE, text=True
            )
            wait_until(lambda: "does not answer" in said.read_text() or work.poll() is not None, every=0.2)
            assert work.poll() is None, said.read_text()
            member.start()
            wait_until(lambda: is_repaired(2) or work.poll() is not None, every=0.2)
            assert work.poll() is None, said.read_text()
            _, told = verify.communicate(timeout=240)
            assert verify.returncode == 0, told
            work.send_signal(signal.SIGINT)
            assert work.wait(60) == 0, said.read_text()
        finally:
            work.kill()
            work.wait()
        assert scene.verify().ok
    assert "Traceback" not in said.read_text()


def test_a_swap_that_a_transaction_holds_up_is_waited_for(cluster: Served) -> None:
    """The cluster would go on with it behind our back, and the shadow would be gone at the next try."""
    settings = Settings(mongodb_uri=SecretStr(cluster.uri), database="swap", swap_wait_seconds=0.02)
    cluster.lay_out(settings.database)
    with open_database(settings) as database:
        scene = Scene(database, settings)
        scene.ensure_indexes()
        scene.add(chat_events(20, seed=3, mean_events=8))
        assert scene.rebuild().ok
        held, end = threading.Event(), threading.Event()

        def hold() -> None:
            with database.client.start_session() as session, session.start_transaction():
                scene.chats.update_one({}, {"$set": {"theirs": 1}}, session=session)
                held.set()
                end.wait(30)

        others = threading.Thread(target=hold)
        others.start()
        assert held.wait(30)
        with listening(Moment.SWAP, lambda **_: threading.Timer(2, end.set).start()):
            summary = scene.projector("chat").rebuild_all(strategy="shadow")
        others.join()
        assert summary.ok
        assert scene.verify().ok
        assert scene.chats.count_documents({"theirs": 1}) == 1
        assert leftovers(scene) == []
