"""Assets: the events, which the application writes, and every read model of the registry, made from them.

Materializing a read model from its page is a full rebuild; materializing several is one pass over each source stream.
"""

# Without `from __future__ import annotations`: Dagster takes the class of `context`, not its name.
from collections.abc import Iterator
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from readmodel_pipelines.orchestration.config import Config
from readmodel_pipelines.orchestration.load_time import OWNERS
from readmodel_pipelines.orchestration.metadata import FINDINGS_SHOWN, in_words, metadata_of, raise_unless_ok
from readmodel_pipelines.orchestration.partitions import AGGREGATE_TYPE_TAG, READ_MODELS
from readmodel_pipelines.orchestration.resources import MongoResource
from readmodel_pipelines.projections.registry import built_in
from readmodel_pipelines.rebuild import RebuildRequest
from readmodel_pipelines.reconcile.summary import DEFAULT_MAX_FINDINGS


class ReportConfig(Config):
    """How much a run tells."""

    max_findings: int = Field(
        default=FINDINGS_SHOWN,
        ge=0,
        le=DEFAULT_MAX_FINDINGS,
        description="At most so many findings of a read model are shown in the table, "
        f"from 0 to {DEFAULT_MAX_FINDINGS}; the counts are always whole.",
    )


class FullRebuildConfig(ReportConfig):
    """A rebuild of every aggregate."""

    allow_deletions: bool = Field(
        default=False,
        description="Delete unwanted documents however many they are. Off: more than READMODEL_MAX_DELETE_SHARE of the "
        "read model (never below 100 documents) are not deleted and the run fails, because lost events look the same.",
    )
    strategy: Literal["in_place", "shadow"] = Field(
        default="in_place",
        description="in_place: write what differs into the live collection. shadow: build a new collection beside it, "
        "verify it, and swap it in with one rename; for a changed projection.",
    )
    resume: bool = Field(
        default=True,
        description="Go on with a rebuild that was interrupted, for READMODEL_REBUILD_VALID_DAYS. Off: drop that one.",
    )
    off_peak: bool = Field(
        default=False,
        description="Stop cleanly when READMODEL_OFF_PEAK_WINDOW ends; the next run goes on where this one was.",
    )

    def request(self) -> RebuildRequest:
        """The rebuild that it stands for."""
        return RebuildRequest(
            self.strategy,
            resume=self.resume,
            allow_deletions=self.allow_deletions,
            off_peak=self.off_peak,
        )


def _description(name: str) -> str:
    made = [
        item.description for item in (*built_in("chat"), *built_in("task"), *READ_MODELS.values()) if item.name == name
    ]
    either = " With READMODEL_TASK_SOURCE=task: ".join(dict.fromkeys(made))
    return f"""{either}

Materialize it after a change of its projection, after events were imported, or when a verification found it wrong:
every document is compared with its events, and only what differs is written. Documents that the events do not account
for are deleted, fields that the projection does not own are left alone, and the application may keep writing.
The job `rebuild_read_models` does the same with a dry run, `verify_read_models` only compares."""


events = dg.AssetSpec(
    "events",
    group_name="application",
    kinds={"mongodb"},
    owners=OWNERS,
    tags={"readmodel/written_by": "application"},
    description="""The events of the application (READMODEL_EVENTS_COLLECTION): what everything else here is made from.

The application appends them, nothing here ever writes one, so it cannot be materialized. Look here for what depends on
them; when a check calls streams malformed, mend whoever appended their events.""",
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
            # Dagster says so when the asset was made by an older one: a rebuild is due.
            code_version=str(item.schema_version),
        )
        for name, item in READ_MODELS.items()
    ],
    can_subset=True,
    description="A full rebuild of the chosen read models: one pass over each source stream, and a lease on each read "
    "model meanwhile, so that nobody else rebuilds it. Writes only what differs.",
)
def read_models(
    context: dg.AssetExecutionContext, config: FullRebuildConfig, mongo: MongoResource
) -> Iterator[dg.MaterializeResult[Any]]:
    """Every read model, each selectable by itself."""
    chosen = [name for name, item in READ_MODELS.items() if dg.AssetKey(item.read_model) in context.selected_asset_keys]
    result = mongo.rebuild(context, chosen, config.request())
    context.log.info(in_words(result.summary))
    metadata = {
        read_model: metadata_of(
            result.summary, read_model, documents=result.documents[read_model], max_findings=config.max_findings
        )
        for read_model in result.summary.read_models
    }
    for read_model, said in metadata.items():
        yield dg.MaterializeResult(asset_key=read_model, metadata=said)
    raise_unless_ok(result.summary, metadata)
