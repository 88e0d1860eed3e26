"""Assets: the application's events, every read model of the registry, and the repair queue.

Materializing a read model is a full rebuild; materializing several is one pass over each source stream.
"""

# Without `from __future__ import annotations`: Dagster takes the class of `context`, not its name.
from collections.abc import Iterator
from typing import Any

import dagster as dg

from readmodel_pipelines.orchestration import OWNERS
from readmodel_pipelines.orchestration.config import FullRebuildConfig
from readmodel_pipelines.orchestration.metadata import in_words, metadata_of, on_pages, raise_unless_ok
from readmodel_pipelines.orchestration.partitions import AGGREGATE_TYPE_TAG, READ_MODELS
from readmodel_pipelines.orchestration.recording import checks_told, is_renewed, log_checks_of_rebuild, observe
from readmodel_pipelines.orchestration.resources import MongoResource
from readmodel_pipelines.projections.registry import built_in

REPAIR_QUEUE = "repair_queue"


def _description(name: str) -> str:
    made = [
        item.description for item in (*built_in("chat"), *built_in("task"), *READ_MODELS.values()) if item.name == name
    ]
    either = " With READMODEL_TASK_SOURCE=task: ".join(dict.fromkeys(made))
    return f"""{either}

Materialize it after a change of its projection, after an import of events, or when a verification found differences.
Every document is compared with its events, and only the differences are written. Documents without a basis in the
events are deleted. Fields that the projection does not own stay unchanged, and the application may keep writing. The
job `rebuild_read_models` does the same and has a dry run; `verify_read_models` only compares."""


events = dg.AssetSpec(
    "events",
    group_name="application",
    kinds={"mongodb"},
    owners=OWNERS,
    tags={"readmodel/written_by": "application"},
    description="""The events of the application (READMODEL_EVENTS_COLLECTION), from which the read models are made.

The application appends them. This project never writes one, so the asset cannot be materialized. Its lineage shows
the dependent assets. If a check reports malformed streams, correct the writer of their events.""",
)


@dg.multi_asset(
    name="rebuild_assets",
    specs=[
        dg.AssetSpec(
            item.read_model,
            deps=[events],
            group_name="read_models",
            kinds={"mongodb"},
            owners=OWNERS,
            tags={AGGREGATE_TYPE_TAG: name, "readmodel/written_by": "application-and-rebuilds"},
            description=_description(name),
            # Dagster marks an asset made by an older version, which means that a rebuild is due.
            code_version=str(item.schema_version),
        )
        for name, item in READ_MODELS.items()
    ],
    can_subset=True,
    description="A full rebuild of the chosen read models: one pass over each source stream. A lease on each read "
    "model prevents other rebuilds meanwhile. Writes only the differences.",
)
def read_models(
    context: dg.AssetExecutionContext, config: FullRebuildConfig, mongo: MongoResource
) -> Iterator[dg.MaterializeResult[Any]]:
    """Every read model, each selectable by itself."""
    chosen = [name for name, item in READ_MODELS.items() if dg.AssetKey(item.read_model) in context.selected_asset_keys]
    with checks_told(context):
        summary, documents = mongo.rebuild(context, chosen, config.request())
    context.log.info(in_words(summary))
    metadata = {
        read_model: metadata_of(summary, read_model, documents=documents[read_model], max_findings=config.max_findings)
        for read_model in summary.read_models
    }
    for read_model, said in metadata.items():
        if is_renewed(summary, read_model):
            # The page of the run shows the findings that the rebuild repaired.
            shown = on_pages(said, summary, read_model, mended=True)
            yield dg.MaterializeResult(asset_key=read_model, metadata=shown)
        else:
            observe(context, read_model, on_pages(said, summary, read_model))
    log_checks_of_rebuild(context, mongo, chosen, summary, config.max_findings)
    raise_unless_ok(summary, metadata)


repair_queue = dg.AssetSpec(
    REPAIR_QUEUE,
    group_name="repair",
    # Each task names an aggregate with saved events whose read models were not updated.
    deps=[events],
    kinds={"mongodb"},
    owners=OWNERS,
    tags={"readmodel/written_by": "application-and-repairs"},
    description="""Updates of read models that failed in the application (READMODEL_REPAIR_QUEUE_COLLECTION).

The application adds tasks. `repair_queue_sensor` finds the due ones and launches `repair_read_models`, which repairs
them and completes them. The sensor's ticks record the plotted numbers. If the queue grows, check that the sensor is
on and that the runs of `repair_read_models` succeed. If it holds dead letters, its check lists them with their
reasons. Fix the cause, then run `readmodel repair-queue requeue --all-failed`.""",
)
