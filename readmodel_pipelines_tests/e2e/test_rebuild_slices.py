"""The job `rebuild_slices`: what its runs take from the tags of the backfill that launches them."""

from __future__ import annotations

import dagster as dg
import pytest
from dagster import ExecuteInProcessResult

from readmodel_pipelines.definitions import defs
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.verbs.dagster_runs import CHATS, sentence


def run_slice(instance: dg.DagsterInstance, tags: dict[str, str], **config: str) -> ExecuteInProcessResult:
    return defs.resolve_job_def("rebuild_slices").execute_in_process(
        instance=instance,
        partition_key="chat_03_of_16",
        run_config={"ops": {"rebuild_slice": {"config": config}}},
        tags=tags,
        raise_on_error=False,
    )


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
    sample: Mongo, instance: dg.DagsterInstance, tags: dict[str, str], config: dict[str, str], strategy: str
) -> None:
    assert run_slice(instance, tags, **config).success

    (record,) = sample.readmodel_rebuilds.find({"kind": "rebuild"})
    assert (record["strategy"], record["state"]) == (strategy, "building")


def test_a_strategy_that_is_none_is_refused_before_anything_is_done(
    sample: Mongo, instance: dg.DagsterInstance
) -> None:
    said = sentence(run_slice(instance, {"readmodel/strategy": "swap"}))

    assert "'swap', which is no strategy" in said
    assert "in_place, shadow" in said
    assert sample[CHATS].count_documents({}) == 0
    assert sample.readmodel_rebuilds.count_documents({}) == 0
