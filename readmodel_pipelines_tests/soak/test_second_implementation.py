"""Streams by a grammar, folded here and by a second implementation that shares no code: they agree to the BSON type."""

from collections import defaultdict
from typing import Any

import pytest
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection

from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines_tests.support import oracle
from readmodel_pipelines_tests.support.grammar import Grammar, Stream
from readmodel_pipelines_tests.support.servers.embedded import own_server

RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
KEYS = {"chats_read_model": "chat_id", "tasks_read_model": "task_id"}
STREAMS = 500


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", ["Chat", "Task"])
def test_a_rebuild_agrees_with_a_second_implementation(seed: int, kind: str) -> None:
    source = "chat" if kind == "Chat" else "task"
    streams = list(Grammar(seed).streams(STREAMS, kind))
    with own_server(max_delete_share=1.0, task_source=source) as settings, open_database(settings) as database:
        events = database.get_collection(settings.events_collection, codec_options=RAW)
        events.create_index([("aggregate_id", 1), ("version", 1)])
        events.insert_many([RawBSONDocument(event) for stream in streams for event in stream.events])
        names = () if kind == "Chat" else ("task",)
        summary = ReadModelProjector(database, settings, *names, max_findings=10 * STREAMS).rebuild_all()
        found = {
            (item.read_model, str(item.aggregate_id)): str(item.reason)
            for item in summary.findings
            if item.outcome == "malformed"
        }
        documents = {}
        for read_model, key in KEYS.items():
            raw: Collection[Any] = database.get_collection(read_model, codec_options=RAW)
            for stored in raw.find():
                document = oracle.document(bytes(stored.raw))
                del document["_id"]
                documents[read_model, document[key].value] = document
    claimed = _claims(streams)
    for stream in streams:
        decoded = oracle.in_order(oracle.document(event) for event in stream.events)
        contested = any(len(claimed[oracle.claims(event)]) > 1 for event in decoded if oracle.claims(event) is not None)
        for read_model, wanted in oracle.expected(stream.aggregate_id, decoded, kind).items():
            reason = wanted.reason or ("key_conflict" if contested else "")
            which = (read_model, stream.aggregate_id.value)
            assert (which, found.get(which, "")) == (which, reason)
            assert (which, documents.get(which)) == (which, None if reason else wanted.document)


def _claims(streams: list[Stream]) -> dict[str | None, set[str]]:
    claimed: dict[str | None, set[str]] = defaultdict(set)
    for stream in streams:
        for event in stream.events:
            claimed[oracle.claims(oracle.document(event))].add(stream.aggregate_id.value)
    return claimed
