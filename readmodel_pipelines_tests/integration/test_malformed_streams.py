"""Malformed streams: each is reported once for each read model, with its reason and first offending event.

Its documents stay as they were, every other aggregate is rebuilt, and the run does not call itself a success.
"""

from collections.abc import Callable
from typing import Any

import pytest
from bson import Decimal128, Int64, ObjectId, Regex

from readmodel_pipelines.projections.chat import CHAT_FOLD
from readmodel_pipelines_tests.support.scene import BOTH, Scene, found_in, in_place_alone

pytestmark = [pytest.mark.usefixtures("strategy"), pytest.mark.each_once]

BAD = "99999999-0000-4000-a000-000000000000"
NAN, INFINITY = float("nan"), float("inf")

CREATED = {
    "workspace_id": "w",
    "type": "bug",
    "is_public": 1.0,
    "created_by": "u",
    "created_at": "2026-03-01T08:00:00Z",
}


def nth(number: int) -> str:
    return f"aaaaaaaa-0000-4000-a000-{number:012d}"


RENAMED = ("chat.renamed", {"new_title": "t"})


WRONG_VERSIONS: list[tuple[tuple[Any, ...], str, int]] = [
    ((1, 2, 4, 5), "version_gap", 2),
    ((2, 3), "version_gap", 0),
    ((1, 2, 2, 3), "repeated_version", 2),
    ((1, 1.0, 2), "repeated_version", 1),
    ((1, 2, ...), "missing_version", 2),
    ((1, 2, None), "missing_version", 2),
    ((1, 1.5, 2), "bad_version", 1),
    ((1, 2, "3"), "bad_version", 2),
    ((1, 2, NAN), "bad_version", 2),
    ((1, 2, INFINITY), "bad_version", 2),
    ((1, 2, True), "bad_version", 2),
    ((1, 2, Decimal128("3")), "bad_version", 2),
    ((1, 2, [3]), "bad_version", 2),
    ((1, 2, {"n": 3}), "bad_version", 2),
    ((1, 2, Regex("3")), "bad_version", 2),
    ((0, 1, 2), "bad_version", 0),
    ((-1, 1, 2), "bad_version", 0),
    ((1, 2, 2.0**63), "bad_version", 2),
    ((1, 2, Int64(2**63 - 1)), "version_gap", 2),
]


@pytest.mark.parametrize("indexed", [True, False])
def test_each_wrong_version_is_found(
    scene: Scene, plain_index: None, found_malformed: Callable[..., None], indexed: bool
) -> None:
    wanted: list[Any] = []
    for number, (versions, reason, offender) in enumerate(WRONG_VERSIONS):
        kinds = [("chat.created", CREATED), *[RENAMED] * (len(versions) - 1)]
        key = nth(number)
        ids = scene.put(*[(version, *kind) for version, kind in zip(versions, kinds, strict=True)], aggregate_id=key)
        version = versions[offender]
        wanted.append((key, reason, ids[offender], None if version is ... else version))
    if not indexed:
        scene.events.drop_indexes()
    found_malformed(*wanted)


def test_whole_doubles_and_int64_are_versions_like_any_other(scene: Scene, neighbours: list[str]) -> None:
    scene.put((1.0, "chat.created", CREATED), (Int64(2), *RENAMED), aggregate_id=BAD)

    assert scene.rebuild().ok
    assert found_in(scene.tasks, {"task_id": BAD})["version"] == 2
    assert type(found_in(scene.tasks, {"task_id": BAD})["version"]) is int


NO_TEXTS: list[Any] = [7]
NO_TIMES = ["tomorrow", "2026", "2026-03-01 08:00:00Z", 1772352000000]
NO_SIZES, NO_FLAGS = [1.5, NAN, INFINITY, 1e19, "1"], ["yes", 2, NAN]
WRONG_FOR = {"created_at": NO_TIMES, "new_due_date": NO_TIMES, "file_size": NO_SIZES, "is_public": NO_FLAGS}
OF_NO_USE = [["t"], {"t": 1}, Regex("t"), ObjectId(), 1.0, True]
WRONG_EVENTS: list[tuple[Any, Any, str]] = [
    *((odd, {}, "unknown_event_type") for odd in ("chat.exploded", "Chat.Renamed", "CHAT.CREATED", "task.created")),
    *((odd, {}, "unknown_event_type") for odd in (..., None, 7, ["chat.renamed"])),
    *(("chat.renamed", odd, "bad_data") for odd in (..., "t", "{}", None, [], [{"new_title": "t"}], 7)),
    *(("chat.renamed", {"new_title": odd}, "bad_field") for odd in OF_NO_USE),
    *(
        (event_type, {field: wrong}, "bad_field")
        for event_type, kind in CHAT_FOLD.events.items()
        for field in kind.fields
        for wrong in WRONG_FOR.get(field, NO_TEXTS)
    ),
]


