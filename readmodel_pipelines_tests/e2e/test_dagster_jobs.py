"""The Dagster jobs and assets against a real MongoDB: what they write, what they record, and how they fail."""

from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest
from dagster import DagsterEventType

from readmodel_pipelines.bookkeeping.leases import hold_leases
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.definitions import defs
from readmodel_pipelines.demo.sample_data import chat_events, task_events
from readmodel_pipelines.rebuild import RebuildRequest, rebuild
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.recorded import read_documents
from readmodel_pipelines_tests.support.scene import Mongo, make_right
from readmodel_pipelines_tests.support.verbs.dagster_runs import (
    BOTH,
    CHATS,
    SAMPLE,
    TASKS,
    Dagster,
    recorded,
    sentence,
    stored,
    table,
    values,
    with_events,
)
from readmodel_pipelines_tests.support.verbs.swapping import WhileRead, while_read  # noqa: F401


@pytest.mark.parametrize(("partition", "read_model"), BOTH)
def test_a_rebuild_plots_numbers_on_its_asset(sample: Mongo, dagster: Dagster, partition: str, read_model: str) -> None:
    result = dagster.run("rebuild_read_models", partition)

    assert set(dagster.materialized(result)) == {read_model}
    said = dagster.materialized(result)[read_model]
    documents = sample[read_model].count_documents({})
    assert (said["verb"], said["checked"], said["inserted"]) == ("rebuild", 40, documents)
    assert (said["missing"], said["discrepancies"], said["dagster/row_count"]) == (documents,) * 3
    assert said["events"] == len(SAMPLE)
    slowest, fastest = said["seconds"] + 0.001, max(said["seconds"] - 0.001, 1e-9)
    # It is told to one place.
    assert said["events"] / slowest - 0.1 < said["events_per_second"] < said["events"] / fastest + 0.1
    assert (said["strategy"], said["state"]) == ("in_place", "done")
    (made,) = dagster.recorded(result, DagsterEventType.ASSET_MATERIALIZATION)
    shown = made.materialization.metadata
    plotted = {name for name, item in shown.items() if type(item.value) in (int, float)}
    assert plotted == {"seconds", "events_per_second", "written", "dagster/row_count"}, "what a person follows"
    assert "findings" not in shown, "what it mended is on the page of the run"
    assert f"{documents} inserted" in dagster.log_of(result)
    rebuild, verify = result.dagster_run.tags, dagster.run("verify_read_models", partition).dagster_run.tags
    assert rebuild["readmodel/aggregate_type"] == verify["readmodel/aggregate_type"] == partition
    assert rebuild["readmodel/rebuild"].startswith(f"{partition}@")
    assert "readmodel/rebuild" not in verify


def test_materializing_one_asset_writes_that_read_model_alone(sample: Mongo, dagster: Dagster) -> None:
    result = dagster.materialize(TASKS)

    assert result.success
    assert set(dagster.materialized(result)) == {TASKS}
    assert sample[TASKS].count_documents({}) > 0
    assert sample[CHATS].count_documents({}) == 0


def test_one_pass_and_partitions_make_what_the_application_wrote(
    database: Mongo, settings: Settings, dagster: Dagster, corpus: Path
) -> None:
    with_events(database, settings, read_documents(corpus / "small" / "events.jsonl.gz"))
    result = dagster.materialize(CHATS, TASKS)
    assert result.success
    for partition, read_model in BOTH:
        wanted = recorded(corpus / "small", read_model)
        assert stored(database, read_model) == wanted
        made = dagster.materialized(result)[read_model]
        assert (made["dagster/row_count"], made["events"]) == (len(wanted), database.events.count_documents({}))
        database[read_model].delete_many({})
        again = dagster.materialized(dagster.run("rebuild_read_models", partition))[read_model]
        assert (again["inserted"], again["checked"]) == (len(wanted), 200)
        assert stored(database, read_model) == wanted
        assert dagster.run("verify_read_models", partition).success


