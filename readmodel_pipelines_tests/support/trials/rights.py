"""Every command that opens the database, as docs/rights.md lists them, tried by a user with rights of a test's choice.

A trial sets its scene as the administrator and yields command lines, each with the exit code that it ends with when
all rights are there. It reaches every statement that its commands may send to the server.
"""

from __future__ import annotations

import gzip
import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from bson import json_util
from pymongo.errors import OperationFailure
from typer.testing import CliRunner

from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.cli.main import app
from readmodel_pipelines.demo.damage import swap_chat_ids
from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.moments import Moment, listening
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.names import copy_names, shadow_names
from readmodel_pipelines.mongo.rights import privileges, role_named
from readmodel_pipelines.mongo.wanted_indexes import wanted_indexes
from readmodel_pipelines.reconcile.ranges import EVERYTHING
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.at_a_moment import each
from readmodel_pipelines_tests.support.built import fence
from readmodel_pipelines_tests.support.recorded import EXTENDED_JSON
from readmodel_pipelines_tests.support.scene import Document, Mongo, Scene, taken_from
from readmodel_pipelines_tests.support.servers.authorized import AuthorizedServer, Privilege
from readmodel_pipelines_tests.support.verbs.verifying import RENAMED

Command = tuple[list[str], int]

NOBODY = "00000000-0000-4000-8000-00000000dead"
EVENTS = list(chat_events(9, seed=5, mean_events=5))
VERIFY = ["verify-consistency", "--type", "all", "--all"]
REBUILD = ["rebuild-readmodel", "--type", "all", "--all"]
LACKING = ("may not", "not authorized", "not fully watched", "no unique index")
"""What a command says that goes without a right."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended, and whether it did what it was to do with all rights."""

    arguments: list[str]
    code: int
    wanted: int
    said: str

    @property
    def well(self) -> bool:
        """Did all, and warned of nothing."""
        return self.code == self.wanted and not any(word in self.said for word in LACKING)


