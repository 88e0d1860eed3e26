"""The worked example of extending.md is one file, and with it there is a read model like the built-in ones."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bson.datetime_ms import DatetimeMS

from readmodel_pipelines import RepairQueue, RepairWorker, spread
from readmodel_pipelines.mongo.names import REBUILDS as REBUILDS
from readmodel_pipelines.rebuild import RebuildRequest, rebuild
from readmodel_pipelines.settings import Settings, load_settings
from readmodel_pipelines.verification.coverage import Coverage
from readmodel_pipelines.verification.verify import VerificationRequest, verify
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.verbs.command_line import readmodel
from readmodel_pipelines_tests.support.verbs.dagster_runs import CHATS, SAMPLE, Document

EXAMPLE = Path(__file__).parents[2] / "readmodel_pipelines" / "docs" / "examples" / "chat_activity.py"
NAME, ACTIVITY = "chat_activity", "chat_activity_read_model"
DELETED = {event["aggregate_id"] for event in SAMPLE if event["event_type"] == "chat.deleted"}
CHAT_IDS = sorted({event["aggregate_id"] for event in SAMPLE} - DELETED)


@pytest.fixture(autouse=True)
def extended(_environment: None, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An environment that names the example, for this process and those that it starts."""
    monkeypatch.setenv("READMODEL_PROJECTIONS", str(EXAMPLE))
    return load_settings()


def as_json(*arguments: str, exit_code: int = 0) -> dict[str, Any]:
    ended = readmodel(*arguments, "--json")
    assert ended.exit_code == exit_code, ended.output
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


def expected() -> list[Document]:
    """Worked out from the events without the projection."""
    documents = []
    for chat_id in CHAT_IDS:
        events = [event for event in SAMPLE if event["aggregate_id"] == chat_id]
        documents.append(
            {
                "chat_id": chat_id,
                "workspace_id": events[0]["data"]["workspace_id"],
                "version": len(events),
                "people": len({e["data"]["user_id"] for e in events if e["event_type"] == "chat.participant_added"}),
                "last_event_at": DatetimeMS(max(int(event["occurred_at"]) for event in events)),
            }
        )
    return documents


def stored(database: Mongo) -> list[Document]:
    return list(database[ACTIVITY].find({}, {"_id": 0}).sort("chat_id"))


def test_the_command_line_offers_it_only_where_the_setting_names_it(extended: Settings) -> None:
    program = [sys.executable, "-m", "readmodel_pipelines.cli.main", "rebuild-readmodel", "--help"]
    for source, said in (
        (str(EXAMPLE), "chat|task|chat_activity|all"),
        ("", "chat|task|all"),
        ("/no", "chat|task|…|all"),
    ):
        environment = {**os.environ, "READMODEL_PROJECTIONS": source}
        ended = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
        assert said in ended.stdout.split()

    unknown = readmodel("verify-consistency", "--type", "activity", "--all")
    assert unknown.exit_code == 2
    assert "--type takes chat, task, chat_activity, all." in unknown.output


def test_it_is_indexed_built_verified_and_swapped_in_like_the_built_in_ones(sample: Mongo) -> None:
    assert DELETED
    assert readmodel("ensure-indexes").exit_code == 0
    unique = [list(item["key"]) for item in sample[ACTIVITY].list_indexes() if item.get("unique")]
    assert unique == [["chat_id"]]
    assert ACTIVITY in readmodel("rights", "rebuild").stdout

    built = as_json("rebuild-readmodel", "--type", "all", "--all")
    # One pass feeds all three, although one of them has a fold of its own.
    assert built["events"] == len(SAMPLE)
    assert built["read_models"][ACTIVITY]["inserted"] == len(CHAT_IDS)
    assert stored(sample) == expected()

    sample[ACTIVITY].update_many({}, {"$set": {"pinned_by": "somebody else's field"}})
    assert as_json("rebuild-readmodel", "--type", NAME, "--all", "--strategy", "shadow")["state"] == "done"
    assert stored(sample) == [{**item, "pinned_by": "somebody else's field"} for item in expected()]
    for tier in ("documents", "versions"):
        verified = as_json("verify-consistency", "--type", NAME, "--all", "--tier", tier)
        assert verified["read_models"][ACTIVITY]["checked"] == len(CHAT_IDS) + len(DELETED)
        assert verified["findings"] == []

    told = readmodel("metrics", "--once").stdout
    assert f'readmodel_documents{{read_model="{ACTIVITY}"}} {len(CHAT_IDS)}.0\n' in told
    assert f'readmodel_last_rebuild_success{{read_model="{ACTIVITY}"}} 1.0\n' in told


