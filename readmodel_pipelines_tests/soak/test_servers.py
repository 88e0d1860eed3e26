"""Every verb on the servers that people run: versions that a package carries, alone, as three members, sharded.

What cannot be had here is skipped, and says so. docs/deploying.md has the table of what was run.
"""

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from typing import Any

import pytest
from bson import ObjectId
from pydantic import SecretStr

from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.environment import name_database
from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.servers.programs import VERSIONS, NotToBeHad, programs
from readmodel_pipelines_tests.support.servers.topologies import TOPOLOGIES, Served, served
from readmodel_pipelines_tests.support.verbs.command_line import EVERYTHING, readmodel
from readmodel_pipelines_tests.support.verbs.rebuilding import leftovers

_SERVERS = [pytest.param(each, id=", ".join(each)) for each in product(VERSIONS, TOPOLOGIES)]
_CHATS = 60


@pytest.fixture(scope="module", params=_SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Served]:
    version, topology = request.param
    with ExitStack() as running:
        try:
            server = running.enter_context(served(programs(version), topology))
        except NotToBeHad as why:
            pytest.skip(f"not run, {version}, {topology}: {why}")
        yield server


@pytest.fixture
def bare(server: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Events alone, in a database that is laid out as this kind of server has it; commands go there."""
    with _filled(server, monkeypatch, _CHATS) as scene:
        yield scene


@pytest.fixture
def there(bare: Scene) -> Scene:
    """The same with indexes and read models."""
    _done("ensure-indexes")
    _done("rebuild-readmodel", *EVERYTHING)
    return bare


@contextmanager
def _filled(server: Served, monkeypatch: pytest.MonkeyPatch, chats: int) -> Iterator[Scene]:
    settings = Settings(mongodb_uri=SecretStr(server.uri), database=f"test_{ObjectId()}")
    name_database(monkeypatch, settings)
    server.lay_out(settings.database)
    with open_database(settings) as database:
        database.events.insert_many(list(chat_events(chats, seed=4, mean_events=8)))
        yield Scene(database, settings)
        database.client.drop_database(database.name)


def _done(*words: object, code: int = 0) -> Any:
    """What a command says; it ends with this code."""
    result = readmodel(*words, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def _break(scene: Scene) -> None:
    """A document that is wrong, one that is missing, and one that nobody wants."""
    first, second, *_ = [item["chat_id"] for item in scene.chats.find().sort("chat_id", 1)]
    scene.chats.update_one({"chat_id": first}, {"$set": {"title": "wrong"}})
    scene.chats.delete_one({"chat_id": second})
    scene.chats.insert_one({"chat_id": "f0000000-0000-4000-8000-000000000000", "title": "nobody's"})


def _is_right(scene: Scene) -> None:
    assert scene.verify().ok
    assert leftovers(scene) == []


def test_indexes_are_made_once(bare: Scene) -> None:
    _done("ensure-indexes")
    before = {name: bare.collection(name).index_information() for name in ("events", "chats_read_model")}
    _done("ensure-indexes")
    assert before == {name: bare.collection(name).index_information() for name in before}


def test_a_rebuild_in_place_makes_read_models_and_mends_them(there: Scene) -> None:
    _is_right(there)
    _break(there)
    _done("rebuild-readmodel", *EVERYTHING, "--dry-run")
    assert not there.verify().ok
    _done("rebuild-readmodel", *EVERYTHING)
    _is_right(there)


def test_versions_are_compared_on_every_server_though_streams_come_from_several(there: Scene) -> None:
    look = ("verify-consistency", *EVERYTHING, "--tier", "versions")
    _done(*look)
    there.tasks.delete_one({})
    there.tasks.update_one({}, {"$inc": {"version": 1}})
    found = _done(*look, code=1)["read_models"]["tasks_read_model"]
    assert (found["missing"], found["different"]) == (1, 1)


def test_a_shadow_takes_the_place_of_what_is_wrong_and_can_be_taken_back(server: Served, there: Scene) -> None:
    _break(there)
    if server.shards_read_models:
        refused = readmodel("rebuild-readmodel", *EVERYTHING, "--strategy", "shadow")
        assert refused.exit_code == 1
        assert "sharded collection, and no shadow can take its place" in refused.output
        assert "in_place" in refused.output
        return
    _done("rebuild-readmodel", *EVERYTHING, "--strategy", "shadow")
    _is_right(there)
    listed = _done("rebuilds", "list")
    done = next(item["_id"] for item in listed["rebuilds"] if "chats_read_model" in item["read_models"])
    # What was wrong before is wrong again, which it tells.
    _done("rebuilds", "rollback", done, "--yes", code=1)
    _done("rebuild-readmodel", *EVERYTHING)
    _is_right(there)


def test_a_verification_finds_what_is_wrong_and_then_what_changed(there: Scene) -> None:
    _done("verify-consistency", *EVERYTHING)
    _break(there)
    found = _done("verify-consistency", *EVERYTHING, code=1)
    told = {name: counts for name, counts in found["read_models"]["chats_read_model"].items() if counts}
    assert {"missing", "different", "orphan"} <= told.keys(), told
    _done("rebuild-readmodel", *EVERYTHING)
    _done("verify-consistency", *EVERYTHING, "--since", "last")


def test_the_repair_queue_is_worked_off(there: Scene) -> None:
    _break(there)
    queue = RepairQueue(there.database, there.settings)
    for chat in {item["aggregate_id"] for item in there.events.find()}:
        queue.add(chat, "chat")
    _done("repair-queue", "work", "--once")
    there.chats.delete_one({"title": "nobody's"})
    _is_right(there)


def test_the_doctor_knows_the_server_and_finds_nothing_wrong(server: Served, there: Scene) -> None:
    _done("verify-consistency", *EVERYTHING)
    told = _done("doctor")
    states = {check["name"]: check["state"] for check in told["checks"]}
    assert set(states.values()) == {"ok"}, told
    version = next(check for check in told["checks"] if check["name"] == "version")
    assert f"MongoDB {server.version}, which is tested" in version["found"]


def test_a_shadow_through_mongos_takes_at_most_three_times_what_it_takes_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An idle shard says only every ten seconds that it is, which a change stream would wait for at each look."""
    took: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as running:
        try:
            of_8_2 = programs("8.2.0")
        except NotToBeHad as why:
            pytest.skip(f"not run: {why}")
        servers = [running.enter_context(served(of_8_2, each)) for each in ("one node", "sharded by range")]
        places = [running.enter_context(_filled(server, monkeypatch, 600)) for server in servers]
        for server, place in [*zip(servers, places, strict=True)] * 3:
            name_database(monkeypatch, place.settings)
            began = time.perf_counter()
            _done("rebuild-readmodel", *EVERYTHING, "--strategy", "shadow")
            took[server.topology].append(time.perf_counter() - began)
    print({topology: [round(each, 1) for each in seconds] for topology, seconds in took.items()})
    assert min(took["sharded by range"]) <= 3 * min(took["one node"])
