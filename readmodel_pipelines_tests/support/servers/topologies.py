"""The kinds of servers that people run, each for real: one node, three members, a sharded cluster."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from pymongo import MongoClient

from readmodel_pipelines_tests.support.servers.embedded import server_folder
from readmodel_pipelines_tests.support.servers.members import started
from readmodel_pipelines_tests.support.servers.programs import Programs
from readmodel_pipelines_tests.support.servers.sharded import Sharded, sharded_cluster
from readmodel_pipelines_tests.support.servers.three_members import three_members

_MIDDLE = "8"
"""Half of all UUIDs lie behind it."""


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs. `lay_out` lays out a database there as this kind has it."""

    version: str
    topology: str
    uri: str
    lay_out: Callable[[str], None] = lambda _: None
    sharded: Sharded | None = None

    @property
    def shards_read_models(self) -> bool:
        """Whether `chats_read_model` is sharded, of which no shadow can be made."""
        return self.topology == "sharded read model"


@contextmanager
def served(programs: Programs, topology: str) -> Iterator[Served]:
    """One of `TOPOLOGIES`; it ends with the block.

    Raises:
        NotToBeHad: these programs do not make such a one.
    """
    with ExitStack() as running:
        if topology == "one node":
            folder = running.enter_context(server_folder())
            node = started(programs.mongod, folder, "alone", running)
            node.begin()
            node.wait_until_whole()
            yield Served(programs.version, topology, node.uri)
        elif topology == "three members":
            them = running.enter_context(three_members(programs.mongod))
            yield Served(programs.version, topology, them.uri)
        else:
            cluster = running.enter_context(sharded_cluster(programs))
            lay_out = _LAYOUTS[topology]
            yield Served(programs.version, topology, cluster.uri, lambda name: lay_out(cluster, name), cluster)


def _by_range(cluster: Sharded, database: str) -> None:
    cluster.shard(database, "events", {"aggregate_id": 1})
    cluster.split(database, "events", {"aggregate_id": _MIDDLE})


def _by_hash(cluster: Sharded, database: str) -> None:
    cluster.shard(database, "events", {"aggregate_id": "hashed"})


def _with_read_model(cluster: Sharded, database: str) -> None:
    _by_range(cluster, database)
    with MongoClient[Any](cluster.uri) as client:
        client[database].chats_read_model.create_index("chat_id", unique=True)
    cluster.shard(database, "chats_read_model", {"chat_id": 1}, unique=True)
    cluster.split(database, "chats_read_model", {"chat_id": _MIDDLE})


_LAYOUTS: Mapping[str, Callable[[Sharded, str], None]] = {
    "sharded by range": _by_range,
    "sharded by hash": _by_hash,
    "sharded read model": _with_read_model,
}
TOPOLOGIES = ("one node", "three members", *_LAYOUTS)
