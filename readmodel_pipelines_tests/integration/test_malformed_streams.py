"""Malformed streams: each is reported once for each read model, with its reason and first offending event.

Its documents stay as they were, every other aggregate is rebuilt, and the run does not call itself a success.
"""

from collections.abc import Callable
from typing import Any

import pytest
from bson import Decimal128, Int64, ObjectId, Regex

from readmodel_pipelines_tests.support.scene import Scene, found_in, in_place_alone

pytestmark = pytest.mark.usefixtures("strategy")

BAD = "99999999-0000-4000-a000-000000000000"
BEHIND = "ffffffff-0000-4000-a000-000000000000"
BOTH = ("chats_read_model", "tasks_read_model")
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
    ((1, 2, 1e300), "bad_version", 2),
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


WRONG_EVENTS: list[tuple[Any, Any, str]] = [
    ("chat.exploded", {}, "unknown_event_type"),
    ("Chat.Renamed", {"new_title": "t"}, "unknown_event_type"),
    ("task.created", {}, "unknown_event_type"),
    (None, {}, "unknown_event_type"),
    (7, {}, "unknown_event_type"),
    (["chat.renamed"], {}, "unknown_event_type"),
    ("chat.renamed", "t", "bad_data"),
    ("chat.renamed", None, "bad_data"),
    ("chat.renamed", [{"new_title": "t"}], "bad_data"),
    ("chat.renamed", 7, "bad_data"),
    ("chat.renamed", {"new_title": 7}, "bad_field"),
    ("chat.renamed", {"new_title": ["t"]}, "bad_field"),
    ("chat.renamed", {"new_title": {"t": 1}}, "bad_field"),
    ("chat.renamed", {"new_title": Regex("t")}, "bad_field"),
    ("chat.participant_added", {"user_id": ObjectId()}, "bad_field"),
    ("chat.participant_removed", {"user_id": 1}, "bad_field"),
    ("chat.type_changed", {"new_type": 1, "title": "t"}, "bad_field"),
    ("chat.type_changed", {"new_type": "bug", "title": 1.0}, "bad_field"),
    ("chat.status_changed", {"new_status": True}, "bad_field"),
    ("chat.user_assigned", {"assignee_id": 1}, "bad_field"),
    ("chat.priority_set", {"new_priority": 1}, "bad_field"),
    ("chat.severity_set", {"new_severity": 1}, "bad_field"),
    ("chat.due_date_set", {"new_due_date": "tomorrow"}, "bad_field"),
    ("chat.due_date_set", {"new_due_date": 1772352000000}, "bad_field"),
    ("chat.due_date_set", {"new_due_date": "2026-03-01 08:00:00Z"}, "bad_field"),
    ("chat.attachment_added", {"file_id": 1}, "bad_field"),
    ("chat.attachment_added", {"file_id": "f", "file_name": 1}, "bad_field"),
    ("chat.attachment_added", {"file_id": "f", "file_size": 1.5}, "bad_field"),
    ("chat.attachment_added", {"file_id": "f", "file_size": NAN}, "bad_field"),
    ("chat.attachment_added", {"file_id": "f", "file_size": INFINITY}, "bad_field"),
    ("chat.attachment_added", {"file_id": "f", "file_size": 1e19}, "bad_field"),
    ("chat.attachment_added", {"file_id": "f", "file_size": "1"}, "bad_field"),
    ("chat.attachment_added", {"file_id": "f", "mime_type": 1}, "bad_field"),
    ("chat.attachment_removed", {"file_id": 1}, "bad_field"),
    ("chat.reopened", {"new_status": 1}, "bad_field"),
    ("chat.created", {**CREATED, "is_public": "yes"}, "bad_field"),
    ("chat.created", {**CREATED, "is_public": 2}, "bad_field"),
    ("chat.created", {**CREATED, "is_public": NAN}, "bad_field"),
    ("chat.created", {**CREATED, "type": 1}, "bad_field"),
    ("chat.created", {**CREATED, "workspace_id": 1}, "bad_field"),
    ("chat.created", {**CREATED, "created_by": 1}, "bad_field"),
    ("chat.created", {**CREATED, "created_at": "2026"}, "bad_field"),
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


@pytest.mark.parametrize(
    ("event_type", "field", "broken"),
    [
        ("chat.renamed", "new_title", ("chats_read_model", "tasks_read_model")),
        ("chat.renamed", "old_title", ()),
        ("chat.renamed", "renamed_by", ()),
    ],
)
def test_a_text_that_is_not_utf_8_matters_only_where_it_is_used(
    scene: Scene,
    neighbours: list[str],
    old: Callable[..., dict[str, Any]],
    event_type: str,
    field: str,
    broken: tuple[str, ...],
) -> None:
    (_, second) = scene.put((1, "chat.created", CREATED), (2, event_type, {field: "PLACEHOLDER"}), aggregate_id=BAD)
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
