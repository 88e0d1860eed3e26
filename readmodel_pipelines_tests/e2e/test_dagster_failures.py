"""How the Dagster jobs and assets fail: in words, and with what was found."""

from __future__ import annotations

from uuid import uuid4

import dagster as dg
import pytest

from readmodel_pipelines.bookkeeping.leases import hold_leases
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.verbs.dagster_runs import (
    CHATS,
    SAMPLE,
    TASKS,
    materialize,
    materialized,
    observed,
    run,
    sentence,
    stored,
    table,
)


def test_damage_fails_a_verification_with_its_counts_until_a_rebuild_mends_it(
    sample: Mongo, instance: dg.DagsterInstance
) -> None:
    assert run(instance, "rebuild_read_models", "chat").success
    right = stored(sample, CHATS)
    first, second, *_ = sorted(right)
    sample[CHATS].update_one({"chat_id": first}, {"$set": {"title": "not what the events say", "is_public": "yes"}})
    sample[CHATS].delete_one({"chat_id": second})
    sample[CHATS].insert_one({"chat_id": str(uuid4())})

    failed = run(instance, "verify_read_models", "chat")
    said = sentence(failed)
    assert "chats_read_model: 3 of 41 aggregates are not as their events say" in said
    assert "1 missing, 1 different, 1 orphan" in said
    assert "rebuild_read_models" in said
    assert not materialized(instance, failed)
    numbers = observed(instance, failed)[CHATS]
    assert (numbers["missing"], numbers["different"], numbers["orphan"], numbers["same"]) == (1, 1, 1, 38)
    lines = [line for line in table(numbers) if line["aggregate_id"] == first]
    assert {line["field"] for line in lines} == {"title", "is_public"}
    assert {line["actual"] for line in lines} == {'"not what the events say"', '"yes"'}
    assert {line["outcome"] for line in table(numbers)} == {"missing", "different", "orphan"}

    mended = run(instance, "rebuild_read_models", "chat")
    assert mended.success
    written = materialized(instance, mended)[CHATS]
    assert (written["inserted"], written["replaced"], written["deleted"]) == (1, 1, 1)
    assert stored(sample, CHATS) == right
    assert run(instance, "verify_read_models", "chat").success


def test_the_table_of_findings_is_as_long_as_asked_and_the_counts_are_whole(
    sample: Mongo, instance: dg.DagsterInstance
) -> None:
    few = observed(instance, run(instance, "verify_read_models", "chat", max_findings=3))[CHATS]
    none = observed(instance, run(instance, "verify_read_models", "chat", max_findings=0))[CHATS]

    assert len(table(few)) == 3
    assert "findings" not in none
    assert few["missing"] == none["missing"] == 40


def test_a_malformed_stream_fails_the_run_in_words_and_every_other_aggregate_is_rebuilt(
    sample: Mongo, instance: dg.DagsterInstance
) -> None:
    long_enough = next(event for event in SAMPLE if event["version"] == 3)["aggregate_id"]
    sample.events.delete_one({"aggregate_id": long_enough, "version": 2})
    sample[CHATS].insert_one({"chat_id": long_enough, "title": "as it was"})

    result = materialize(instance, CHATS, TASKS)
    said = sentence(result)
    assert "chats_read_model: 1 of 40 aggregates could not be rebuilt: 1 malformed" in said
    assert "tasks_read_model: 1 of 40 aggregates could not be rebuilt: 1 malformed" in said
    assert "mends the events" in said
    assert sample[CHATS].count_documents({}) == 40
    assert sample[CHATS].count_documents({"chat_id": long_enough, "title": "as it was"}) == 1
    assert (materialized(instance, result)[CHATS]["inserted"], materialized(instance, result)[CHATS]["malformed"]) == (
        39,
        1,
    )
    (line,) = [line for line in table(materialized(instance, result)[CHATS]) if line["outcome"] == "malformed"]
    assert line["aggregate_id"] == long_enough
    assert line["reason"].startswith("version_gap")

    partition = run(instance, "rebuild_read_models", "chat")
    assert "1 of 40 aggregates could not be rebuilt: 1 malformed" in sentence(partition)
    assert materialized(instance, partition)[CHATS]["same"] == 39


