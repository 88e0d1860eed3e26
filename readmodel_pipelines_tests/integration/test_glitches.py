"""A glitch is not an end: lost connections, killed operations and lost cursors cost a verb nothing but a moment."""

import os
import random
import uuid
from collections.abc import Iterator

import bson
import pytest
from bson import ObjectId
from bson.raw_bson import RawBSONDocument

from readmodel_pipelines.errors import MongoFailed, MongoUnavailable
from readmodel_pipelines.mongo import patience
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.driver import Collection
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.patience import repeats
from readmodel_pipelines.mongo.read_model import ReadModelCollection
from readmodel_pipelines.projections.registry import choose_projections
from readmodel_pipelines.repair.worker import RepairWorker
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.environment import name_database
from readmodel_pipelines_tests.support.scene import Scene, event
from readmodel_pipelines_tests.support.servers.authorized import AuthorizedServer
from readmodel_pipelines_tests.support.servers.faulty_line import Cut, FaultyLine, faulty_line
from readmodel_pipelines_tests.support.trials.glitches import VERBS, cuts_of, over, run, small_steps
from readmodel_pipelines_tests.support.verbs.command_line import readmodel
from readmodel_pipelines_tests.support.verbs.repairing import break_all, leases, put, task

SEED = int(os.environ.get("READMODEL_TEST_SEED") or random.randrange(2**31))
_TRIALS = 4


@pytest.fixture(scope="module")
def line(mongodb_uri: str) -> Iterator[FaultyLine]:
    with faulty_line(mongodb_uri) as running:
        yield running


def test_a_verb_ends_as_if_nothing_had_happened_wherever_its_line_is_cut(line: FaultyLine, mongodb_uri: str) -> None:
    """The whole table is in `soak/`."""
    chance, server = random.Random(SEED), Settings(mongodb_uri=mongodb_uri, failover_seconds=30)
    for verb in chance.sample(sorted(VERBS), _TRIALS):
        calm = run(line, server, verb)
        cut = chance.choice(list(cuts_of(calm)))
        ended = run(line, server, verb, cut)
        assert (ended.given, ended.lies) == (calm.given, calm.lies), (SEED, verb, cut)


def test_each_repair_counts_once_whichever_reply_is_lost(line: FaultyLine, scene: Scene) -> None:
    scene.ensure_indexes()
    ids = [scene.chat(name) for name in ("one", "two", "three")]
    with open_database(over(line, scene.settings)) as database:

        def repairs(cut: Cut | None) -> None:
            scene.build()
            break_all(scene)
            put(scene, *(task(chat_id) for chat_id in (*ids, ids[0])))
            with line.cut(cut):
                summary = RepairWorker(database, scene.settings).work()
            ended = (summary.claimed, summary.completed, summary.lost, summary.ok)
            assert ended == (4, 4, 0, True), cut
            assert leases(scene) == [], cut

        repairs(None)
        commands = {command: line.seen[command] for command in ("insert", "update", "delete")}
        assert all(commands.values())
        for command, number in commands.items():
            for place in range(1, number + 1):
                repairs(Cut(command, place, "reply", 5))
                assert line.cuts


@pytest.mark.parametrize("one_is_refused", [False, True])
def test_each_change_counts_once_whichever_reply_is_lost(line: FaultyLine, scene: Scene, one_is_refused: bool) -> None:
    chats = scene.fill(20)
    if one_is_refused:
        # What is there already may stay as it is.
        right = scene.chats.find_one({"chat_id": chats[0]}) or {}
        scene.database.command("collMod", "chats_read_model", validator={"title": {"$ne": right["title"]}})
    with open_database(over(line, scene.settings)) as database:
        far = Scene(database, over(line, scene.settings))

        def rebuilds(cut: Cut | None) -> None:
            scene.chats.update_many({}, {"$set": {"title": "wrong"}})
            scene.chats.update_many({"chat_id": {"$in": chats[::3]}}, {"$unset": {"created_by": ""}})
            with line.cut(cut):
                counts = far.rebuild("chat").read_models["chats_read_model"]
            ended = (counts.different, counts.replaced, counts.superseded, counts.failed)
            assert ended == (len(chats), len(chats) - one_is_refused, 0, one_is_refused), cut

        rebuilds(None)
        for place in range(1, line.seen["update"] + 1):
            rebuilds(Cut("update", place, "reply", 2))
            assert line.cuts


def test_a_reading_goes_on_where_it_was_whatever_keys_lie_there(line: FaultyLine, scene: Scene) -> None:
    scene.events.create_index([("aggregate_id", 1), ("version", 1)])
    for name in ("a", "b", "c", "d", "e"):
        scene.stream(name, "Chat", *[("chat.renamed", {"new_title": name})] * 7)
    for odd in (b"b", b"c\xff"):
        _put_as(scene, odd, 0x0E if odd == b"b" else 0x02)
    fold = choose_projections(scene.settings, ["chat"])[0].fold
    over_the_line = over(line, scene.settings)
    with small_steps(), open_database(over_the_line) as database:
        store = EventStore(Collection(database, scene.events.name))
        with line.cut(None):
            wanted = list(map(repr, store.read(fold)))
            batches = line.seen["getMore"]
        assert len(wanted) == 5 * 7 + 2 * 3
        assert batches > 2
        for number in range(1, batches + 1):
            with line.cut(Cut("getMore", number, "reply")):
                assert list(map(repr, store.read(fold))) == wanted, number
                assert line.cuts == 1


