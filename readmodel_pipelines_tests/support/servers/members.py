"""A process of a cluster: a `mongod` or `mongos` on a port of the loopback; replica sets of such."""

import random
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from readmodel_pipelines_tests.support.servers.lines import Line, is_port_of
from readmodel_pipelines_tests.support.waiting import wait_until

# Below those that the system gives to outgoing connections: one of these would take it before it is listened at.
_PORTS = range(18_000, 32_000)
_SMALL = (
    *("--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "200"),
    *("--setParameter", "diagnosticDataCollectionEnabled=false"),
)
# Ends it when the pipe on stdin closes, which the kernel does however our process ends.
_END_WITH_PIPE = 'read -r _; kill -KILL "$1"'


def free_port() -> int:
    """A port that nobody listens at."""
    while True:
        port = random.choice(_PORTS)
        with suppress(OSError), socket.socket() as trial:
            trial.bind(("127.0.0.1", port))
            return port


class Member:
    """One process, which ends with this one. `address` is where others and clients reach it: on its line, if any."""

    def __init__(self, command: Sequence[str], *, on_a_line: bool = False) -> None:
        self.port = free_port()
        self.line = Line(free_port(), self.port) if on_a_line else None
        self.address = f"127.0.0.1:{self.line.port if self.line else self.port}"
        self._command = [*command, "--bind_ip", "127.0.0.1", "--port", str(self.port), "--nounixsocket", "--quiet"]
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        watch = ["/bin/sh", "-c", _END_WITH_PIPE, "sh", str(self.process.pid)]
        self._watch = subprocess.Popen(watch, stdin=subprocess.PIPE, start_new_session=True)

    def kill(self) -> None:
        """End it, in whatever state it is; its data stay, and so does its line."""
        self._watch.kill()
        self._watch.communicate()
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """End it and its line."""
        self.kill()
        if self.line:
            self.line.close()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It stands still meanwhile, and keeps its connections."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    @contextmanager
    def client(self) -> Iterator[Any]:
        """Asks this member alone, whatever lies between it and others."""
        with MongoClient[Any](
            "127.0.0.1", self.port, directConnection=True, serverSelectionTimeoutMS=2_000, socketTimeoutMS=30_000
        ) as client:
            yield client.admin

    def answers(self) -> bool:
        """Whether it does."""
        assert self.process.poll() is None, f"{self._command[0]} ended with code {self.process.returncode}"
        with suppress(PyMongoError), self.client() as admin:
            admin.command("ping")
            return True
        return False

    def is_primary(self) -> bool:
        """Whether it takes itself for it."""
        with suppress(PyMongoError), self.client() as admin:
            return bool(admin.command("hello")["isWritablePrimary"])
        return False


class ReplicaSet:
    """Members of one set; `uri` names all of them."""

    def __init__(self, name: str, members: Sequence[Member]) -> None:
        self.name = name
        self.members = members

    @property
    def hosts(self) -> str:
        """As a shard is named."""
        return f"{self.name}/{','.join(item.address for item in self.members)}"

    @property
    def uri(self) -> str:
        """To it, and to whoever is primary."""
        return f"mongodb://{','.join(item.address for item in self.members)}/?replicaSet={self.name}"

    def begin(self, **more: Any) -> None:
        """Make them one set; `more` is part of its configuration."""
        members = [{"_id": number, "host": item.address} for number, item in enumerate(self.members)]
        wait_until(lambda: all(item.answers() for item in self.members), every=0.1)
        with self.members[0].client() as admin:
            admin.command("replSetInitiate", {"_id": self.name, "members": members, **more})

    def wait_until_whole(self) -> None:
        """Until there is a primary, and all others follow it."""
        states = ["PRIMARY", *["SECONDARY"] * (len(self.members) - 1)]
        wait_until(lambda: sorted(self._states()) == states, every=0.2)

    def primary(self) -> Member:
        """Whoever is it now, or is about to be."""
        found: list[Member] = []
        wait_until(lambda: found.extend(item for item in self.members if item.is_primary()) or found, every=0.2)
        return found[0]

    @contextmanager
    def cut_off(self, member: Member) -> Iterator[None]:
        """No other member reaches it meanwhile, nor it another one; clients reach all of them."""
        others = [item for item in self.members if item is not member]
        with ExitStack() as cuts:
            assert member.line
            cuts.enter_context(member.line.cut(_cached(others)))
            for item in others:
                assert item.line
                cuts.enter_context(item.line.cut(_cached([member])))
            yield

    def _states(self) -> list[str]:
        for member in self.members:
            with suppress(PyMongoError), member.client() as admin:
                told = admin.command("replSetGetStatus")["members"]
                return [item["stateStr"] for item in told]
        return []


def _cached(members: Sequence[Member]) -> Callable[[int], bool]:
    """Whether a connection from a port is one of theirs; asked once for each, for a port stays whose it is."""
    return cache(lambda port: any(is_port_of(item.process.pid, port) for item in members))


def started(
    binary: Path, folder: Path, name: str, running: ExitStack, *role: str, number: int = 1, on_lines: bool = False
) -> ReplicaSet:
    """A set of so many members that is not one yet; they end with `running`."""
    members = []
    for each in range(number):
        data = folder / f"{name}{each}"
        data.mkdir()
        command = [str(binary), "--replSet", name, "--dbpath", str(data), *_SMALL, *role]
        members.append(Member(command, on_a_line=on_lines))
        running.callback(members[-1].end)
    return ReplicaSet(name, members)
