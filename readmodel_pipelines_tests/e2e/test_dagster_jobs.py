"""The Dagster jobs and assets against a real MongoDB: what they write, what they record, how they fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest
from bson import json_util
from dagster import DagsterEventType, ExecuteInProcessResult
from pymongo.database import Database

from readmodel_pipelines.definitions import defs
from readmodel_pipelines.demo.sample_data import chat_events, task_events
from readmodel_pipelines.mongo.indexes import ensure_indexes
from readmodel_pipelines.mongo.leases import hold_leases
from readmodel_pipelines.orchestration.metadata import Progress
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.conftest import EXTENDED_JSON, read_documents

Document = dict[str, Any]
Mongo = Database[Document]

CHATS, TASKS = "chats_read_model", "tasks_read_model"
BOTH = [("chat", CHATS), ("task", TASKS)]
SAMPLE = list(chat_events(40, seed=7))
NEVER_COUNTED = ("task.updated", "task.custom_field_set", "task.deleted")
"""Events of legacy tasks that the application does not count in `version` when it writes the document."""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture(autouse=True)
def _environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.mongodb_uri is not None
    monkeypatch.setenv("READMODEL_MONGODB_URI", settings.mongodb_uri.get_secret_value())
    monkeypatch.setenv("READMODEL_DATABASE", settings.database)


@pytest.fixture
def sample(database: Mongo, settings: Settings) -> Mongo:
    """The database with the events of forty chats and nothing made from them yet."""
    return with_events(database, settings, SAMPLE)


def with_events(database: Mongo, settings: Settings, events: list[Document]) -> Mongo:
    ensure_indexes(database, settings, projections_for(settings.task_source))
    database.events.insert_many(events)
    return database


def run(instance: dg.DagsterInstance, job: str, partition: str | None = None, **config: Any) -> ExecuteInProcessResult:
    (op,) = (node.name for node in defs.resolve_job_def(job).graph.nodes)
    return defs.resolve_job_def(job).execute_in_process(
        instance=instance,
        partition_key=partition,
        run_config={"ops": {op: {"config": config}}},
        raise_on_error=False,
    )


def materialize(instance: dg.DagsterInstance, *assets: str, **config: Any) -> ExecuteInProcessResult:
    return defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(asset) for asset in assets],
        run_config={"ops": {"rebuild_assets": {"config": config}}},
        raise_on_error=False,
    )


def sentence(result: ExecuteInProcessResult) -> str:
    """What the failed run says to the person who started it."""
    assert not result.success
    (failed,) = [event for event in result.all_events if event.event_type is DagsterEventType.STEP_FAILURE]
    assert failed.step_failure_data.user_failure_data is not None, failed.step_failure_data.error
    assert failed.step_failure_data.error.cause is None
    assert failed.step_failure_data.error.context is None
    return str(failed.step_failure_data.user_failure_data.description)


def values(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.value for name, value in metadata.items()}


def recorded_in(instance: dg.DagsterInstance, result: ExecuteInProcessResult, of: DagsterEventType) -> list[Any]:
    """Events as they are stored: those that a failed step logged are not among the result's own."""
    return [entry.get_dagster_event() for entry in instance.all_logs(result.run_id, of_type=of)]