def test_a_dry_run_predicts_the_rebuild_and_neither_writes_nor_materializes(sample: Mongo, dagster: Dagster) -> None:
    dry = dagster.run("rebuild_read_models", "chat", dry_run=True)

    assert dry.success
    assert not dagster.materialized(dry)
    assert sample[CHATS].count_documents({}) == 0
    (output,) = [event for event in dry.all_events if event.event_type is DagsterEventType.STEP_OUTPUT]
    predicted = values(output.step_output_data.metadata)
    done = dagster.materialized(dagster.run("rebuild_read_models", "chat"))[CHATS]
    counts = ("checked", "same", "missing", "inserted", "replaced", "deleted", "failed")
    assert predicted["verb"] == "dry_run"
    assert {name: predicted[name] for name in counts} == {name: done.get(name, 0) for name in counts}


def test_a_dry_run_has_a_table_of_the_fields_that_a_rebuild_would_change(sample: Mongo, dagster: Dagster) -> None:
    assert dagster.materialize(CHATS).success
    ids = sorted(item["chat_id"] for item in sample[CHATS].find())[:2]
    sample[CHATS].update_many({"chat_id": {"$in": ids}}, {"$set": {"title": "damaged"}})
    dry = dagster.run("rebuild_read_models", "chat", dry_run=True)
    (output,) = [event for event in dry.all_events if event.event_type is DagsterEventType.STEP_OUTPUT]
    (row,) = table(output.step_output_data.metadata, "changes")
    assert (row["field"], row["documents"], row["example"], row["before"]) == ("title", 2, ids[0], '"damaged"')


def test_one_aggregate_is_predicted_and_rebuilt_but_not_materialized(sample: Mongo, dagster: Dagster) -> None:
    chat_id = SAMPLE[0]["aggregate_id"]
    dry = dagster.run("rebuild_aggregate", aggregate_type="chat", aggregate_id=chat_id, dry_run=True)
    assert dry.success
    assert sample[CHATS].count_documents({}) == 0
    assert "a rebuild would write: 1 inserted" in dagster.log_of(dry)

    result = dagster.run("rebuild_aggregate", aggregate_type="chat", aggregate_id=chat_id)
    assert [item["chat_id"] for item in sample[CHATS].find()] == [chat_id]
    said = dagster.observed(result)[CHATS]
    assert (said["aggregate_id"], said["outcome"], said["written"]) == (chat_id, "missing", "inserted")
    assert "chats_read_model: 1 aggregates compared: 1 missing; written: 1 inserted." in dagster.log_of(result)
    assert not dagster.materialized(dry)
    assert not dagster.materialized(result)
    (seen,) = dagster.recorded(result, DagsterEventType.ASSET_OBSERVATION)
    texts = seen.asset_observation_data.asset_observation.metadata
    assert [name for name, item in texts.items() if type(item.value) in (int, float)] == []


def test_a_history_is_on_the_page_of_its_run_and_writes_nothing(
    sample: Mongo, settings: Settings, dagster: Dagster
) -> None:
    make_right(sample, settings)
    events = sorted((item for item in SAMPLE if item["aggregate_type"] == "Chat"), key=lambda item: item["version"])
    chat_id, last = events[-1]["aggregate_id"], events[-1]["version"]
    sample[CHATS].update_one({"chat_id": chat_id}, {"$set": {"title": "by hand"}})
    before = [sample[name].find_one({"chat_id": chat_id}) for name in (CHATS, TASKS)]
    result = dagster.run("show_history", aggregate_id=f" {chat_id.upper()}", max_rows=7)

    assert result.success
    (output,) = [event for event in result.all_events if event.event_type is DagsterEventType.STEP_OUTPUT]
    metadata = output.step_output_data.metadata
    said, rows = values(metadata), table(metadata, "history")
    assert set(rows[-1]) == {"version", "occurred_at", "event_type", "read_model", "field", "before", "after"}
    assert (len(rows), rows[-1]["version"]) == (7, last)
    assert said["events"] == f"{last:,} of {last:,}"
    assert "older lines" in said["left_out"]
    assert f"Stored in {CHATS}: different, and equals no version" in said["stands"]
    assert {row["field"] for row in table(metadata, "set_last_by")} > {"title", "participants"}
    assert ", expected " in dagster.log_of(result)
    assert [sample[name].find_one({"chat_id": chat_id}) for name in (CHATS, TASKS)] == before
    assert not dagster.materialized(result)
    of_title = dagster.run("show_history", aggregate_id=chat_id, aggregate_type="chat", field="title", at_version=1)
    (output,) = [event for event in of_title.all_events if event.event_type is DagsterEventType.STEP_OUTPUT]
    assert [row["field"] for row in table(output.step_output_data.metadata, "history")] == ["title"]


