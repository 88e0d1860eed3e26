"""What a verification says of why: causes with known truth, the outage in words, and no more than it may cost."""

import json
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
from bson import ObjectId

from readmodel_pipelines.bookkeeping.verifications import Verifications
from readmodel_pipelines.demo.sample_data import chat_events, long_stream
from readmodel_pipelines.mongo.names import FINDINGS
from readmodel_pipelines.reconcile.cause import CauseKind
from readmodel_pipelines.reconcile.outages import sentence
from readmodel_pipelines_tests.support.campaign_of_causes import held_against, lose
from readmodel_pipelines_tests.support.lost_updates import WAYS, Events
from readmodel_pipelines_tests.support.scene import BOTH, Scene, found_in
from readmodel_pipelines_tests.support.verbs.verifying import look

CHATS, TASKS = BOTH
MIDNIGHT = datetime(2026, 11, 2, tzinfo=UTC)


def filled(scene: Scene, number: int, seed: int = 3) -> None:
    scene.index()
    scene.add(chat_events(number, seed=seed, mean_events=10))
    scene.build()


@pytest.mark.parametrize("way", WAYS)
def test_causes_of_lost_updates_are_right_and_name_no_event_that_was_applied(scene: Scene, way: str) -> None:
    filled(scene, 60)
    lost = lose(scene, WAYS[way])
    number, right, lies = held_against(look(scene), lost)
    assert lies == []
    assert right >= 0.97 * number > 0


def test_an_outage_is_told_by_its_type_and_window_wherever_somebody_looks(scene: Scene, tmp_path: Path) -> None:
    filled(scene, 40)
    for number, event in enumerate(scene.events.find({"event_type": "chat.renamed"}, sort=[("_id", 1)])):
        at = MIDNIGHT.replace(hour=3, minute=2 + number % 10)
        scene.events.update_one({"_id": event["_id"]}, {"$set": {"occurred_at": at}})

    def last_title(events: Events, _: Random) -> set[int]:
        return {max((event["version"] for event in events if event["event_type"] == "chat.renamed"), default=0)}

    lost = lose(scene, last_title)
    page, plain = tmp_path / "report.html", tmp_path / "report.json"
    summary = look(scene, "chat", reports=[page, plain])
    hidden = {finding.aggregate_id for finding in summary.findings}
    assert hidden <= {key for read_model, key in lost if read_model == CHATS}
    causes = summary.as_json()["causes"]
    assert sum(cause["count"] for cause in causes) == len(hidden)
    assert {cause["event_type"] for cause in causes} == {"chat.renamed"}
    assert [cause["count"] for cause in causes] == sorted((cause["count"] for cause in causes), reverse=True)
    assert all(set(cause["examples"]) <= hidden for cause in causes)
    assert all("2026-11-02T03:02" <= cause["first"] <= cause["last"] < "2026-11-02T03:12" for cause in causes)
    said = sentence(summary.outages, CHATS)
    assert said.startswith(f"{len(hidden)} of {len(hidden)} documents lost `chat.renamed` between 03:02 and 03:")
    assert "on 2 November 2026" in said
    report = json.loads(plain.read_text())
    assert report["causes"] == causes
    assert report["why"] == [f"{CHATS}: {said}"]
    assert sum(number for _, number in report["lost_over_time"][0]["lost"]) == len(hidden)
    assert said in page.read_text()
    record = Verifications(scene.database).last_verification(CHATS)
    assert record is not None
    assert sum(cause["count"] for cause in record["causes"]) == len(hidden)
    assert {item["cause"] for item in scene.database[FINDINGS].find()} <= {"behind", "lost_update"}


def test_what_else_can_be_wrong_has_a_cause_of_its_own(scene: Scene) -> None:
    filled(scene, 12)
    keys = sorted(item["chat_id"] for item in scene.chats.find({"type": "task"}, {"chat_id": 1}))
    keys = keys or sorted(item["chat_id"] for item in scene.chats.find({}, {"chat_id": 1}))
    scene.chats.update_one({"chat_id": keys[0]}, {"$set": {"title": "broken"}})
    every = sorted(item["chat_id"] for item in scene.chats.find({"chat_id": {"$ne": keys[0]}}, {"chat_id": 1}))
    scene.chats.update_one({"chat_id": every[0]}, {"$unset": {"participants": 1}})
    scene.chats.update_one({"chat_id": every[1]}, [{"$set": {"created_at": {"$toLong": "$created_at"}}}])
    scene.chats.delete_one({"chat_id": every[2]})
    orphan = str(ObjectId())
    scene.chats.insert_one({"chat_id": orphan})
    gap = every[3]
    scene.events.update_one({"aggregate_id": gap, "version": 1}, {"$set": {"version": 1_000}})
    found = {finding.aggregate_id: finding for finding in look(scene, "chat").findings}
    kinds = {key: finding.cause.kind for key, finding in found.items() if finding.cause}
    assert kinds == {
        keys[0]: CauseKind.FOREIGN_WRITE,
        every[0]: CauseKind.OLDER_SCHEMA,
        every[1]: CauseKind.TYPE_ONLY,
        every[2]: CauseKind.NEVER_CREATED,
        orphan: CauseKind.FOREIGN_WRITE,
    }
    assert found[gap].cause is None
    assert "cause" not in found[gap].as_json()


def test_beyond_the_limit_findings_have_no_cause_and_the_number_is_told(scene: Scene) -> None:
    filled(scene, 20)
    scene.chats.update_many({}, {"$set": {"title": "broken"}})
    scene.settings = scene.settings.model_copy(update={"causes_limit": 3})
    summary = look(scene, "chat")
    assert sum(finding.cause is not None for finding in summary.findings) == 3
    assert summary.outages.unknown(CHATS) == 17
    assert "17 findings" in summary.warnings[0]
    scene.settings = scene.settings.model_copy(update={"causes_limit": 0})
    summary = look(scene, "chat")
    assert not any(finding.cause for finding in summary.findings)
    assert summary.warnings == []


def test_a_long_stream_has_a_cause_too(scene: Scene) -> None:
    scene.index()
    scene.add(long_stream(3_000))
    scene.build()
    key = found_in(scene.chats)["chat_id"]
    lose(scene, lambda events, _: {event["version"] for event in events if event["version"] > 2_500})
    scene.settings = scene.settings.model_copy(update={"causes_limit": 1_000})
    for finding in look(scene).findings:
        assert finding.aggregate_id == key
        assert finding.cause is not None
        assert finding.cause.kind is CauseKind.BEHIND
        assert finding.cause.lost[0].version > 2_500
        assert (finding.cause.at_version or 0) >= 2_500


def test_one_aggregate_is_told_why(scene: Scene) -> None:
    scene.index()
    chat = scene.chat("a")
    scene.build()
    scene.append(chat, ("chat.renamed", {"new_title": "b"}))
    (finding,) = scene.projector("chat").verify_consistency(chat).findings
    assert finding.cause is not None
    assert finding.cause.as_json() == {
        "kind": "behind",
        "at_version": 2,
        "lost": [{"version": 3, "event_type": "chat.renamed", "occurred_at": None}],
        "missed": 1,
    }