def test_each_wrong_event_is_found(scene: Scene, neighbours: list[str], found_malformed: Callable[..., None]) -> None:
    wanted: list[Any] = []
    for number, (event_type, data, reason) in enumerate(WRONG_EVENTS):
        events = [(1, "chat.created", CREATED), (2, *RENAMED), (3, event_type, data), (4, "chat.exploded again", {})]
        key = nth(number)
        wanted.append((key, reason, scene.put(*events, aggregate_id=key)[2], 3))
    found_malformed(*wanted)


@pytest.mark.parametrize(("kind", "event"), [("unknown_event_type", "chat.exploded"), ("version_gap", "chat.renamed")])
def test_an_allowed_kind_is_folded_and_the_other_is_not(
    scene: Scene, neighbours: list[str], kind: str, event: str
) -> None:
    other = "88888888-0000-4000-a000-000000000000"
    unknown, gap = (BAD, other) if kind == "unknown_event_type" else (other, BAD)
    scene.put((1, "chat.created", CREATED), (2, "chat.exploded", {}), (3, *RENAMED), aggregate_id=unknown)
    scene.put((1, "chat.created", CREATED), (5, *RENAMED), aggregate_id=gap)
    summary = scene.projector(allow_malformed=frozenset({kind})).rebuild_all()

    assert {item.aggregate_id for item in summary.findings if item.outcome == "malformed"} == {other}
    task = found_in(scene.tasks, {"task_id": BAD})
    assert (task["title"], task["version"]) == ("t", 5 if kind == "version_gap" else 3)
    one = scene.projector(allow_malformed=frozenset({kind})).verify_consistency(BAD)
    assert one.ok
    assert not scene.verify_one(BAD).ok


@in_place_alone
def test_rebuilding_a_malformed_one_alone_leaves_its_documents(
    scene: Scene, neighbours: list[str], old: Callable[..., dict[str, Any]]
) -> None:
    old(BAD)
    scene.put((1, "chat.created", CREATED), (3, *RENAMED), aggregate_id=BAD)
    before = scene.dump()

    for summary in (scene.rebuild_one(BAD), scene.rebuild_one(BAD, dry_run=True), scene.verify_one(BAD)):
        assert [item.reason for item in summary.findings] == ["version_gap", "version_gap"]
        assert not summary.ok
    assert scene.dump() == before


@pytest.mark.parametrize(("field", "broken"), [("new_title", BOTH), ("old_title", ()), ("renamed_by", ())])
def test_a_text_that_is_not_utf_8_matters_only_where_it_is_used(
    scene: Scene, neighbours: list[str], old: Callable[..., dict[str, Any]], field: str, broken: tuple[str, ...]
) -> None:
    (_, second) = scene.put((1, "chat.created", CREATED), (2, "chat.renamed", {field: "PLACEHOLDER"}), aggregate_id=BAD)
    scene.replace_bytes("events", {"_id": second}, b"PLACEHOLDER", b"PLACE\xff\xfeLDER")
    before = old(BAD)
    summary = scene.rebuild()

    malformed = [item for item in summary.findings if item.outcome == "malformed"]
    assert tuple(item.read_model for item in malformed) == broken
    assert summary.ok == (not broken)
    for item in malformed:
        assert (item.reason, item.version, item.event_id) == ("bad_field", 2, second)
    assert (old() == before) == bool(broken)
    assert all(scene.verify_one(key).ok for key in neighbours)


def test_a_document_beyond_16_mib_is_malformed_for_that_read_model_alone(
    scene: Scene, neighbours: list[str], old: Callable[..., dict[str, Any]]
) -> None:
    before = old(BAD)
    joined = [(version, "chat.participant_added", {"user_id": "u" * 6_000_000}) for version in (2, 3, 4)]
    scene.put((1, "chat.created", CREATED), *joined, aggregate_id=BAD)
    summary = scene.rebuild()

    malformed = [(item.read_model, item.reason) for item in summary.findings if item.outcome == "malformed"]
    assert malformed == [("chats_read_model", "document_too_large")]
    assert not summary.ok
    assert old()["chats_read_model"] == before["chats_read_model"]
    assert found_in(scene.tasks, {"task_id": BAD})["version"] == 4
    assert all(scene.verify_one(key).ok for key in neighbours)