def materialized(instance: dg.DagsterInstance, result: ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    """The metadata of what the run materialized, by asset."""
    events = recorded_in(instance, result, DagsterEventType.ASSET_MATERIALIZATION)
    return {event.asset_key.to_user_string(): values(event.materialization.metadata) for event in events}


def observed(instance: dg.DagsterInstance, result: ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    """The metadata of what the run observed, by asset."""
    events = recorded_in(instance, result, DagsterEventType.ASSET_OBSERVATION)
    return {
        event.asset_key.to_user_string(): values(event.asset_observation_data.asset_observation.metadata)
        for event in events
    }


def log_of(instance: dg.DagsterInstance, result: ExecuteInProcessResult) -> str:
    return "\n".join(entry.user_message for entry in instance.all_logs(result.run_id))


def table(metadata: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    records = metadata["findings"]
    return [dict(record.data) for record in getattr(records, "records", records)]


def typed(documents: list[Document], key: str) -> dict[str, str]:
    """Documents by their key, with every BSON type spelled out, without `_id`."""
    return {
        document[key]: json_util.dumps(
            {name: value for name, value in document.items() if name != "_id"},
            json_options=EXTENDED_JSON,
            sort_keys=True,
        )
        for document in documents
    }


def stored(database: Mongo, collection: str) -> dict[str, str]:
    return typed(list(database[collection].find()), "chat_id" if collection == CHATS else "task_id")


def recorded(folder: Path, collection: str) -> dict[str, str]:
    return typed(read_documents(folder / f"{collection}.jsonl.gz"), "chat_id" if collection == CHATS else "task_id")


# --- the recorded documents of the real application


@pytest.fixture
def recorded_events(database: Mongo, settings: Settings, corpus: Path) -> Mongo:
    return with_events(database, settings, read_documents(corpus / "small" / "events.jsonl.gz"))


def test_partition_runs_make_both_read_models_as_the_application_wrote_them(
    recorded_events: Mongo, instance: dg.DagsterInstance, corpus: Path
) -> None:
    for partition, read_model in BOTH:
        result = run(instance, "rebuild_read_models", partition)
        assert result.success
        assert stored(recorded_events, read_model) == recorded(corpus / "small", read_model)
        assert materialized(instance, result)[read_model]["dagster/row_count"] == len(
            recorded(corpus / "small", read_model)
        )

        again = materialized(instance, run(instance, "rebuild_read_models", partition))[read_model]
        assert (again["inserted"], again["replaced"], again["deleted"]) == (0, 0, 0)
        assert again["same"] == again["checked"] == 200

        verified = run(instance, "verify_read_models", partition)
        assert verified.success
        assert observed(instance, verified)[read_model]["same"] == 200


def test_materialized_assets_are_as_the_application_wrote_them_in_one_pass(
    recorded_events: Mongo, instance: dg.DagsterInstance, corpus: Path
) -> None:
    result = materialize(instance, CHATS, TASKS)
    assert result.success
    for _, read_model in BOTH:
        assert stored(recorded_events, read_model) == recorded(corpus / "small", read_model)
        assert materialized(instance, result)[read_model]["events"] == recorded_events.events.count_documents({})


def test_an_aggregate_alone_is_rebuilt_as_the_application_wrote_it(
    recorded_events: Mongo, instance: dg.DagsterInstance, corpus: Path
) -> None:
    for aggregate_type, read_model in BOTH:
        right = recorded(corpus / "small", read_model)
        chosen = sorted(right)[:: len(right) // 4]
        for aggregate_id in chosen:
            assert run(instance, "rebuild_aggregate", aggregate_type=aggregate_type, aggregate_id=aggregate_id).success
        assert stored(recorded_events, read_model) == {aggregate_id: right[aggregate_id] for aggregate_id in chosen}


def test_legacy_task_streams_give_the_tasks_that_their_repository_wrote(
    database: Mongo,
    legacy_settings: Settings,
    instance: dg.DagsterInstance,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("READMODEL_TASK_SOURCE", "task")
    folder = corpus / "legacy_tasks"
    with_events(database, legacy_settings, read_documents(folder / "events.jsonl.gz"))
    versions = {item["task_id"]: item["version"] for item in read_documents(folder / "tasks_read_model.jsonl.gz")}
    right = read_documents(folder / "tasks_written_by_repository.jsonl.gz")
    uncounted = database.events.distinct("aggregate_id", {"event_type": {"$in": list(NEVER_COUNTED)}})
    for document in right:
        if document["task_id"] in uncounted:
            document["version"] = versions[document["task_id"]]

    assert run(instance, "rebuild_read_models", "task").success
    assert stored(database, TASKS) == typed(right, "task_id")
    assert run(instance, "verify_read_models", "task").success


# --- what a run records


@pytest.mark.parametrize(("partition", "read_model"), BOTH)
def test_runs_of_a_partition_carry_its_aggregate_type_and_only_rebuilds_the_tag_that_makes_them_wait(
    sample: Mongo, instance: dg.DagsterInstance, partition: str, read_model: str
) -> None:
    rebuild = run(instance, "rebuild_read_models", partition).dagster_run.tags
    verify = run(instance, "verify_read_models", partition).dagster_run.tags

    assert (rebuild["readmodel/aggregate_type"], rebuild["readmodel/rebuild"]) == (partition, partition)
    assert verify["readmodel/aggregate_type"] == partition
    assert "readmodel/rebuild" not in verify


@pytest.mark.parametrize(("partition", "read_model"), BOTH)
def test_a_rebuild_records_numbers_to_plot_on_the_asset_of_its_read_model_only(
    sample: Mongo, instance: dg.DagsterInstance, partition: str, read_model: str
) -> None:
    result = run(instance, "rebuild_read_models", partition)

    assert set(materialized(instance, result)) == {read_model}
    said = materialized(instance, result)[read_model]
    documents = sample[read_model].count_documents({})
    assert (said["verb"], said["checked"], said["inserted"]) == ("rebuild", 40, documents)
    assert (said["missing"], said["discrepancies"], said["dagster/row_count"]) == (documents,) * 3
    assert said["events"] == len(SAMPLE)
    slowest, fastest = said["seconds"] + 0.001, max(said["seconds"] - 0.001, 1e-9)
    assert said["events"] / slowest < said["events_per_second"] < said["events"] / fastest
    plotted = set(said) - {"verb", "findings"}
    assert all(type(said[name]) in (int, float) for name in plotted)
    assert plotted >= {"same", "different", "unexpected", "orphan", "malformed"}
    assert plotted >= {"replaced", "deleted", "superseded", "failed"}
    assert f"{documents} inserted" in log_of(instance, result)


def test_materializing_one_asset_writes_that_read_model_alone(sample: Mongo, instance: dg.DagsterInstance) -> None:
    result = materialize(instance, TASKS)

    assert result.success
    assert set(materialized(instance, result)) == {TASKS}
    assert sample[TASKS].count_documents({}) > 0
    assert sample[CHATS].count_documents({}) == 0


def test_a_dry_run_writes_nothing_records_no_materialization_and_predicts_the_rebuild(
    sample: Mongo, instance: dg.DagsterInstance
) -> None:
    dry = run(instance, "rebuild_read_models", "chat", dry_run=True)

    assert dry.success
    assert not materialized(instance, dry)
    assert sample[CHATS].count_documents({}) == 0
    (output,) = [event for event in dry.all_events if event.event_type is DagsterEventType.STEP_OUTPUT]
    predicted = values(output.step_output_data.metadata)
    done = materialized(instance, run(instance, "rebuild_read_models", "chat"))[CHATS]
    counts = ("checked", "same", "missing", "inserted", "replaced", "deleted", "failed")
    assert predicted["verb"] == "dry_run"
    assert {name: predicted[name] for name in counts} == {name: done[name] for name in counts}


def test_a_dry_run_of_one_aggregate_writes_nothing(sample: Mongo, instance: dg.DagsterInstance) -> None:
    chat_id = SAMPLE[0]["aggregate_id"]
    dry = run(instance, "rebuild_aggregate", aggregate_type="chat", aggregate_id=chat_id, dry_run=True)

    assert dry.success
    assert not materialized(instance, dry)
    assert sample[CHATS].count_documents({}) == 0
    assert "a rebuild would write: 1 inserted" in log_of(instance, dry)


def test_rebuilding_one_aggregate_records_its_summary_and_says_the_outcome(
    sample: Mongo, instance: dg.DagsterInstance
) -> None:
    chat_id = SAMPLE[0]["aggregate_id"]
    result = run(instance, "rebuild_aggregate", aggregate_type="chat", aggregate_id=chat_id)

    assert [item["chat_id"] for item in sample[CHATS].find()] == [chat_id]
    said = materialized(instance, result)[CHATS]
    assert (said["aggregate_id"], said["checked"], said["inserted"]) == (chat_id, 1, 1)
    assert "dagster/row_count" not in said
    assert "chats_read_model: 1 aggregates compared: 1 missing; written: 1 inserted." in log_of(instance, result)


def test_legacy_tasks_are_rebuilt_in_the_partition_of_tasks(
    database: Mongo, legacy_settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("READMODEL_TASK_SOURCE", "task")
    with_events(database, legacy_settings, [*chat_events(5), *task_events(7)])

    result = materialize(instance, CHATS, TASKS)
    assert result.success
    assert (materialized(instance, result)[CHATS]["inserted"], materialized(instance, result)[TASKS]["inserted"]) == (
        5,
        7,
    )
    assert run(instance, "verify_read_models", "task").success


# --- what is wrong


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
    [("6f1c", "'6f1c' is no aggregate id"), (str(uuid4()), "neither an event nor a document")],
    ids=["no UUID", "unknown"],
)
def test_a_wrong_id_is_told_in_a_sentence(
    sample: Mongo, instance: dg.DagsterInstance, aggregate_id: str, words: str
) -> None:
    result = run(instance, "rebuild_aggregate", aggregate_type="chat", aggregate_id=aggregate_id)

    assert words in sentence(result)
    assert not materialized(instance, result)


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


def test_credentials_reach_neither_the_log_nor_the_storage_of_dagster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    uri = "mongodb://somebody:hunter2secret@127.0.0.1:1/?serverSelectionTimeoutMS=300"
    monkeypatch.setenv("READMODEL_MONGODB_URI", uri)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as on_disk:
        results = [run(on_disk, "verify_read_models", "chat"), materialize(on_disk, CHATS)]
        assert all("127.0.0.1:1" in sentence(result) for result in results)

    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    shown = "".join(capfd.readouterr())
    assert b"127.0.0.1:1" in kept
    assert b"hunter2secret" not in kept
    assert b"somebody" not in kept
    assert "127.0.0.1:1" in shown
    assert "hunter2secret" not in shown


# --- progress


def test_progress_is_told_by_time_with_rate_and_what_is_left() -> None:
    told: list[str] = []
    clock = iter([0.0, 1.0, 4.9, 5.0, 6.0, 10.0])
    now: Callable[[], float] = lambda: next(clock)  # noqa: E731
    progress = Progress(told.append, every=5.0, now=now)
    for done in (10_000, 49_000, 50_000, 60_000, 100_000):
        progress(done, 200_000)

    assert told == [
        "50,000 of about 200,000 events read, 10,000 events/s, about 15 s left.",
        "100,000 of about 200,000 events read, 10,000 events/s, about 10 s left.",
    ]


def test_a_run_logs_its_progress(sample: Mongo, instance: dg.DagsterInstance) -> None:
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, run_config={"resources": {"mongo": {"config": {"progress_seconds": 0}}}}
    )

    assert f"{len(SAMPLE):,} of about {len(SAMPLE):,} events read" in log_of(instance, result)
    assert "events read" not in log_of(instance, materialize(instance, CHATS))
