"""A sharded cluster on the loopback: two shards and a config server, each a replica set of one, and a `mongos`."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from pymongo import MongoClient

from readmodel_pipelines_tests.support.servers.embedded import server_folder
from readmodel_pipelines_tests.support.servers.members import Member, ReplicaSet, started
from readmodel_pipelines_tests.support.servers.programs import NotToBeHad, Programs
from readmodel_pipelines_tests.support.waiting import wait_until


class Sharded:
    """`uri` is that of its `mongos`."""

    def __init__(self, mongos: Member, shards: list[ReplicaSet]) -> None:
        self.shards = shards
        self.uri = f"mongodb://{mongos.address}/"

    def shard(self, database: str, collection: str, key: dict[str, Any], *, unique: bool = False) -> None:
        """Shard a collection, whose documents lie on both shards."""
        with MongoClient[Any](self.uri) as client:
            client.admin.command("enableSharding", database)
            client.admin.command("shardCollection", f"{database}.{collection}", key=key, unique=unique)

    def split(self, database: str, collection: str, middle: dict[str, Any]) -> None:
        """Move what lies behind this value of the shard key to the shard that has the rest not."""
        space = f"{database}.{collection}"
        with MongoClient[Any](self.uri) as client:
            admin = client.admin
            admin.command("split", space, middle=middle)
            (home,) = client.config["databases"].find({"_id": database})
            other = next(item.name for item in self.shards if item.name != home["primary"])
            admin.command("moveChunk", space, find=middle, to=other, _waitForDelete=True)


@contextmanager
def sharded_cluster(programs: Programs) -> Iterator[Sharded]:
    """It ends with the block.

    Raises:
        NotToBeHad: nothing brings a `mongos` of this version.
    """
    if programs.mongos is None:
        raise NotToBeHad(f"no package carries a mongos of {programs.version}")
    with server_folder() as folder, ExitStack() as running:
        config = started(programs.mongod, folder, "config", running, "--configsvr")
        shards = [started(programs.mongod, folder, name, running, "--shardsvr") for name in ("one", "two")]
        config.begin(configsvr=True)
        for each in shards:
            each.begin()
        for each in (config, *shards):
            each.wait_until_whole()
        mongos = Member([str(programs.mongos), "--configdb", config.hosts])
        running.callback(mongos.kill)
        wait_until(mongos.answers, every=0.1)
        with mongos.client() as admin:
            for each in shards:
                admin.command("addShard", each.hosts)
            admin.command("balancerStop")
        yield Sharded(mongos, shards)
