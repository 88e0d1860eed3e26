"""The connection: concerns that a URI cannot weaken, errors in words, and never a credential."""

import traceback

import pytest
from pydantic import SecretStr
from pymongo.errors import AutoReconnect, OperationFailure, WriteError
from pymongo.read_preferences import ReadPreference

from readmodel_pipelines.demo.damage import swap_chat_ids
from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.errors import MongoUnavailable, UsageError
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.indexes import ensure_indexes
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.settings import Settings


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


def test_a_database_without_events_is_warned_of(settings: Settings) -> None:
    with open_database(settings) as database:
        summary = ReadModelProjector(database, settings).verify_all()
        (warning,) = summary.warnings
        assert f"{settings.database}.events holds no event" in warning