class RightsScene(Scene):
    """On a server that knows its users; opened by the administrator, and right but for what a trial damages."""

    def __init__(self, database: Mongo, settings: Settings, server: AuthorizedServer, folder: Path) -> None:
        super().__init__(database, settings)
        self.server, self.folder, self.listeners = server, folder, ExitStack()

    def privileges_of(self, *roles: str) -> list[Privilege]:
        """Those of roles, for this database."""
        return [item for role in roles for item in privileges(role_named(role), self.settings)]

    def outcomes(self, trial: Trial, uri: str) -> Iterator[Outcome]:
        """Play a trial as that user, one command after the other."""
        self.database.client.drop_database(self.settings.database)
        with self.listeners:
            for arguments, wanted in trial.play(self):
                code, said = self.command(uri, arguments)
                yield Outcome(arguments, code, wanted, said)
        self.database.client.drop_database(self.settings.database)

    def command(self, uri: str, arguments: list[str]) -> tuple[int, str]:
        """The exit code and all that was said; a bug is raised."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("READMODEL_MONGODB_URI", uri)
            patch.setenv("READMODEL_DATABASE", self.settings.database)
            # No clock is late here.
            patch.setenv("READMODEL_GRACE_SECONDS", "0")
            result = CliRunner().invoke(app, arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout + result.stderr

    def fill(self, streams: int = 12, seed: int = 5) -> list[str]:
        """Gives the ids of the chats that are tasks."""
        super().fill(streams, seed)
        return sorted(item["task_id"] for item in self.tasks.find())

    def damage(self) -> list[str]:
        """One document wrong, one missing, one that nobody wants."""
        ids = self.fill()
        for collection in (self.chats, self.tasks):
            collection.update_one({"chat_id": ids[0]}, {"$set": {"title": "damaged"}})
            collection.delete_one({"chat_id": ids[1]})
            collection.insert_one({"chat_id": NOBODY, "task_id": NOBODY})
        return ids

    def queue(self, *ids: str) -> None:
        """A task for each; one for an aggregate that nobody knows when none is named."""
        queue = RepairQueue(self.database, self.settings)
        for aggregate_id in ids or (NOBODY,):
            queue.add(aggregate_id, "chat", "it broke")

    def unfinished(self) -> str:
        """A rebuild in a shadow that was killed once it had made its copies; gives its id."""
        rebuilds, names = Rebuilds(self.database), ["chats_read_model", "tasks_read_model"]
        about = {"strategy": "shadow", "read_models": names, "names": ["chat", "task"]}
        record = rebuilds.begin("0123456789ab", about, [(1, EVERYTHING)])
        for name in names:
            for made in (shadow_names(name)[0], copy_names(name)[0]):
                self.database.create_collection(made)
        copies = {name: fence(self.database, copy_names(name)[0]).identity for name in names}
        rebuilds.note(record, copies=copies, copy_token=None)
        return record.id

    def built(self) -> list[str]:
        """Shadows and copies."""
        made = ("readmodel_shadow", "readmodel_before")
        return [name for name in self.database.list_collection_names() if name.startswith(made)]

    def at(self, moment: Moment, act: Callable[..., object]) -> None:
        """Meanwhile, in each command of the trial from here on."""
        self.listeners.enter_context(listening(moment, act))

    def other_expiry(self) -> None:
        """Indexes that let documents expire, as another version of the settings made them."""
        for name, indexes in wanted_indexes(self.settings).items():
            for index in indexes:
                if index.expire_seconds is not None:
                    with suppress(OperationFailure):
                        self.database[name].drop_index(index.name or "")
                    # With documents in it a driver's own would wait for ever (`mongo/index_builds.py`).
                    own = {**index.options, "expireAfterSeconds": 77}
                    self.collection(name).create_index(list(index.key), **own)

    def write(self, name: str, documents: list[Document]) -> None:
        """A file to load."""
        with gzip.open(self.folder / f"{name}.jsonl.gz", "wt") as lines:
            lines.writelines(f"{json_util.dumps(item, json_options=EXTENDED_JSON)}\n" for item in documents)


@contextmanager
def rights_scene(server: AuthorizedServer, folder: Path) -> Iterator[RightsScene]:
    settings = server.settings(database=f"test_{uuid.uuid4().hex[:8]}")
    with open_database(settings) as database:
        yield RightsScene(database, settings, server, folder)


@dataclass(frozen=True)
class Trial:
    """A row of the table in docs/rights.md: its commands, the role, and what is played."""

    documented: str
    role: str
    play: Callable[[RightsScene], Iterator[Command]]


# What only looks


def _verify_one(scene: RightsScene) -> Iterator[Command]:
    (wrong, *_) = scene.damage()
    yield ["verify-consistency", "--type", "all", "--id", wrong], 1


def _verify_read_only(scene: RightsScene) -> Iterator[Command]:
    scene.damage()
    assert scene.command(scene.server.uri, VERIFY)[0] == 1
    report = ["--report", str(scene.folder / "report.json")]
    for more in ([], ["--tier", "versions"], ["--sample", "1000"], ["--bucket", "1/2"], ["--since", "last"], report):
        yield [*VERIFY, "--read-only", *more], 1


def _dry_run(scene: RightsScene) -> Iterator[Command]:
    (wrong, *_) = scene.damage()
    yield [*REBUILD, "--dry-run"], 0
    yield ["rebuild-readmodel", "--type", "all", "--id", wrong, "--dry-run"], 0


def _look_at_rebuilds(scene: RightsScene) -> Iterator[Command]:
    scene.fill()
    record = scene.unfinished()
    yield ["rebuilds", "list"], 0
    yield ["rebuilds", "show", record], 0
    yield ["leases", "list"], 0


def _look_at_history(scene: RightsScene) -> Iterator[Command]:
    (wrong, *_) = scene.damage()
    yield ["history", "--type", "all", "--id", wrong], 0


def _look_at_findings(scene: RightsScene) -> Iterator[Command]:
    scene.damage()
    assert scene.command(scene.server.uri, VERIFY)[0] == 1
    yield ["findings", "list"], 0
    yield ["status"], 0


def _ignore(scene: RightsScene) -> Iterator[Command]:
    (wrong, *_) = scene.damage()
    known = ["--id", wrong, "--reason", "known", "--until", "2999-12-31"]
    yield ["findings", "ignore", "--type", "chat", *known], 0
    rule = scene.database.readmodel_ignored.find_one({}) or {"_id": "none was made"}
    yield ["findings", "unignore", rule["_id"]], 0


def _look_at_queue(scene: RightsScene) -> Iterator[Command]:
    scene.queue()
    yield ["repair-queue", "stats"], 0
    yield ["repair-queue", "list"], 0


def _look_at_everything(scene: RightsScene) -> Iterator[Command]:
    scene.fill()
    scene.ensure_indexes()
    assert scene.command(scene.server.uri, VERIFY)[0] == 0
    yield ["metrics", "--once"], 0
    yield ["doctor", "--for", "read_only"], 0


# Verifications that remember


def _verify(scene: RightsScene) -> Iterator[Command]:
    (wrong, *_) = scene.damage()
    report = ["--report", str(scene.folder / "report.json")]
    yield VERIFY, 1
    scene.append(wrong, RENAMED)
    # Findings are seen anew, are as before, and are gone.
    yield [*VERIFY, "--since", "last", *report], 1
    assert scene.rebuild().ok
    yield [*VERIFY, "--bucket", "1/1"], 0
    yield VERIFY, 0


def _enqueue(scene: RightsScene) -> Iterator[Command]:
    scene.damage()
    yield [*VERIFY, "--enqueue-repairs"], 1


# What writes read models


def _rebuild_one(scene: RightsScene) -> Iterator[Command]:
    wrong, missing, *_ = scene.damage()
    for aggregate_id in (wrong, missing, NOBODY):
        yield ["rebuild-readmodel", "--type", "all", "--id", aggregate_id], 0


def _repair(scene: RightsScene) -> Iterator[Command]:
    wrong, missing, *_ = scene.damage()
    scene.queue(wrong, missing, NOBODY, str(uuid.uuid4()))
    yield ["repair-queue", "work", "--once"], 1


def _end_tasks(scene: RightsScene) -> Iterator[Command]:
    scene.queue(NOBODY)
    scene.database.repair_queue.update_many({}, {"$set": {"status": "failed"}})
    yield ["repair-queue", "requeue", "--all-failed"], 0
    yield ["repair-queue", "requeue", "--id", "nothing"], 2
    yield ["repair-queue", "purge", "--status", "failed", "--yes"], 0


def _rebuild(scene: RightsScene) -> Iterator[Command]:
    ids = scene.damage()
    scene.unfinished()
    scene.at(Moment.FINISH, each(lambda: scene.append(ids[2], RENAMED)))
    swap_chat_ids(scene.database.tasks_read_model, ids[2], ids[3])
    yield REBUILD, 0
    assert not scene.built(), "the shadow and the copy of the one that nobody goes on with"
    for name, indexes in (("chats_read_model", 2), ("tasks_read_model", 3)):
        scene.database.drop_collection(name)
        yield REBUILD, 0
        assert len(scene.database[name].index_information()) == indexes
    for part in ("1/2", "2/2"):
        yield ["rebuild-readmodel", "--type", "task", "--all", "--slice", part], 0


def _shadow(scene: RightsScene) -> Iterator[Command]:
    ids, lives = scene.damage(), (scene.chats, scene.tasks)

    def meanwhile() -> None:
        scene.append(ids[2], RENAMED)
        lives[0].update_many({}, {"$set": {"noted": 1}})

    def redefine(live: str, index: str) -> None:
        """Whoever owns it takes back an index, and changes the validator."""
        scene.database.command("collMod", live, validator={"chat_id": {"$ne": index}}, validationAction="warn")
        with suppress(OperationFailure):
            scene.database[live].drop_index(index)

    def late(live: str) -> None:
        scene.database[live].update_one({"chat_id": ids[0]}, {"$set": {"late": 1}})
        redefine(live, "late")

    for live in lives:
        for index in ("early", "late"):
            live.create_index(index, name=index)
        # The server copies no document of this kind by itself.
        live.insert_one({**taken_from(live, {"chat_id": ids[4]}), "_id": None})
    scene.at(Moment.COPY_MADE, each(lambda: [redefine(live.name, "early") for live in lives]))
    scene.at(Moment.FINISH, each(meanwhile))
    scene.at(Moment.SWAP, late)
    yield [*REBUILD, "--strategy", "shadow"], 0
    assert [live.count_documents({"late": 1}) for live in lives] == [1, 1]
    assert not any({"early", "late"} & live.index_information().keys() for live in lives)
    assert all(live.options()["validator"] == {"chat_id": {"$ne": "late"}} for live in lives)
    assert len(scene.built()) == 2, "the copies of what was before"
    # A malformed stream is carried over; what is lost right before the swap has everything looked at again.
    scene.database.events.update_one({"aggregate_id": ids[3]}, {"$set": {"data": "damaged"}})
    scene.at(Moment.SWAP, each(lambda: scene.database.events.delete_many({"aggregate_id": ids[0]})))
    yield [*REBUILD, "--strategy", "shadow"], 1
    assert [live.count_documents({"chat_id": {"$in": [ids[0], ids[3]]}}) for live in lives] == [1, 1]


def _abort(scene: RightsScene) -> Iterator[Command]:
    scene.fill()
    yield ["rebuilds", "abort", scene.unfinished()], 0
    assert not scene.built()


def _break_lease(scene: RightsScene) -> Iterator[Command]:
    scene.database.readmodel_leases.insert_one({"_id": "dead", "nonce": "x", "expires_at": datetime.now(UTC)})
    yield ["leases", "break", "dead", "--yes"], 0


def _roll_back(scene: RightsScene) -> Iterator[Command]:
    ids = scene.damage()
    assert scene.command(scene.server.uri, [*REBUILD, "--strategy", "shadow"])[0] == 0
    scene.append(ids[0], RENAMED)
    record = scene.database.readmodel_rebuilds.find_one({"state": "done"}) or {}
    # What it puts back was damaged.
    yield ["rebuilds", "rollback", record["_id"], "--yes"], 1
    assert not scene.built()


# What prepares a database


def _make_indexes(scene: RightsScene) -> Iterator[Command]:
    yield ["ensure-indexes"], 0
    scene.other_expiry()
    yield ["ensure-indexes"], 0


def _load(scene: RightsScene) -> Iterator[Command]:
    scene.write("events", EVENTS)
    for name in ("chats_read_model", "tasks_read_model"):
        scene.write(name, [{"chat_id": NOBODY, "task_id": NOBODY}])
    scene.write("repair_queue", [{"status": "pending"}])
    yield ["load", str(scene.folder)], 0
    scene.other_expiry()
    yield ["load", str(scene.folder)], 0


TRIALS = (
    Trial("verify-consistency --id", "read_only", _verify_one),
    Trial("verify-consistency --all --read-only", "read_only", _verify_read_only),
    Trial("rebuild-readmodel --dry-run", "read_only", _dry_run),
    Trial("history", "read_only", _look_at_history),
    Trial("rebuilds list, rebuilds show, leases list", "read_only", _look_at_rebuilds),
    Trial("findings list, status", "read_only", _look_at_findings),
    Trial("repair-queue stats, repair-queue list", "read_only", _look_at_queue),
    Trial("doctor, metrics", "read_only", _look_at_everything),
    Trial("verify-consistency --all", "verify", _verify),
    Trial("findings ignore, findings unignore", "verify", _ignore),
    Trial("verify-consistency --all --enqueue-repairs", "enqueue", _enqueue),
    Trial("rebuild-readmodel --id", "rebuild_one", _rebuild_one),
    Trial("repair-queue work", "repair", _repair),
    Trial("repair-queue requeue, repair-queue purge", "queue", _end_tasks),
    Trial("rebuild-readmodel --all", "rebuild", _rebuild),
    Trial("rebuilds abort", "rebuild", _abort),
    Trial("leases break", "rebuild", _break_lease),
    Trial("rebuild-readmodel --all --strategy shadow", "shadow", _shadow),
    Trial("rebuilds rollback", "shadow", _roll_back),
    Trial("ensure-indexes", "indexes", _make_indexes),
    Trial("load", "load", _load),
)


def needless(scene: RightsScene, held: Sequence[Privilege], beside: Sequence[Privilege], *roles: str) -> list[str]:
    """Rights without which every command of these roles does all that it did; `beside` is never taken away."""
    reduced = scene.server.role([])
    uri = scene.server.user_with([reduced])
    trials = [trial for trial in TRIALS if trial.role in roles]
    found = []
    for name, alike in _by_pool(held).items():
        for action in alike[0]["actions"]:
            kept = [{**item, "actions": [other for other in item["actions"] if other != action]} for item in alike]
            others = [item for item in (*held, *beside) if not any(item is one for one in alike)]
            scene.server.change(reduced, [*others, *(item for item in kept if item["actions"])])
            if all(_as_before(outcome) for trial in trials for outcome in scene.outcomes(trial, uri)):
                found.append(f"{action} on {name}")
    return found


def _by_pool(held: Sequence[Privilege]) -> dict[str, list[Privilege]]:
    """Those on the names of one pool together: which of them a shadow or copy gets is chance."""
    pools: dict[str, list[Privilege]] = defaultdict(list)
    for privilege in held:
        name = privilege["resource"].get("collection", "the server")
        pools[re.sub(r"^(readmodel_(shadow|before))\d*_", r"\1_", name)].append(privilege)
    return pools


def _as_before(outcome: Outcome) -> bool:
    # It is told of every right that is lacking; what it could not look at is what it needed one for.
    return "may not read" not in outcome.said if outcome.arguments[0] == "doctor" else outcome.well
