"""Loading: every BSON value arrives as it was, what is there stays, and a broken file is named with its line."""

import gzip
import json
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import Binary, DatetimeMS, Decimal128, Int64, ObjectId, Regex, Timestamp, json_util
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection

from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.verbs.command_line import Cli

RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
CANONICAL, RELAXED = json_util.CANONICAL_JSON_OPTIONS, json_util.RELAXED_JSON_OPTIONS


def stored_bytes(database: Mongo, name: str) -> list[bytes]:
    found: Collection[Any] = database.get_collection(name, codec_options=RAW)
    return [document.raw for document in found.find()]


def write(file: Path, documents: list[dict[str, Any]], options: json_util.JSONOptions = CANONICAL) -> Path:
    lines = [json_util.dumps(document, json_options=options) for document in documents]
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    return file.parent


def test_loaded_events_make_read_models_that_verify(database: Mongo, cli: Cli, tmp_path: Path) -> None:
    events = [{"_id": ObjectId(), **event} for event in chat_events(8, mean_events=10)]
    loaded = cli("load", write(tmp_path / "events.jsonl.gz", events))
    assert loaded.exit_code == 0
    assert f"{len(events)} inserted" in loaded.stdout
    assert stored_bytes(database, "events") == [bson.encode(event) for event in events]
    assert cli("rebuild-readmodel", "--type", "all", "--all").exit_code == 0
    assert cli("verify-consistency", "--type", "all", "--all").exit_code == 0


def test_loading_again_says_there_already_and_changes_nothing(database: Mongo, cli: Cli, tmp_path: Path) -> None:
    events = [{"_id": ObjectId(), **event} for event in chat_events(3, mean_events=5)]
    folder = write(tmp_path / "events.jsonl.gz", events[:-1])
    assert cli("load", folder).exit_code == 0
    database.events.update_one({"_id": events[0]["_id"]}, {"$set": {"mark": 1}})
    again = [events[0], {**events[1], "_id": ObjectId()}, *events[2:]]
    result = cli("load", write(tmp_path / "events.jsonl.gz", again))
    assert result.exit_code == 0
    assert f"1 inserted, {len(events) - 1} already present" in result.stdout
    assert database.events.count_documents({}) == len(events)
    assert database.events.count_documents({"mark": 1}) == 1


@pytest.mark.parametrize("options", [CANONICAL, RELAXED], ids=["canonical", "relaxed"])
def test_values_keep_their_types(database: Mongo, cli: Cli, tmp_path: Path, options: json_util.JSONOptions) -> None:
    values = {
        "year_one_and_before": [DatetimeMS(-62135596800000), DatetimeMS(-62135614800000), DatetimeMS(253402300800000)],
        "usual": DatetimeMS(1_772_352_000_123),
        "numbers": [1, 2**31 - 1, 1.5, float("nan"), float("-inf"), Decimal128("1.10")],
        "long": Int64(2**40),
        "others": [Binary(b"\0\1"), Binary(bytes(16), 4), Regex("a.", "i"), Timestamp(1, 2), None, True, "nul \0 é 🐛"],
    }
    document = {"_id": ObjectId(), "chat_id": "x", **values}
    assert cli("load", write(tmp_path / "chats_read_model.jsonl.gz", [document], options)).exit_code == 0
    assert stored_bytes(database, "chats_read_model") == [bson.encode(document)]


def test_canonical_numbers_keep_their_width(database: Mongo, cli: Cli, tmp_path: Path) -> None:
    document = {"_id": 1, "chat_id": "x", "small_long": Int64(1), "whole_double": 1.0}
    cli("load", write(tmp_path / "chats_read_model.jsonl.gz", [document]))
    assert stored_bytes(database, "chats_read_model") == [bson.encode(document)]