def test_one_aggregate_is_rebuilt_in_every_read_model_at_once(
    sample: Mongo, settings: Settings, dagster: Dagster
) -> None:
    make_right(sample, settings)
    both = [item["task_id"] for item in sample[TASKS].find()][:1]
    for name, key in ((CHATS, "chat_id"), (TASKS, "task_id")):
        sample[name].update_one({key: both[0]}, {"$set": {"title": "damaged"}})
    result = dagster.run("rebuild_aggregate", aggregate_id=both[0])
    assert result.success
    said = dagster.observed(result)
    assert {name: said[name]["written"] for name in (CHATS, TASKS)} == {CHATS: "replaced", TASKS: "replaced"}
    (output,) = [event for event in result.all_events if event.event_type is DagsterEventType.STEP_OUTPUT]
    assert {f"{CHATS}/outcome", f"{TASKS}/outcome"} <= set(output.step_output_data.metadata)


def test_runs_are_found_by_their_aggregate_or_read_model(sample: Mongo, settings: Settings, dagster: Dagster) -> None:
    chat_id, other = SAMPLE[0]["aggregate_id"], SAMPLE[-1]["aggregate_id"]
    one = dagster.run("rebuild_aggregate", aggregate_type="chat", aggregate_id=f" {chat_id.upper()}")
    dagster.run("rebuild_aggregate", aggregate_type="chat", aggregate_id=other)
    assert not dagster.run("rebuild_aggregate", aggregate_type="chat", aggregate_id="no id").success
    asset = dagster.materialize(CHATS)
    dagster.materialize(CHATS, TASKS)
    queue = RepairQueue(sample, settings)
    queue.add(chat_id, "chat")
    repair = dagster.run("repair_read_models")
    queue.add(chat_id, "chat")
    queue.add(other, "chat")
    assert dagster.run("repair_read_models").success

    def found(**tags: str) -> set[str]:
        filters = dg.RunsFilter(tags={f"readmodel/{name}": value for name, value in tags.items()})
        return {item.run_id for item in dagster.instance.get_runs(filters)}

    assert found(aggregate_id=chat_id) == {one.run_id, repair.run_id}
    assert asset.run_id in found(aggregate_type="chat")
    assert len(found(aggregate_type="chat")) == 4


def test_legacy_tasks_are_rebuilt_in_the_partition_of_tasks(
    database: Mongo, legacy_settings: Settings, dagster: Dagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("READMODEL_TASK_SOURCE", "task")
    with_events(database, legacy_settings, [*chat_events(5), *task_events(7)])

    result = dagster.materialize(CHATS, TASKS)
    assert result.success
    assert (dagster.materialized(result)[CHATS]["inserted"], dagster.materialized(result)[TASKS]["inserted"]) == (5, 7)
    assert dagster.run("verify_read_models", "task").success


def test_a_run_logs_its_progress_with_outcomes_and_its_phases(sample: Mongo, dagster: Dagster) -> None:
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=dagster.instance, run_config={"resources": {"mongo": {"config": {"progress_seconds": 0}}}}
    )

    said = dagster.log_of(result)
    assert f"{len(SAMPLE):,} of about {len(SAMPLE):,} events read" in said
    assert "chats_read_model: 40 missing" in said
    phases = ["1 of 1 ranges to do, by this process.", "Every range is done.", "Catch-up: "]
    assert [phase for phase in phases if phase in said] == phases
    assert sorted(phases, key=said.index) == phases
    assert "events read" not in dagster.log_of(dagster.materialize(CHATS))


def test_a_shadow_logs_its_gate_and_its_swap(sample: Mongo, dagster: Dagster) -> None:
    result = dagster.run("rebuild_read_models", "chat", strategy="shadow")
    said, about = dagster.log_of(result), dagster.materialized(result)[CHATS]

    assert (about["strategy"], about["state"], about["inserted"]) == ("shadow", "done", 40)
    phases = ["Every range is done.", "Gate: ", "The gate is passed.", "Cut-over: ", "Catch-up: "]
    assert sorted(phases, key=said.index) == phases