def test_damage_is_found_explained_and_mended_by_a_rebuild_or_a_repair(sample: Mongo, extended: Settings) -> None:
    as_json("rebuild-readmodel", "--type", "all", "--all")
    wrong, missing, stale = CHAT_IDS[:3]
    sample[ACTIVITY].update_one({"chat_id": wrong}, {"$set": {"people": 99}})
    sample[ACTIVITY].delete_one({"chat_id": missing})
    sample[ACTIVITY].insert_one({"chat_id": next(iter(DELETED))})

    found = as_json("verify-consistency", "--type", "all", "--all", exit_code=1)["findings"]
    assert {(item["read_model"], item["outcome"]) for item in found} == {
        (ACTIVITY, outcome) for outcome in ("different", "missing", "unexpected")
    }
    (fields,) = [item["fields"] for item in found if item["aggregate_id"] == wrong]
    assert fields == {"people": {"expected": expected()[0]["people"], "actual": 99}}

    assert as_json("rebuild-readmodel", "--type", NAME, "--id", wrong)["read_models"][ACTIVITY]["replaced"] == 1
    # A producer knows of chats; every read model that is made from the stream is repaired.
    queue = RepairQueue(sample, extended)
    for aggregate_id, aggregate_type in ((missing, "Chat"), (next(iter(DELETED)), NAME), (stale, "chat")):
        assert queue.add(aggregate_id, aggregate_type)
    sample[ACTIVITY].update_one({"chat_id": stale}, {"$set": {"version": 1}})
    sample[CHATS].update_one({"chat_id": stale}, {"$set": {"title": "stale"}})
    assert RepairWorker(sample, extended).work().completed == 3
    assert stored(sample) == expected()
    assert as_json("verify-consistency", "--type", "all", "--all")["findings"] == []


def test_worker_processes_load_it_too(sample: Mongo, extended: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "EVENTS_WORTH_A_PROCESS", 50)
    settings = extended.model_copy(update={"workers": 2})

    assert rebuild(sample, settings, [NAME], RebuildRequest("shadow")).ok
    assert verify(sample, settings, [NAME], VerificationRequest(Coverage())).ok

    record = sample[REBUILDS].find_one({"read_models": [ACTIVITY]})
    assert record is not None
    assert (record["state"], record["ranges"] > 2, record["schema_versions"]) == ("done", True, {ACTIVITY: 1})
    assert stored(sample) == expected()


def test_dagster_has_its_asset_checks_partitions_and_choice_and_runs_them(sample: Mongo) -> None:
    program = [
        sys.executable,
        "-m",
        "readmodel_pipelines_tests.support.processes.extension",
        ACTIVITY,
        NAME,
        CHAT_IDS[0],
    ]
    ended = subprocess.run(program, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout.splitlines()[-1])

    assert told == {
        "assets": [ACTIVITY, "chats_read_model", "tasks_read_model"],
        "made_from": ["events"],
        "code_version": "1",
        "checks": ["is_fresh", "is_verified", "matches_events", "streams_intact"],
        "partitions": {
            "rebuild_read_models": [NAME],
            "rebuild_slices": [f"{NAME}_{number:02d}_of_16" for number in range(1, 17)],
            "verify_read_models": [NAME],
        },
        "choices": ["all", "chat", NAME, "task"],
        "success": [True, True, True],
        "documents": len(CHAT_IDS),
        "passed": {"is_fresh": True, "matches_events": True, "streams_intact": True},
    }
    assert stored(sample) == expected()


def test_what_cannot_be_loaded_is_told_by_commands_and_by_dagster_before_anything_is_done(
    sample: Mongo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.py"
    file.write_text("READ_MODELS = ()")
    monkeypatch.setenv("READMODEL_PROJECTIONS", str(file))

    refused = readmodel("rebuild-readmodel", "--type", "all", "--all")

    assert refused.exit_code == 2
    assert f"READMODEL_PROJECTIONS names {file}, which adds no read model" in refused.output
    assert sample[CHATS].find_one() is None
    loaded = subprocess.run(
        [sys.executable, "-c", "import readmodel_pipelines.orchestration.partitions"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"READMODEL_PROJECTIONS names {file}, which adds no read model" in loaded.stderr