def test_every_index_is_made_and_other_files_are_named_and_skipped(database: Mongo, cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "notes.jsonl.gz", [{"_id": 1}])
    result = cli("load", write(tmp_path / "repair_queue.jsonl.gz", [{"_id": 1, "status": "pending"}]))
    assert result.exit_code == 0
    assert "notes.jsonl.gz: skipped" in result.stdout
    made = {name: len(list(database[name].list_indexes())) for name in database.list_collection_names()}
    assert made == {
        "events": 4,
        "chats_read_model": 2,
        "tasks_read_model": 3,
        "repair_queue": 9,
        "readmodel_leases": 2,
        "readmodel_findings": 4,
        "readmodel_verifications": 4,
        "readmodel_rebuilds": 4,
    }


def test_files_go_where_settings_say(
    database: Mongo, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("READMODEL_CHATS_COLLECTION", "conversations")
    assert cli("load", write(tmp_path / "chats_read_model.jsonl.gz", [{"_id": 1, "chat_id": "x"}])).exit_code == 0
    assert database.conversations.count_documents({}) == 1


@pytest.mark.parametrize(
    "line",
    [
        b'{"_id": 2',
        b"[1, 2]",
        b"7",
        b'{"a": "\xff"}',
        b'{"a": {"$oid": "not hexadecimal"}}',
        b'{"a": {"$numberDecimal": "ten"}}',
        b'{"a": {"$date": {"$numberLong": "soon"}}}',
        b'{"a": 99999999999999999999}',
        b'{"nul \\u0000 in a name": 1}',
        b'{"a": "\\ud800"}',
        b"[" * 100_000,
    ],
    ids=lambda line: repr(line[:30]),
)
def test_a_broken_line_is_named_and_exits_2(cli: Cli, tmp_path: Path, line: bytes) -> None:
    good = json.dumps({"_id": 1, "chat_id": "x"}).encode()
    (tmp_path / "chats_read_model.jsonl.gz").write_bytes(gzip.compress(b"\n".join([good, b"", line, good])))
    result = cli("load", tmp_path)
    assert result.exit_code == 2
    assert "chats_read_model.jsonl.gz, line 3 " in result.stderr


def test_a_document_larger_than_mongodb_stores_is_named(cli: Cli, tmp_path: Path) -> None:
    folder = write(tmp_path / "events.jsonl.gz", [{"_id": 1, "a": "x" * 17 * 2**20}])
    result = cli("load", folder)
    assert result.exit_code == 2
    assert "line 1 " in result.stderr


@pytest.mark.parametrize("content", [b"plain text", gzip.compress(b'{"_id": 1}\n' * 10_000)[:-20]])
def test_a_file_that_is_no_whole_gzip_file_exits_2(cli: Cli, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "repair_queue.jsonl.gz").write_bytes(content)
    result = cli("load", tmp_path)
    assert result.exit_code == 2
    assert "gzip" in result.stderr


def test_a_folder_with_nothing_to_load_exits_2(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing answers there: the folder is looked at first.
    monkeypatch.setenv("READMODEL_MONGODB_URI", "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=300")
    assert cli("load", tmp_path / "nowhere").exit_code == 2
    (tmp_path / "events.json").write_text("{}")
    result = cli("load", tmp_path)
    assert result.exit_code == 2
    assert "events.jsonl.gz" in result.stderr


def test_a_document_that_a_validator_refuses_exits_1_in_words(database: Mongo, cli: Cli, tmp_path: Path) -> None:
    database.create_collection("chats_read_model", validator={"title": {"$type": "string"}})
    result = cli("load", write(tmp_path / "chats_read_model.jsonl.gz", [{"_id": 1, "chat_id": "x"}]))
    assert result.exit_code == 1
    assert "MongoDB refused a document" in result.stderr


def test_the_recorded_corpus_loads_and_verifies(cli: Cli, corpus: Path) -> None:
    assert cli("load", corpus / "small").exit_code == 0
    result = cli("verify-consistency", "--type", "all", "--all", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["read_models"]["chats_read_model"]["same"] > 0
