"""The connection: concerns that a URI cannot weaken, errors in words, and never a credential."""

import traceback
import uuid
from contextlib import suppress

import pytest
from pydantic import SecretStr
from pymongo.errors import AutoReconnect, OperationFailure, WriteError
from pymongo.read_preferences import ReadPreference

from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.demo.damage import swap_chat_ids
from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.doctor.check import Health
from readmodel_pipelines.doctor.examine import examine
from readmodel_pipelines.errors import MongoUnavailable, ServerTooOld, UsageError
from readmodel_pipelines.metrics.scrape import Scrape
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.indexes import ensure_indexes
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.rebuild import RebuildRequest, rebuild
from readmodel_pipelines.repair.repository import EventRepository, NewEvent
from readmodel_pipelines.repair.worker import RepairWorker
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.verification.coverage import Coverage
from readmodel_pipelines.verification.verify import VerificationRequest, verify, verify_fresh
from readmodel_pipelines_tests.support.scene import Mongo


def settings_for(uri: str) -> Settings:
    return Settings(mongodb_uri=SecretStr(uri))


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize(
    "uri",
    [
        "http://ann:hush@host",
        "mongodb://",
        "mongodb://ann:hush@",
        "mongodb://ann:hush@host:99999",
        "mongodb://ann:hush@host:port",
        "mongodb://ann:h/ush@host/db",
        "mongodb://ann:h@ush@host",
        "mongodb://ann:h%zzush@host",
        "mongodb://ann:h?ush@host",
        "mongodb://ann:hush@[::1",
        "ann:hush@host",
        "mongodb://ann:hush",
        "mongodb://ann:hush@host/?tls=true&tlsCAFile=/no/such/file",
        f"mongodb://ann:hush@host/?tls=true&tlsCAFile={__file__}",
    ],
)
def test_a_connection_string_that_cannot_be_read_is_a_usage_error_without_credentials(uri: str) -> None:
    settings = settings_for(uri)
    with pytest.raises(UsageError) as refused, open_database(settings):
        raise AssertionError("opened")
    for text in (str(refused.value), settings.shown_uri(), repr(settings), repr(refused.value)):
        assert not any(piece in text for piece in ("hush", "ush", "h/u", "ann:")), text
    assert refused.value.exit_code == 2
    assert "READMODEL_MONGODB_URI" in str(refused.value)


