"""What the server cannot do ends a run in words, with an exit code of its own: never as if documents were wrong."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.errors import MongoFailed, MongoUnavailable
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.fenced import FencedCollection
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.rebuild import RebuildRequest, Slice, rebuild
from readmodel_pipelines.repair.repository import EventRepository, NewEvent
from readmodel_pipelines.repair.worker import RepairWorker
from readmodel_pipelines.verification.coverage import Coverage
from readmodel_pipelines.verification.verify import VerificationRequest, verify, verify_fresh
from readmodel_pipelines_tests.support.scene import Scene, found_in
from readmodel_pipelines_tests.support.servers.authorized import AuthorizedServer

Verb = Callable[[Scene], object]


def full(scene: Scene, **options: Any) -> object:
    return rebuild(scene.database, scene.settings, (), RebuildRequest(**options))


def look(scene: Scene, **options: Any) -> object:
    return verify(scene.database, scene.settings, (), VerificationRequest(**options))


def one_id(scene: Scene) -> str:
    return str(found_in(scene.events)["aggregate_id"])


def save(scene: Scene) -> object:
    new = NewEvent("chat.created", {"type": "task"})
    return EventRepository(scene.database, scene.settings).save(str(uuid.uuid4()), "chat", [new], expected_version=0)


VERBS: dict[str, Verb] = {
    "verify": look,
    "verify by versions": lambda scene: look(scene, tier="versions"),
    "verify what changed": lambda scene: look(scene, coverage=Coverage(since_last=True)),
    "verify what is fresh": lambda scene: verify_fresh(scene.database, scene.settings, ()),
    "verify one": lambda scene: scene.projector().verify_consistency(one_id(scene)),
    "dry run": lambda scene: scene.projector().rebuild_all(dry_run=True),
    "rebuild in place": full,
    "rebuild in a shadow": lambda scene: full(scene, strategy="shadow"),
    "rebuild a slice": lambda scene: full(scene, slice=Slice(1, 2)),
    "rebuild one": lambda scene: scene.projector().rebuild_one(one_id(scene)),
    "project an event": lambda scene: scene.projector().process_event(dict(found_in(scene.events))),
    "repair": lambda scene: RepairWorker(scene.database, scene.settings).work(),
}


@pytest.fixture
def troubled(authorized: AuthorizedServer) -> Iterator[Scene]:
    """Three chats, of which one document is missing, one wrong, one too many, and a repair that waits."""
    # What shuts down is waited for.
    uri = f"{authorized.uri}&serverSelectionTimeoutMS=100"
    settings = authorized.settings(uri, database=f"trouble_{uuid.uuid4().hex[:8]}", failover_seconds=0)
    with open_database(settings) as database:
        scene = Scene(database, settings)
        scene.ensure_indexes()
        first, second, _ = (scene.chat(name) for name in ("one", "two", "three"))
        scene.build()
        scene.chats.update_one({"chat_id": first}, {"$set": {"title": "wrong"}})
        scene.tasks.delete_one({"task_id": second})
        scene.chats.insert_one({"chat_id": str(uuid.uuid4())})
        RepairQueue(database, settings).add(first, "chat")
        yield scene
    authorized.client.drop_database(settings.database)


def ends(scene: Scene, verb: Verb) -> MongoUnavailable | None:
    """How a verb ends, as a command or a run of Dagster's opens the database."""
    try:
        with open_database(scene.settings) as database:
            verb(Scene(database, scene.settings))
    except MongoUnavailable as error:
        return error
    return None


# Codes of the server: a shard without a primary, no host, stepping down and shutting down are no server that answers.
@pytest.mark.parametrize("code", [133, 6, 91, 189, 10107, 11600])
def test_no_server_that_could_do_it_is_exit_code_3_whichever_verb(
    authorized: AuthorizedServer, troubled: Scene, code: int
) -> None:
    verbs = {name: verb for name, verb in VERBS.items() if name in ("verify", "rebuild in place", "repair")}
    with authorized.failing(code, "find", "aggregate"):
        for name, verb in verbs.items():
            error = ends(troubled, verb)
            assert (type(error), error and error.exit_code) == (MongoUnavailable, 3), name


# Full disk, killed, too long, no cursor, no memory, no confirmation.
@pytest.mark.parametrize("code", [14031, 11601, 50, 43, 292, 64])
def test_a_server_that_answers_and_cannot_is_exit_code_4_whichever_verb(
    authorized: AuthorizedServer, troubled: Scene, code: int
) -> None:
    verbs = VERBS if code == 11601 else {name: VERBS[name] for name in ("verify", "rebuild in a shadow", "repair")}
    before = troubled.contents("chats_read_model")
    with authorized.failing(code, "find", "aggregate"):
        for name, verb in verbs.items():
            error = ends(troubled, verb)
            assert (type(error), error and error.exit_code) == (MongoFailed, 4), name
            assert f"error {code}" in str(error)
    assert troubled.contents("chats_read_model") == before


@pytest.mark.parametrize(
    ("command", "code"),
    [
        *((command, 14031) for command in ("update", "insert", "findAndModify", "getMore", "create", "createIndexes")),
        *((command, 13) for command in ("update", "findAndModify")),
    ],
)
def test_whatever_is_asked_for_may_fail_and_no_verb_takes_it_for_a_wrong_document(
    authorized: AuthorizedServer, troubled: Scene, command: str, code: int
) -> None:
    wanted = {None, MongoFailed} if code == 14031 else {None, MongoUnavailable}
    ended: dict[str, object] = {}
    with authorized.failing(code, command):
        for name, verb in VERBS.items():
            error = ends(troubled, verb)
            ended[name] = error and type(error)
    assert set(ended.values()) <= wanted, ended
    if command in ("update", "findAndModify"):
        assert ended["rebuild in place"] is not None


@pytest.mark.each_once
@pytest.mark.parametrize("verb", ["rebuild one", "rebuild in a shadow"])
@pytest.mark.parametrize(("where", "code"), [("writeErrors", 14031), ("writeConcernErrors", 64)])
def test_what_the_server_says_of_single_writes_or_of_their_confirmation_blames_no_document(
    troubled: Scene, monkeypatch: pytest.MonkeyPatch, verb: str, where: str, code: int
) -> None:
    counts = dict.fromkeys(("nInserted", "nMatched", "nModified", "nRemoved", "nUpserted"), 0)
    error = {"index": 0, "code": code, "errmsg": "No space left on device"}
    details: dict[str, Any] = {**counts, "writeErrors": [], "writeConcernErrors": [], where: [error]}
    original = Collection.bulk_write

    def bulk_write(collection: Collection[Any], *args: Any, **options: Any) -> Any:
        if "s_read_model" in collection.name:
            raise BulkWriteError(details)
        return original(collection, *args, **options)

    for kind in (Collection, FencedCollection):
        monkeypatch.setattr(kind, "bulk_write", bulk_write)
    assert type(ends(troubled, VERBS[verb])) is MongoFailed


def test_an_operation_that_somebody_kills_is_told_and_the_next_run_goes_on(
    authorized: AuthorizedServer, troubled: Scene
) -> None:
    with authorized.failing(11601, "update"):
        assert type(ends(troubled, full)) is MongoFailed
    with open_database(troubled.settings) as database:
        assert rebuild(database, troubled.settings, (), RebuildRequest(resume=True)).ok
        assert ReadModelProjector(database, troubled.settings).verify_all().ok