def test_one_malformed_aggregate_fails_in_words(sample: Mongo, instance: dg.DagsterInstance) -> None:
    chat_id = SAMPLE[0]["aggregate_id"]
    sample.events.delete_one({"aggregate_id": chat_id, "version": 1})

    result = run(instance, "rebuild_aggregate", aggregate_type="chat", aggregate_id=chat_id)
    assert "1 of 1 aggregates could not be rebuilt: 1 malformed" in sentence(result)


def test_too_many_deletions_are_refused_until_they_are_allowed(sample: Mongo, instance: dg.DagsterInstance) -> None:
    sample[CHATS].insert_many([{"chat_id": str(uuid4())} for _ in range(101)])

    refused = run(instance, "rebuild_read_models", "chat")
    assert "set allow_deletions" in sentence(refused)
    assert sample[CHATS].count_documents({}) == 141

    assert run(instance, "rebuild_read_models", "chat", allow_deletions=True).success
    assert sample[CHATS].count_documents({}) == 40


@pytest.mark.parametrize(
    ("aggregate_id", "words"),
    [
        ("6f1c", "'6f1c' is no aggregate id.\nAn id is a UUID: 8-4-4-4-12 hexadecimal digits"),
        ("c1ff5917-b7aa-4647-93c3-49dc8f855d04", "neither an event nor a document"),
    ],
    ids=["no UUID", "unknown"],
)
def test_a_wrong_id_is_told_in_a_sentence(
    sample: Mongo, instance: dg.DagsterInstance, aggregate_id: str, words: str
) -> None:
    result = run(instance, "rebuild_aggregate", aggregate_type="chat", aggregate_id=aggregate_id)

    assert words in sentence(result)
    assert "it is aggregate_id in events, chat_id in chats_read_model" in sentence(result).lower()
    assert not observed(instance, result)


def test_a_number_out_of_its_range_is_told_in_a_sentence(sample: Mongo, instance: dg.DagsterInstance) -> None:
    said = sentence(run(instance, "verify_read_models", "chat", sample=0, max_findings=5000))

    assert "sample is 0: Input should be greater than or equal to 1" in said
    assert "max_findings is 5000: Input should be less than or equal to 1000" in said
    assert "launch again" in said


def test_a_setting_that_cannot_be_used_is_told_in_a_sentence(
    sample: Mongo, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("READMODEL_TASK_SOURCE", "elsewhere")

    assert "READMODEL_TASK_SOURCE" in sentence(run(instance, "verify_read_models", "task"))


@pytest.mark.parametrize("job", ["rebuild_read_models", "verify_read_models"])
def test_a_run_that_names_no_partition_says_which_there_are(
    sample: Mongo, instance: dg.DagsterInstance, job: str
) -> None:
    assert "one of the partitions chat, task" in sentence(run(instance, job))
    assert sample[CHATS].count_documents({}) == 0


def test_a_second_rebuild_says_who_is_at_it(sample: Mongo, settings: Settings, instance: dg.DagsterInstance) -> None:
    with hold_leases(sample, [CHATS], 60, "the night shift"):
        for result in (run(instance, "rebuild_read_models", "chat"), materialize(instance, CHATS, TASKS)):
            assert "chats_read_model is being rebuilt by the night shift since" in sentence(result)
        assert run(instance, "rebuild_read_models", "task").success
        assert run(instance, "verify_read_models", "task").success
    assert sample[CHATS].count_documents({}) == 0

    result = run(instance, "rebuild_read_models", "chat")
    assert result.success
    lease = sample.readmodel_leases.find_one({"_id": f"rebuild:{CHATS}"})
    assert lease is not None
    assert lease["holder"] == f"Dagster run {result.run_id}"