def test_a_run_ends_with_a_table_of_outcomes_by_read_model(sample: Mongo, dagster: Dagster) -> None:
    sample[CHATS].insert_one({"chat_id": str(uuid4())})
    lines = {
        line.data["outcome or write"]: line.data
        for line in dagster.materialized(dagster.materialize(CHATS, TASKS))[CHATS]["outcomes"].records
    }

    assert (lines["missing"][CHATS], lines["orphan"][CHATS], lines["deleted"][CHATS]) == (40, 1, 1)
    tasks = sample[TASKS].count_documents({})
    assert (lines["inserted"][CHATS], lines["inserted"][TASKS], lines["same"][TASKS]) == (40, tasks, 40 - tasks)
    assert all(line["meaning"] for line in lines.values())
    verified = dagster.run("verify_read_models", "chat")
    written = {line.data["outcome or write"] for line in dagster.observed(verified)[CHATS]["outcomes"].records}
    assert "inserted" not in written


# How they fail: in words, and with what was found


def test_a_verification_goes_on_with_a_read_model_that_is_swapped_in_meanwhile(
    sample: Mongo,
    settings: Settings,
    dagster: Dagster,
    while_read: WhileRead,  # noqa: F811
) -> None:
    make_right(sample, settings)
    shadow = RebuildRequest(strategy="shadow")
    acted = while_read(CHATS, lambda: rebuild(sample, settings, ["chat"], shadow))
    result = dagster.run("verify_read_models", "chat")
    assert acted
    assert result.success


def test_damage_fails_a_verification_with_its_counts_until_a_rebuild_mends_it(sample: Mongo, dagster: Dagster) -> None:
    assert dagster.run("rebuild_read_models", "chat").success
    right = stored(sample, CHATS)
    first, second, *_ = sorted(right)
    sample[CHATS].update_one({"chat_id": first}, {"$set": {"title": "not what the events say", "is_public": "yes"}})
    sample[CHATS].delete_one({"chat_id": second})
    sample[CHATS].insert_one({"chat_id": str(uuid4())})

    failed = dagster.run("verify_read_models", "chat")
    said = sentence(failed)
    assert "chats_read_model: 3 of 41 aggregates" in said
    assert "1 missing, 1 different, 1 orphan" in said
    assert "rebuild_read_models" in said
    assert not dagster.materialized(failed)
    numbers = dagster.observed(failed)[CHATS]
    assert (numbers["missing"], numbers["different"], numbers["orphan"], numbers["same"]) == (1, 1, 1, 38)
    lines = [line for line in table(numbers) if line["aggregate_id"] == first]
    assert {line["field"] for line in lines} == {"title", "is_public"}
    assert {line["actual"] for line in lines} == {'"not what the events say"', '"yes"'}
    assert {line["outcome"] for line in table(numbers)} == {"missing", "different", "orphan"}

    mended = dagster.run("rebuild_read_models", "chat")
    assert mended.success
    written = dagster.materialized(mended)[CHATS]
    assert (written["inserted"], written["replaced"], written["deleted"]) == (1, 1, 1)
    assert stored(sample, CHATS) == right
    assert dagster.run("verify_read_models", "chat").success


def test_the_table_of_findings_is_as_long_as_asked_and_the_counts_are_whole(sample: Mongo, dagster: Dagster) -> None:
    few = dagster.observed(dagster.run("verify_read_models", "chat", max_findings=3))[CHATS]
    none = dagster.observed(dagster.run("verify_read_models", "chat", max_findings=0))[CHATS]

    assert len(table(few)) == 3
    assert "findings" not in none
    assert few["missing"] == none["missing"] == 40


