"""Odd ids: aggregate ids that are no UUIDs, and documents whose key is no string.

Streams of such ids are malformed, reported once; documents of no stream are orphans. Neither disturbs its neighbours.
"""

from collections.abc import Callable
from typing import Any

import pytest
from bson import Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp

from readmodel_pipelines_tests.support.scene import Scene, found_in, in_place_alone

pytestmark = [pytest.mark.usefixtures("strategy"), pytest.mark.each_once]

BAD = "99999999-0000-4000-a000-000000000000"
CREATED = {"type": "bug", "created_at": "2026-03-01T08:00:00Z"}
RENAMED = ("chat.renamed", {"new_title": "t"})


ARRAY_OF_A_NEIGHBOUR = ["00000000-0000-4000-a000-000000000000"]
ODD: list[Any] = [
    *(ObjectId(), 7, 8.5, Int64(9), Decimal128("10"), True, None, {"id": BAD}, {}, {"$oid": "65f0"}),
    *(["x", BAD], [1, 2], [], [[]], b"bytes", Regex("^9"), MinKey(), MaxKey(), Timestamp(1, 1), Code("x")),
    *("no uuid", "", BAD.upper(), "9999999900004000a000000000000000", BAD + "\n", "\U0001f41b"),
]


@pytest.mark.parametrize("indexed", [True, False])
def test_each_aggregate_id_that_is_no_uuid_is_found(
    scene: Scene, plain_index: None, found_malformed: Callable[..., None], indexed: bool
) -> None:
    wanted = []
    for odd in (*ODD, ARRAY_OF_A_NEIGHBOUR):
        ids = scene.put((1, "chat.created", CREATED), (2, *RENAMED), (3, *RENAMED), aggregate_id=odd)
        wanted.append((odd, "bad_aggregate_id", ids[0], 1))
    if not indexed:
        scene.events.drop_indexes()
    found_malformed(*wanted)


@pytest.mark.parametrize("odd", [ARRAY_OF_A_NEIGHBOUR, [1, 2], [], [[]]], ids=repr)
def test_one_array_among_the_aggregate_ids_is_found(
    scene: Scene, plain_index: None, found_malformed: Callable[..., None], odd: list[Any]
) -> None:
    (only,) = scene.put((1, "chat.created", CREATED), aggregate_id=odd)
    found_malformed((odd, "bad_aggregate_id", only, 1))


def test_a_missing_aggregate_id_is_found(scene: Scene, found_malformed: Callable[..., None]) -> None:
    ids = scene.put((1, "chat.created", CREATED), (2, *RENAMED), aggregate_id=...)
    found_malformed((None, "bad_aggregate_id", ids[0], 1))


def test_streams_whose_ids_differ_by_type_alone_are_each_reported_once(
    scene: Scene, plain_index: None, found_malformed: Callable[..., None]
) -> None:
    whole = scene.put((1, "chat.created", CREATED), (3, *RENAMED), (5, *RENAMED), aggregate_id=7)
    double = scene.put((2, "chat.created", CREATED), (4, *RENAMED), (6, *RENAMED), aggregate_id=7.0)
    found_malformed((7, "bad_aggregate_id", whole[0], 1), (7.0, "bad_aggregate_id", double[0], 2))


ODD_KEYS = [*ODD, float("nan")]


def orphans_with(scene: Scene, keys: list[Any]) -> None:
    template = found_in(scene.chats, {}, {"_id": 0})
    scene.chats.insert_many([{**template, "_id": number, "chat_id": key} for number, key in enumerate(keys)])


@pytest.mark.parametrize("indexed", [True, False])
def test_documents_with_odd_keys_and_no_events_are_deleted(scene: Scene, neighbours: list[str], indexed: bool) -> None:
    orphans_with(scene, ODD_KEYS)
    if not indexed:
        scene.chats.drop_indexes()
    allowed = {"allow_deletions": True}
    looks = (scene.verify("chat"), scene.rebuild("chat", dry_run=True, **allowed), scene.rebuild("chat", **allowed))
    for summary in looks:
        orphans = [item for item in summary.findings if item.outcome == "orphan"]
        assert sorted(repr(item.aggregate_id) for item in orphans) == sorted(map(repr, ODD_KEYS))
        assert {item.reason for item in orphans if type(item.aggregate_id) is not str} == {"odd_key"}
    assert summary.read_models["chats_read_model"].deleted == len(ODD_KEYS)
    assert scene.verify("chat").ok


@pytest.mark.parametrize("key", [["x", "y"], [], [[]], [BAD], MaxKey(), MinKey(), None, {"$oid": "1"}, ...], ids=repr)
def test_a_document_with_an_odd_key_or_none_is_found_and_deleted(scene: Scene, neighbours: list[str], key: Any) -> None:
    scene.chats.insert_one({"title": "nobody's"} | ({} if key is ... else {"chat_id": key}))
    summary = scene.rebuild("chat")

    wanted = None if key is ... else key
    assert [repr(item.aggregate_id) for item in summary.findings if item.outcome == "orphan"] == [repr(wanted)]
    assert summary.read_models["chats_read_model"].deleted == 1
    assert scene.verify("chat").ok


@pytest.mark.parametrize("text", [b"\xff\xfe", b"99999999-\xc3\x28", b"\xed\xa0\x80"], ids=repr)
def test_a_document_whose_key_is_no_utf_8_is_deleted(scene: Scene, neighbours: list[str], text: bytes) -> None:
    orphans_with(scene, ["PLACEHOLDER"])
    scene.replace_bytes("chats_read_model", {"chat_id": "PLACEHOLDER"}, b"PLACEHOLDER", text.ljust(11, b"x"))

    assert scene.verify("chat").read_models["chats_read_model"].orphan == 1
    for options in ({"dry_run": True}, {}):
        assert scene.rebuild("chat", **options).read_models["chats_read_model"].deleted == 1
    assert scene.verify("chat").ok


def test_an_array_id_does_not_mix_into_the_stream_of_its_element(scene: Scene, plain_index: None) -> None:
    chat_id = scene.chat("good")
    scene.put((1, "chat.created", CREATED), (2, "chat.exploded", {}), aggregate_id=[chat_id])

    assert scene.rebuild_one(chat_id).ok
    assert found_in(scene.chats, {"chat_id": chat_id})["title"] == "good"
    scene.chats.delete_many({})
    counts = scene.rebuild("chat").read_models["chats_read_model"]
    assert (counts.malformed, counts.inserted) == (1, 3)


@in_place_alone
def test_a_document_of_an_array_key_is_not_taken_for_that_of_its_element(scene: Scene, neighbours: list[str]) -> None:
    chat_id = scene.chat("good")
    orphans_with(scene, [[chat_id]])

    # It holds the unique key, so it has to go first.
    assert scene.rebuild_one(chat_id, "chat", dry_run=True).read_models["chats_read_model"].inserted == 1
    summary = scene.rebuild_one(chat_id, "chat")
    assert summary.ok
    assert summary.read_models["chats_read_model"].inserted == 1
    assert scene.chats.find_one({"_id": 0}) is None
    assert scene.verify_one(chat_id, "chat").ok