@pytest.mark.parametrize(
    ("host", "options"),
    [
        ("127.0.0.1:1", ""),
        ("127.0.0.1:1", "&directConnection=true"),
        ("127.0.0.1:1", "&replicaSet=rs0"),
        ("no.invalid", ""),
    ],
    ids=["plain", "direct", "replica_set", "unknown_host"],
)
def test_a_server_that_does_not_answer_is_unavailable(host: str, options: str) -> None:
    settings = settings_for(f"mongodb://ann:hush@{host}/?serverSelectionTimeoutMS=300{options}")
    with pytest.raises(MongoUnavailable) as unavailable, open_database(settings) as database:
        database.command("ping")
    assert unavailable.value.exit_code == 3
    assert host in str(unavailable.value)
    assert "hush" not in shown(unavailable.value)
    assert "ann" not in str(unavailable.value)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OperationFailure("not authorized on flowra", 13), "not authorized"),
        (OperationFailure("Authentication failed.", 18), "authentication failed"),
        (OperationFailure("bad auth : hush", 8000), "authentication failed"),
        (AutoReconnect("connection closed, was ann:hush"), "does not answer"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_server_refuses_in_the_middle_comes_out_in_words(error: Exception, said: str) -> None:
    settings = settings_for("mongodb://ann:hush@127.0.0.1:1/?serverSelectionTimeoutMS=50")
    with pytest.raises(MongoUnavailable, match=said) as unavailable, open_database(settings):
        raise error
    assert "hush" not in str(unavailable.value)
    assert unavailable.value.hint


@pytest.mark.parametrize("error", [WriteError("E11000", 11000), OperationFailure("no", 2), RuntimeError("x")], ids=repr)
def test_other_errors_pass_as_they_are(settings: Settings, error: Exception) -> None:
    with pytest.raises(type(error)) as passed, open_database(settings):
        raise error
    assert passed.value is error


def test_a_uri_cannot_weaken_reads_and_writes(mongodb_uri: str) -> None:
    sep = "&" if "?" in mongodb_uri else "?"
    uri = f"{mongodb_uri}{sep}readPreference=secondary&readConcernLevel=local&w=0&journal=false"
    with open_database(settings_for(uri)) as database:
        for name in ("events", "chats_read_model"):
            collection = database[name]
            assert collection.read_preference == ReadPreference.PRIMARY
            assert collection.read_concern.level == "majority"
            assert collection.write_concern.document["w"] == "majority"
            assert collection.write_concern.acknowledged


@pytest.mark.parametrize(
    "option", ["readPreference=secondaryPreferred", "w=0", "readConcernLevel=linearizable", "maxPoolSize=1"]
)
def test_a_uri_cannot_weaken_or_stop_a_transaction(mongodb_uri: str, settings: Settings, option: str) -> None:
    weak = settings.model_copy(update={"mongodb_uri": SecretStr(f"{mongodb_uri}&{option}")})
    with open_database(weak) as database:
        try:
            ensure_indexes(database, weak)
            database["events"].insert_many(chat_events(20))
            projector = ReadModelProjector(database, weak, "task")
            projector.rebuild_all()
            one, other = (item["task_id"] for item in database["tasks_read_model"].find({}, {"task_id": 1}).limit(2))
            swap_chat_ids(database["tasks_read_model"], one, other)
            summary = projector.rebuild_all()
            assert (summary.ok, summary.read_models["tasks_read_model"].replaced) == (True, 2)
        finally:
            database.client.drop_database(weak.database)


ODD_OPTIONS = [
    "tz_aware=true&uuidRepresentation=standard&readConcernLevel=local&w=1&readPreference=secondary&retryWrites=false"
    "&maxPoolSize=1&retryReads=false&connect=false",
    "datetime_conversion=DATETIME_MS&unicode_decode_error_handler=ignore&w=0&timeoutMS=60000&compressors=zlib"
    "&uuidRepresentation=pythonLegacy&readPreference=nearest&maxStalenessSeconds=120",
    "datetime_conversion=DATETIME_CLAMP&journal=true&wTimeoutMS=1&minPoolSize=2&serverMonitoringMode=poll&appName=x",
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("options", ODD_OPTIONS)
def test_every_verb_works_whatever_the_uri_says(mongodb_uri: str, settings: Settings, options: str) -> None:
    odd = settings.model_copy(update={"mongodb_uri": SecretStr(f"{mongodb_uri}&{options}"), "fresh_minutes": 1e6})
    try:
        with open_database(odd) as database:
            _every_verb(database, odd)
    finally:
        with open_database(settings) as database:
            database.client.drop_database(settings.database)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "option",
    [
        *("datetime_conversion=datetime_clamp", "document_class=dict", "type_registry=x", "event_listeners=x"),
        *("server_selector=x", "auto_encryption_opts=x", "uuidRepresentation=x", "compressors=snappy,nonsense"),
        *("readPreference=x", "w=-1", "maxPoolSize=x", "tz_aware=x", "unicode_decode_error_handler=x"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_in_words_or_passed_over(
    mongodb_uri: str, settings: Settings, option: str
) -> None:
    odd = settings.model_copy(update={"mongodb_uri": SecretStr(f"{mongodb_uri}&{option}")})
    with suppress(UsageError), open_database(odd) as database:
        assert database.command("ping")["ok"]


def _every_verb(database: Mongo, settings: Settings) -> None:
    """Twice what goes by what the first one left: dates of findings, of leases, of records."""
    ensure_indexes(database, settings)
    database["events"].insert_many(chat_events(4))
    assert rebuild(database, settings, (), RebuildRequest()).ok
    chats, tasks = database["chats_read_model"], database["tasks_read_model"]
    chats.update_one({}, {"$set": {"title": "wrong", "theirs": uuid.UUID(int=7).bytes}})
    for request in (VerificationRequest(enqueue_repairs=True), VerificationRequest(coverage=Coverage(since_last=True))):
        assert verify(database, settings, (), request).read_models["chats_read_model"].different == 1
    assert verify_fresh(database, settings, ()).scope.everything is False
    assert RepairWorker(database, settings).work().completed == 1
    assert RepairQueue(database, settings).stats().completed == 1
    for options in ({}, {"strategy": "shadow"}, {"strategy": "shadow", "resume": True}):
        chats.update_many({}, {"$set": {"title": "wrong"}})
        assert rebuild(database, settings, (), RebuildRequest(**options)).ok
    one, other = (item["task_id"] for item in tasks.find({}, {"task_id": 1}).limit(2))
    swap_chat_ids(tasks, one, other)
    projector = ReadModelProjector(database, settings)
    assert projector.rebuild_all(dry_run=True).read_models["tasks_read_model"].replaced == 2
    assert projector.rebuild_all().ok
    new = NewEvent("chat.renamed", {"new_title": "Tea"})
    last = database["events"].find_one({"aggregate_id": one}, sort=[("version", -1)]) or {}
    saved = EventRepository(database, settings).save(one, "chat", [new], expected_version=last["version"])
    assert saved.projected
    assert projector.process_event(last).ok
    assert verify(database, settings, (), VerificationRequest()).ok
    store = Store(database, settings, projections_for(settings))
    assert not any(Scrape(store, 20).parts.values())
    assert examine(settings).state is not Health.PROBLEM


def test_a_server_that_the_driver_does_not_talk_to_is_told_to_be_too_old(
    mongodb_uri: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pymongo.common.MIN_SUPPORTED_WIRE_VERSION", 10_000)
    with pytest.raises(ServerTooOld) as refused, open_database(settings) as database:
        database.command("ping")
    assert refused.value.exit_code == 3
    diagnosis = examine(settings)
    assert (diagnosis.exit_code, diagnosis.checks[-1].name, diagnosis.checks[-1].state) == (
        3,
        "version",
        Health.PROBLEM,
    )


@pytest.mark.parametrize("option", ["socketTimeoutMS=1", "timeoutMS=1"])
def test_an_option_that_leaves_no_time_is_told_as_no_answer(mongodb_uri: str, settings: Settings, option: str) -> None:
    hasty = settings.model_copy(update={"mongodb_uri": SecretStr(f"{mongodb_uri}&{option}")})
    with pytest.raises(MongoUnavailable), open_database(hasty) as database:
        database["events"].insert_many(chat_events(300))
