"""A replica set of three real members on the loopback, whose primary steps down, is frozen, cut off, or killed."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pymongo.errors import PyMongoError
from pymongo.write_concern import WriteConcern

from readmodel_pipelines_tests.support.servers.embedded import server_folder
from readmodel_pipelines_tests.support.servers.members import Member, ReplicaSet, started
from readmodel_pipelines_tests.support.servers.programs import program_of_tests
from readmodel_pipelines_tests.support.waiting import wait_until


class ThreeMembers(ReplicaSet):
    """`uri` names all of them."""

    def step_down(self) -> None:
        """Another one becomes primary, at once."""
        with suppress(PyMongoError), self.primary().client() as admin:
            admin.command("replSetStepDown", 20, secondaryCatchUpPeriodSecs=10)

    def freeze(self, seconds: float) -> None:
        """The primary stands still, so that another one is elected, and wakes up behind that."""
        with self.primary().stopped():
            time.sleep(seconds)

    def kill(self) -> None:
        """The primary dies; it is started again when another one is elected."""
        member = self.primary()
        member.kill()
        self._await_another(member)
        member.start()

    def cut_off_primary(self) -> None:
        """The others reach the primary no more, and clients do, until another one is elected and it has noticed."""
        member = self.primary()
        with self.cut_off(member):
            self._await_another(member)
            wait_until(lambda: not member.is_primary(), every=0.2)

    @contextmanager
    def without_majority(self) -> Iterator[None]:
        """The two that follow are dead meanwhile; the third one is primary no more as soon as it notices."""
        member = self.primary()
        others = [item for item in self.members if item is not member]
        for item in others:
            item.kill()
        try:
            yield
        finally:
            for item in others:
                item.start()

    def write_hastily(self) -> None:
        """Write what no majority need have: the server's time is then later than all that it may tell."""
        with self.primary().client() as admin:
            admin.client["hasty"].get_collection("writes", write_concern=WriteConcern(1)).insert_one({})

    def _await_another(self, member: Member) -> None:
        others = [item for item in self.members if item is not member]
        wait_until(lambda: any(item.is_primary() for item in others), every=0.2)


@contextmanager
def three_members(binary: Path | None = None) -> Iterator[ThreeMembers]:
    """They end with the block."""
    with server_folder() as folder, ExitStack() as running:
        them = started(binary or program_of_tests(), folder, "three", running, number=3, on_lines=True)
        three = ThreeMembers(them.name, them.members)
        three.begin()
        three.wait_until_whole()
        yield three
