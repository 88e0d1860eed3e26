"""Runs of the Dagster jobs and assets in this process, and what they recorded."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from bson import json_util
from dagster import DagsterEventType, ExecuteInProcessResult

from readmodel_pipelines.definitions import defs
from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.recorded import EXTENDED_JSON, read_documents
from readmodel_pipelines_tests.support.scene import Mongo, Scene

Document = dict[str, Any]

CHATS, TASKS = "chats_read_model", "tasks_read_model"
BOTH = [("chat", CHATS), ("task", TASKS)]
SAMPLE = list(chat_events(40, seed=7))


def with_events(database: Mongo, settings: Settings, events: list[Document]) -> Mongo:
    Scene(database, settings).index()
    database.events.insert_many(events)
    return database


class Dagster:
    """Runs the jobs and assets in this process, and tells what its instance keeps of them."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance

    def run(
        self, job: str, partition: str | None = None, *, tags: Mapping[str, str] | None = None, **config: Any
    ) -> ExecuteInProcessResult:
        (op,) = (node.name for node in defs.resolve_job_def(job).graph.nodes)
        return defs.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            partition_key=partition,
            run_config={"ops": {op: {"config": config}}},
            tags=tags,
            raise_on_error=False,
        )

    def materialize(self, *assets: str, **config: Any) -> ExecuteInProcessResult:
        return defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(asset) for asset in assets],
            run_config={"ops": {"rebuild_assets": {"config": config}}},
            raise_on_error=False,
        )

    def evaluate(self, *checks: tuple[str, str], **config: Any) -> dict[tuple[str, str], Any]:
        """Execute checks, each an asset and a name, as their button on the asset's page does."""
        keys = {dg.AssetCheckKey(dg.AssetKey(asset), check) for asset, check in checks}
        job = defs.resolve_implicit_global_asset_job_def().get_subset(asset_check_selection=keys, asset_selection=set())
        run_config = {"ops": {"verify_read_model_checks": {"config": config}}} if config else {}
        found = job.execute_in_process(instance=self.instance, run_config=run_config).get_asset_check_evaluations()
        return {(item.asset_key.to_user_string(), item.check_name): item for item in found}

    def recorded(self, result: ExecuteInProcessResult, of: DagsterEventType) -> list[Any]:
        """Events as they are stored: those that a failed step logged are not among the result's own."""
        return [entry.get_dagster_event() for entry in self.instance.all_logs(result.run_id, of_type=of)]

    def materialized(self, result: ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
        """The metadata of what the run materialized, by asset."""
        events = self.recorded(result, DagsterEventType.ASSET_MATERIALIZATION)
        return {event.asset_key.to_user_string(): values(event.materialization.metadata) for event in events}

    def observed(self, result: ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
        """The metadata of what the run observed, by asset."""
        events = self.recorded(result, DagsterEventType.ASSET_OBSERVATION)
        seen = [event.asset_observation_data.asset_observation for event in events]
        return {item.asset_key.to_user_string(): values(item.metadata) for item in seen}

    def log_of(self, result: ExecuteInProcessResult) -> str:
        return "\n".join(entry.user_message for entry in self.instance.all_logs(result.run_id))


def sentence(result: ExecuteInProcessResult) -> str:
    """What the failed run says to the person who started it."""
    assert not result.success
    (failed,) = [event for event in result.all_events if event.event_type is DagsterEventType.STEP_FAILURE]
    assert failed.step_failure_data.user_failure_data is not None, failed.step_failure_data.error
    assert failed.step_failure_data.error is not None
    assert (failed.step_failure_data.error.cause, failed.step_failure_data.error.context) == (None, None)
    return str(failed.step_failure_data.user_failure_data.description)


def values(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What metadata say by name; what a page tells in its table of numbers, or as a text, is a number again."""
    said = {name: value.value for name, value in metadata.items()}
    told = {str(row["name"]): row["value"] for row in table(said, "numbers")} if "numbers" in said else {}
    return {name: _number(value) for name, value in {**told, **said}.items()}


def _number(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"-?[\d,]+(\.\d+)?", value):
        digits = value.replace(",", "")
        return float(digits) if "." in digits else int(digits)
    return value


def table(metadata: Mapping[str, Any], name: str = "findings") -> list[Mapping[str, Any]]:
    records = metadata[name]
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
