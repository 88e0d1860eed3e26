"""A replica set loses its majority while every command of the program is somewhere in its work.

Each command stands still before the n-th thing that it asks, on a database of its own. Then the majority is lost, once
for all of them, and they go on: some while the primary has not noticed yet, and so takes writes that no majority ever
has, the others when there is no primary any more. None may hang; each ends with words, and can be done again once there
is a primary.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from bson import ObjectId
from pydantic import SecretStr

from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.rebuild import RebuildRequest, rebuild
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.environment import environment_of
from readmodel_pipelines_tests.support.freezes.trial import expired
from readmodel_pipelines_tests.support.freezes.verbs import VERBS
from readmodel_pipelines_tests.support.processes.stalled_program import Program, Stalled
from readmodel_pipelines_tests.support.scene import Scene, uuid
from readmodel_pipelines_tests.support.servers.three_members import ThreeMembers
from readmodel_pipelines_tests.support.verbs.command_line import EVERYTHING
from readmodel_pipelines_tests.support.verbs.rebuilding import OTHER_TITLE, leftovers
from readmodel_pipelines_tests.support.verbs.repairing import put, task
from readmodel_pipelines_tests.support.verbs.verifying import look
from readmodel_pipelines_tests.support.waiting import wait_until

_CHATS = 7
_WAITS = {
    "READMODEL_FAILOVER_SECONDS": "3",
    "READMODEL_GRACE_SECONDS": "0",
    "READMODEL_LEASE_SECONDS": "3600",
    "READMODEL_REPAIR_LEASE_SECONDS": "3600",
    "READMODEL_WORKERS": "1",
    "READMODEL_MAX_DELETE_SHARE": "1",
}
_LONGEST = 300.0
"""Some hundred processes of a slow machine, that wait for three seconds each."""


@dataclass(frozen=True)
class Verb:
    """`{id}` in the words is what `before` gives; `codes` are those of a run that nothing disturbs, `again` adds to it.

    One of which `needs_a_server` is not true tells that there is none, and that is all well.
    """

    words: Sequence[str]
    before: Callable[[Scene], str] = lambda _: ""
    codes: Sequence[int] = (0,)
    again: Sequence[str] = ()
    needs_a_server: bool = True


def _queued(scene: Scene) -> str:
    put(scene, *(task(item["chat_id"]) for item in scene.chats.find()))
    return ""


def _dead(scene: Scene) -> str:
    put(scene, *(task(item["chat_id"], status="failed", reason="busy") for item in scene.chats.find()))
    return ""


def _verified(scene: Scene) -> str:
    look(scene)
    scene.append(uuid("chat 2"), OTHER_TITLE)
    return ""


def _leased(scene: Scene) -> str:
    lease = {"_id": _LEASE, "nonce": "theirs", "holder": "somebody", "given_back": False, "token": 1, "seconds": 3600.0}
    scene.database.readmodel_leases.insert_one(lease)
    scene.database.readmodel_leases.update_one(
        {"_id": _LEASE}, [{"$set": {"expires_at": {"$add": ["$$NOW", 3_600_000]}}}]
    )
    return ""


_LEASE = "rebuild:of_somebody"
_REBUILD = ("rebuild-readmodel", *EVERYTHING)
_SHADOW = (*_REBUILD, "--strategy", "shadow")
_RESUME = ("--resume",)
_ONE = ("--type", "all", "--id", uuid("chat 0"))

OF_THE_PROGRAM: Mapping[str, Verb] = {
    "verify": Verb(("verify-consistency", *EVERYTHING), codes=(1,)),
    "verify and enqueue": Verb(("verify-consistency", *EVERYTHING, "--enqueue-repairs"), codes=(1,)),
    "verify what changed": Verb(("verify-consistency", *EVERYTHING, "--since", "last"), _verified, codes=(0, 1)),
    "verify one": Verb(("verify-consistency", *_ONE), codes=(1,)),
    "dry run": Verb((*_REBUILD, "--dry-run"), codes=(0, 1)),
    "in place": Verb(_REBUILD, again=_RESUME),
    "one": Verb(("rebuild-readmodel", *_ONE)),
    "shadow": Verb(_SHADOW, again=_RESUME),
    "resumed shadow": Verb((*_SHADOW, *_RESUME), VERBS["resumed shadow"].before),
    "roll back": Verb(("rebuilds", "rollback", "{id}", "--yes"), VERBS["rollback"].before, codes=(0, 1)),
    "abort": Verb(("rebuilds", "abort", "{id}"), VERBS["abort"].before, codes=(0, 1, 2)),
    "rebuilds": Verb(("rebuilds", "list"), VERBS["rollback"].before),
    "rebuild": Verb(("rebuilds", "show", "{id}"), VERBS["rollback"].before),
    "repair": Verb(("repair-queue", "work", "--once"), _queued),
    "queue": Verb(("repair-queue", "stats"), _queued),
    "tasks": Verb(("repair-queue", "list"), _queued),
    "requeue": Verb(("repair-queue", "requeue", "--all-failed"), _dead),
    "purge": Verb(("repair-queue", "purge", "--status", "failed", "--yes"), _dead),
    "leases": Verb(("leases", "list"), _leased),
    "break a lease": Verb(("leases", "break", _LEASE, "--yes"), _leased, codes=(0, 1, 2)),
    "indexes": Verb(("ensure-indexes",), lambda scene: scene.database.repair_queue.drop() or ""),
    "history": Verb(("history", *_ONE)),
    "doctor": Verb(("doctor",), codes=(0, 1)),
    "metrics": Verb(("metrics", "--once"), needs_a_server=False),
}
"""Every one that opens MongoDB and ends by itself; the services wait for as long as it takes."""


@dataclass(frozen=True)
class Loss:
    """A verb that is before the n-th command of its own when the majority is lost."""

    verb: str
    number: int


def losses(program: Program, them: ThreeMembers, *, most: int = sys.maxsize) -> list[Loss]:
    """One for each command that each verb sends; at most so many of a verb, spread over its work."""
    found: list[Loss] = []
    with _trials(program, them, [Loss(name, 0) for name in OF_THE_PROGRAM]) as trials:
        for trial in trials:
            trial.is_well()
            number = len(trial.stalled.sent)
            assert number
            times = min(most, number)
            found += [Loss(trial.loss.verb, 1 + int((each + 0.5) * number / times)) for each in range(times)]
    return found


class Trial:
    """One loss on a database of its own."""

    def __init__(self, program: Program, them: ThreeMembers, loss: Loss) -> None:
        self.loss, self.verb, self._program = loss, OF_THE_PROGRAM[loss.verb], program
        self.settings = Settings(mongodb_uri=SecretStr(them.uri), database=f"without_{ObjectId()}", grace_seconds=0)
        with open_database(self.settings) as database:
            self._id = self.verb.before(_damaged(Scene(database, self.settings)))
        self.stalled = self._start(loss.number)

    def _start(self, before: int = 0, *more: str) -> Stalled:
        words = [word.format(id=self._id) for word in (*self.verb.words, *more)]
        return self._program.start(words, {**environment_of(self.settings), **_WAITS}, before)

    def is_ready(self) -> bool:
        """It stands still, or was at its end before: threads of its own did not ask as often as they did before."""
        return self.stalled.stands_still or self.stalled.code is not None

    def is_well(self) -> None:
        """It ends as it does when nothing disturbs it."""
        wait_until(lambda: self.stalled.code is not None, _LONGEST)
        assert self.stalled.code in self.verb.codes, (self.loss, self.stalled.code, self.stalled.said)

    def ended_with_words(self) -> bool:
        """Whether it ended because there was no majority, in words; one that had all it needed ends well."""
        code, said = self.stalled.code, self.stalled.said
        assert code is not None, (self.loss, "it hangs", said)
        assert "Traceback" not in said, (self.loss, said)
        if not self.verb.needs_a_server:
            assert code == 0, (self.loss, said)
            return "readmodel_up 0" in said
        if code == 3:
            assert "MongoDB" in said, (self.loss, said)
            return True
        assert code in self.verb.codes, (self.loss, code, said)
        return False

    def begin_again(self) -> None:
        """Once there is a primary; nobody could give its leases back."""
        with open_database(self.settings) as database:
            expired(Scene(database, self.settings))
            database.repair_queue.update_many({}, {"$unset": {"next_attempt_at": ""}})
        self.stalled = self._start(0, *self.verb.again)

    def is_right(self) -> None:
        """Behind that, and a rebuild of what the verb does not mend."""
        self.is_well()
        with open_database(self.settings) as database:
            scene = Scene(database, self.settings)
            assert rebuild(database, self.settings, (), RebuildRequest()).ok
            assert scene.verify().ok
            assert leftovers(scene) == []
            database.client.drop_database(database.name)


def _damaged(scene: Scene) -> Scene:
    """Seven chats; of the documents one is wrong, one is missing, and one is nobody's."""
    scene.ensure_indexes()
    chats = [scene.chat(f"chat {number}") for number in range(_CHATS)]
    scene.build()
    scene.make_foreign()
    scene.chats.update_one({"chat_id": chats[0]}, {"$set": {"title": "damaged"}})
    scene.tasks.delete_one({"task_id": chats[1]})
    scene.chats.insert_one({"chat_id": uuid("nobody's"), "title": "no events"})
    return scene