def _put_as(scene: Scene, key: bytes, kind: int) -> None:
    """Three events of a stream whose id is of another type, or no text."""
    for version in range(1, 4):
        placeholder = "x" * len(key)
        raw = bson.encode(event(placeholder, "Chat", version, "chat.renamed", {"new_title": "odd"}))
        text = b"\x02aggregate_id\x00" + len(key + b"\0").to_bytes(4, "little")
        old, new = text + placeholder.encode() + b"\0", bytes([kind]) + text[1:] + key + b"\0"
        assert old in raw
        scene.raw(scene.events.name).insert_one(RawBSONDocument(raw.replace(old, new)))


# A cursor that is lost, an operation that is killed, a primary that steps down: more often than the driver tries.
@pytest.mark.parametrize(
    ("code", "commands"),
    [
        (43, ("getMore",)),
        (11601, ("find", "aggregate", "insert", "update", "findAndModify", "getMore")),
        (189, ("find", "aggregate", "insert", "update", "findAndModify")),
    ],
)
def test_what_the_server_breaks_off_is_asked_for_again(
    authorized: AuthorizedServer, code: int, commands: tuple[str, ...]
) -> None:
    # A server that says that it is no primary, and is one, is believed until it is looked at next.
    soon = f"{authorized.uri}&heartbeatFrequencyMS=500"
    settings = authorized.settings(soon, database=f"glitch_{uuid.uuid4().hex[:8]}", failover_seconds=60)
    with small_steps(), open_database(settings) as database:
        scene = Scene(database, settings)
        chats = scene.fill(12)
        scene.chats.update_one({"chat_id": chats[3]}, {"$set": {"title": "wrong"}})
        for command in commands:
            with authorized.failing(code, command, times=5):
                assert scene.verify().read_models["chats_read_model"].different == 1, command
        with authorized.failing(code, *commands, times=5):
            summary = scene.rebuild(strategy="shadow")
        assert (summary.ok, summary.read_models["chats_read_model"].replaced) == (True, 1)
        assert scene.verify().ok
        authorized.client.drop_database(settings.database)


def test_what_does_not_pass_in_time_ends_a_verb_in_words_and_says_that_it_would(authorized: AuthorizedServer) -> None:
    settings = authorized.settings(database=f"glitch_{uuid.uuid4().hex[:8]}", failover_seconds=0.2)

    def look() -> None:
        with open_database(settings) as database:
            database.command("ping")
            Scene(database, settings).verify()

    with authorized.failing(11601, "find"), pytest.raises(MongoFailed) as ended:
        look()
    assert ended.value.passes


def test_a_command_says_that_it_waits_and_ends_as_ever(
    authorized: AuthorizedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_WORTH_TELLING", 0.0)
    settings = authorized.settings(database=f"glitch_{uuid.uuid4().hex[:8]}")
    name_database(monkeypatch, settings)
    with open_database(settings) as database:
        Scene(database, settings).fill(4)
    look = ("verify-consistency", "--type", "all", "--all", "--json")
    calm = readmodel(*look)
    with authorized.failing(11601, "getMore", "find", times=3):
        ended = readmodel(*look)
    authorized.client.drop_database(settings.database)
    assert (ended.exit_code, calm.exit_code) == (0, 0)
    assert len(ended.stderr.splitlines()) > len(calm.stderr.splitlines())


def test_nobody_waits_at_a_wrong_address() -> None:
    settings = Settings(
        mongodb_uri=f"mongodb://%2Fnowhere%2F{ObjectId()}.sock/?serverSelectionTimeoutMS=100", failover_seconds=86_400
    )
    with pytest.raises(MongoUnavailable) as ended, open_database(settings) as database:
        database.command("ping")
    assert not ended.value.passes


def test_a_line_that_falls_silent_is_given_up_where_the_address_says_when(line: FaultyLine, scene: Scene) -> None:
    scene.fill(6)
    silent = over(line, scene.settings, "&socketTimeoutMS=200")
    with open_database(silent) as database, line.cut(Cut("find", 5, "silence")):
        assert Scene(database, silent).verify().ok
        assert line.cuts == 1


def test_a_read_model_that_is_renamed_over_in_the_middle_of_a_read_is_read_on(scene: Scene) -> None:
    chats = scene.fill(12)
    model = ReadModelCollection(scene.chats, choose_projections(scene.settings, ["chat"])[0])
    scene.chats.aggregate([{"$out": "other"}])
    scene.database.other.create_index("chat_id", unique=True, name="chat_id_1")
    with small_steps():
        read, asked = model.stored(), repeats()
        first = next(read)
        scene.database.other.rename("chats_read_model", dropTarget=True)
        assert [document["chat_id"] for document in [first, *read]] == chats
    assert repeats() > asked