def test_a_malformed_stream_fails_the_run_in_words_and_every_other_is_rebuilt(sample: Mongo, dagster: Dagster) -> None:
    long_enough = next(event for event in SAMPLE if event["version"] == 3)["aggregate_id"]
    sample.events.delete_one({"aggregate_id": long_enough, "version": 2})
    sample[CHATS].insert_one({"chat_id": long_enough, "title": "as it was"})

    result = dagster.materialize(CHATS, TASKS)
    said = sentence(result)
    assert "chats_read_model: 1 of 40 aggregates could not be rebuilt: 1 malformed" in said
    assert "tasks_read_model: 1 of 40 aggregates could not be rebuilt: 1 malformed" in said
    assert sample[CHATS].count_documents({}) == 40
    assert sample[CHATS].count_documents({"chat_id": long_enough, "title": "as it was"}) == 1
    assert (dagster.observed(result)[CHATS]["inserted"], dagster.observed(result)[CHATS]["malformed"]) == (39, 1)
    (line,) = [line for line in table(dagster.observed(result)[CHATS]) if line["outcome"] == "malformed"]
    assert line["aggregate_id"] == long_enough
    assert line["reason"].startswith("version_gap")

    partition = dagster.run("rebuild_read_models", "chat")
    assert "1 of 40 aggregates could not be rebuilt: 1 malformed" in sentence(partition)
    assert dagster.observed(partition)[CHATS]["same"] == 39
    alone = dagster.run("rebuild_aggregate", aggregate_type="chat", aggregate_id=long_enough)
    assert "1 of 1 aggregates could not be rebuilt: 1 malformed" in sentence(alone)


@pytest.mark.parametrize(("strategy", "words"), [("in_place", "set allow_deletions"), ("shadow", "4 of about 44")])
def test_too_many_deletions_are_refused_unless_allowed(
    sample: Mongo, dagster: Dagster, strategy: str, words: str
) -> None:
    assert dagster.run("rebuild_read_models", "chat").success
    sample[CHATS].insert_many([{"chat_id": str(uuid4())} for _ in range(4)])

    assert words in sentence(dagster.run("rebuild_read_models", "chat", strategy=strategy))
    assert sample[CHATS].count_documents({}) == 44

    assert dagster.run("rebuild_read_models", "chat", strategy=strategy, allow_deletions=True).success
    assert sample[CHATS].count_documents({}) == 40


@pytest.mark.parametrize(
    ("aggregate_id", "words"),
    [
        ("6f1c", "'6f1c' is no aggregate id.\nAn id is a UUID: 8-4-4-4-12 hexadecimal digits"),
        ("c1ff5917-b7aa-4647-93c3-49dc8f855d04", "neither an event nor a document"),
    ],
    ids=["no UUID", "unknown"],
)
def test_a_wrong_id_is_told_in_a_sentence(sample: Mongo, dagster: Dagster, aggregate_id: str, words: str) -> None:
    result = dagster.run("rebuild_aggregate", aggregate_type="chat", aggregate_id=aggregate_id)

    assert words in sentence(result)
    assert "it is aggregate_id in events, chat_id in chats_read_model" in sentence(result).lower()
    assert not dagster.observed(result)


def test_a_number_out_of_its_range_is_told_in_a_sentence(sample: Mongo, dagster: Dagster) -> None:
    said = sentence(dagster.run("verify_read_models", "chat", sample=0, max_findings=5000))

    assert "sample is 0: Input should be greater than or equal to 1" in said
    assert "max_findings is 5000: Input should be less than or equal to 1000" in said
    assert "launch again" in said


@pytest.mark.parametrize("job", ["rebuild_read_models", "verify_read_models"])
def test_a_run_that_names_no_partition_says_which_there_are(sample: Mongo, dagster: Dagster, job: str) -> None:
    assert "one of the partitions chat, task" in sentence(dagster.run(job))
    assert sample[CHATS].count_documents({}) == 0


def test_a_second_rebuild_says_who_is_at_it(sample: Mongo, settings: Settings, dagster: Dagster) -> None:
    with hold_leases(sample, [CHATS], 60, "the night shift"):
        for result in (dagster.run("rebuild_read_models", "chat"), dagster.materialize(CHATS, TASKS)):
            assert "chats_read_model is being rebuilt by the night shift since" in sentence(result)
        assert dagster.run("rebuild_read_models", "task").success
        assert dagster.run("verify_read_models", "task").success
    assert sample[CHATS].count_documents({}) == 0

    result = dagster.run("rebuild_read_models", "chat")
    assert result.success
    lease = sample.readmodel_leases.find_one({"_id": f"rebuild:{CHATS}"})
    assert lease is not None
    assert lease["holder"] == f"Dagster run {result.run_id}"