@contextmanager
def _trials(program: Program, them: ThreeMembers, wanted: Sequence[Loss]) -> Iterator[list[Trial]]:
    trials: list[Trial] = []
    try:
        for loss in wanted:
            # One by one: those that were started are ended, whatever comes.
            trials.append(Trial(program, them, loss))  # noqa: PERF401
        yield trials
    finally:
        for trial in trials:
            trial.stalled.end()


@dataclass
class Told:
    """What came of losses: how many ended for one, and what is wrong."""

    ended: int = 0
    wrong: list[str] = field(default_factory=list)

    def of(self, trial: Trial, look: Callable[[], bool | None]) -> bool:
        """Whether nothing is wrong with one; the others are looked at all the same."""
        try:
            self.ended += bool(look())
        except Exception as error:  # noqa: BLE001 - whatever it is
            self.wrong.append(f"{trial.loss}: {error!r}")
            return False
        return True


def lost(program: Program, them: ThreeMembers, wanted: Sequence[Loss]) -> Told:
    """Lose the majority once for all of them."""
    told = Told()
    with _trials(program, them, wanted) as trials:
        wait_until(lambda: all(trial.is_ready() for trial in trials), _LONGEST)
        member = them.primary()
        with them.without_majority():
            them.write_hastily()
            for trial in trials[::2]:
                trial.stalled.let_go_on()
            wait_until(lambda: not member.is_primary())
            for trial in trials[1::2]:
                trial.stalled.let_go_on()
            with suppress(AssertionError):
                wait_until(lambda: all(trial.stalled.code is not None for trial in trials), _LONGEST)
            for trial in trials:
                trial.stalled.end()
        them.wait_until_whole()
        well = [trial for trial in trials if told.of(trial, trial.ended_with_words)]
        for trial in well:
            trial.begin_again()
        for trial in well:
            told.of(trial, trial.is_right)
    return told
