"""Full rebuilds through Dagster: resuming by launching again, shadows, slices and the tags of their backfill."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from readmodel_pipelines.definitions import defs
from readmodel_pipelines.mongo.names import REBUILDS
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.verbs.dagster_runs import CHATS, Dagster, sentence


def records(database: Mongo) -> list[dict[str, Any]]:
    return list(database[REBUILDS].find({"kind": "rebuild"}).sort("started_at"))


def test_a_partition_that_is_launched_again_goes_on_where_it_was(
    sample: Mongo, settings: Settings, dagster: Dagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    monkeypatch.setenv(
        "READMODEL_OFF_PEAK_WINDOW", f"{now + timedelta(hours=2):%H:%M}-{now + timedelta(hours=3):%H:%M}"
    )
    paused = dagster.run("rebuild_read_models", "chat", off_peak=True)
    assert paused.success
    assert dagster.observed(paused)[CHATS]["state"] == "paused"
    done = dagster.run("rebuild_read_models", "chat")
    assert dagster.materialized(done)[CHATS]["state"] == "done"
    assert [record["runs"] for record in records(sample)] == [2]
    assert ReadModelProjector(sample, settings, "chat").verify_all().ok


def test_all_slices_are_one_rebuild_that_the_last_finishes(sample: Mongo, settings: Settings, dagster: Dagster) -> None:
    partitions = defs.resolve_job_def("rebuild_slices").partitions_def
    assert partitions is not None
    keys = [key for key in partitions.get_partition_keys() if key.startswith("chat_")]
    assert len(keys) == 16
    # One after the other, as a backfill launches them.
    results = [dagster.run("rebuild_slices", key, tags={"dagster/backfill": "night one"}) for key in keys]
    assert all(result.success for result in results)
    assert [record["state"] for record in records(sample)] == ["done"]
    assert any(dagster.materialized(result) for result in results)
    assert ReadModelProjector(sample, settings, "chat").verify_all().ok


@pytest.mark.parametrize(
    ("tags", "config", "strategy"),
    [
        ({}, {}, "in_place"),
        ({}, {"strategy": "shadow"}, "shadow"),
        # A backfill's runs always have the config of their partition, which names a strategy.
        ({"readmodel/strategy": "shadow"}, {"strategy": "in_place"}, "shadow"),
        ({"readmodel/strategy": "in_place"}, {"strategy": "shadow"}, "in_place"),
    ],
)
def test_the_tag_of_a_backfill_goes_before_the_config(
    sample: Mongo, dagster: Dagster, tags: dict[str, str], config: dict[str, str], strategy: str
) -> None:
    assert dagster.run("rebuild_slices", "chat_03_of_16", tags=tags, **config).success

    (record,) = records(sample)
    assert (record["strategy"], record["state"]) == (strategy, "building")


def test_a_strategy_that_is_none_is_refused_before_anything_is_done(sample: Mongo, dagster: Dagster) -> None:
    refused = dagster.run("rebuild_slices", "chat_03_of_16", tags={"readmodel/strategy": "swap"})
    said = sentence(refused)

    assert "'swap', which is no strategy" in said
    assert "in_place, shadow" in said
    assert sample[CHATS].count_documents({}) == 0
    assert records(sample) == []
