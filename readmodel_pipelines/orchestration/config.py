"""The run configs of jobs and assets, as the Launchpad shows them, and the requests that they stand for.

A value that passes Dagster's type check but is out of range fails the run with a sentence.
"""

# Without `from __future__ import annotations`: Dagster takes the class of a config field, not its name.
from collections.abc import Sequence
from typing import Any

import dagster as dg
from pydantic import Field, ValidationError

from readmodel_pipelines.orchestration.failure import failure
from readmodel_pipelines.orchestration.partitions import READ_MODELS, STRATEGY_TAG, ReadModelOrAll
from readmodel_pipelines.projections.names import ALL
from readmodel_pipelines.rebuild import RebuildRequest
from readmodel_pipelines.rebuild_state import Strategy
from readmodel_pipelines.reconcile.about import Tier
from readmodel_pipelines.reconcile.summary import DEFAULT_MAX_FINDINGS
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.verification.coverage import Bucket, Coverage
from readmodel_pipelines.verification.folder import new_report_files
from readmodel_pipelines.verification.verify import VerificationRequest
from readmodel_pipelines.wording import cut

SHOWN = 50
"""Rows of a table, unless the run config sets another limit."""
_LONGEST = 100


class Config(dg.Config):
    """Base of all configs. The Launchpad checks types and choices; ranges are checked here, when the run starts.

    Raises:
        dagster.Failure: a value is out of range. Its text names the field, the value and the reason.
    """

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, item['loc']))} is {_shown(item['input'])}: {item['msg']}"
                for item in error.errors(include_url=False)
            )
            raise failure(
                f"This config cannot be used: {wrong}. Nothing was done. Correct it in the Launchpad and launch again."
            ) from None


def _shown(value: object) -> str:
    try:
        return cut(repr(value), _LONGEST)
    except ValueError:
        return "a number with thousands of digits"


class OfEventsConfig(Config):
    """A run that compares documents with events, and whether it continues without any event."""

    allow_no_events: bool = Field(
        default=False,
        description="Continue even if the event store has no event, so that every document is an orphan. Off: the run "
        "fails and changes nothing, because a wrong database or collection name looks the same.",
    )


class AggregateConfig(OfEventsConfig):
    """The aggregate to rebuild."""

    aggregate_type: ReadModelOrAll = Field(
        default=ALL,
        description="Read model to repair: "
        + ", ".join(f"{name} means {item.read_model}" for name, item in READ_MODELS.items())
        + "; all means every read model.",
    )
    aggregate_id: str = Field(
        description="Id of the aggregate: a UUID, for example 6f1c2f6e-8d0b-4c5e-9a53-0d4d2a7b9c11. It is the "
        "`aggregate_id` of its events and of a finding, and the `chat_id` or `task_id` of its document. "
        "For a task made from a chat it is the chat's id."
    )
    dry_run: bool = Field(default=False, description="Write nothing; report the writes that a rebuild would do.")


class HistoryConfig(Config):
    """The aggregate whose history is shown, and the part of it."""

    aggregate_type: ReadModelOrAll = Field(
        default=ALL,
        description="Read model whose document is followed; all means every read model made from the stream.",
    )
    aggregate_id: str = Field(
        description="Id of the aggregate: a UUID, for example 6f1c2f6e-8d0b-4c5e-9a53-0d4d2a7b9c11. It is the "
        "`aggregate_id` of its events, and the `chat_id` or `task_id` of its document."
    )
    at_version: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000_000,
        description="Show events up to this version, from 0 to 1000000000. Not given: all events.",
    )
    at: str | None = Field(
        default=None,
        description=(
            "Show events up to this time, for example 2026-11-02T03:05:00Z. The history ends before the first event "
            "that occurred later."
        ),
    )
    field: str | None = Field(
        default=None, description="Show only the events that changed this field, for example title."
    )
    max_rows: int = Field(
        default=500,
        ge=1,
        le=10_000,
        description="Maximum number of lines in the table, from 1 to 10000. The newest lines are kept.",
    )


class ManyConfig(OfEventsConfig):
    """A run over many aggregates: the number of findings that it shows."""

    max_findings: int = Field(
        default=SHOWN,
        ge=0,
        le=DEFAULT_MAX_FINDINGS,
        description=f"Maximum number of findings per read model in the table, from 0 to {DEFAULT_MAX_FINDINGS}. The "
        "counts are always complete.",
    )


class FullRebuildConfig(ManyConfig):
    """A rebuild of every aggregate."""

    allow_deletions: bool = Field(
        default=False,
        description="Delete unwanted documents without a limit. Off: if they exceed READMODEL_MAX_DELETE_SHARE of the "
        "read model, and are more than 3 documents, none is deleted and the run fails, because lost events "
        "look the same.",
    )
    strategy: Strategy = Field(
        default="in_place",
        description="in_place: write only the differences into the live collection. shadow: build and verify a new "
        "collection, then replace the live one with one rename; use it for a changed projection.",
    )
    resume: bool = Field(
        default=True,
        description=(
            "Resume an interrupted rebuild that is at most READMODEL_REBUILD_VALID_DAYS old. Off: drop it and start "
            "again."
        ),
    )
    off_peak: bool = Field(
        default=False, description="Stop cleanly when READMODEL_OFF_PEAK_WINDOW ends; the next run resumes there."
    )

    def request(self) -> RebuildRequest:
        """The rebuild request with these values."""
        return RebuildRequest(
            self.strategy,
            resume=self.resume,
            allow_deletions=self.allow_deletions,
            off_peak=self.off_peak,
            allow_no_events=self.allow_no_events,
        )


class RebuildConfig(FullRebuildConfig):
    """A rebuild of every aggregate, or its dry run."""

    dry_run: bool = Field(
        default=False, description="Write nothing; count the documents that a rebuild would insert, replace and delete."
    )


class SliceConfig(ManyConfig):
    """One slice of a full rebuild."""

    strategy: Strategy = Field(
        default="in_place",
        description="in_place or shadow, the same for all slices. The last slice replaces the live collection with the "
        f"shadow. In a backfill, set it with the tag {STRATEGY_TAG}, which overrides this field.",
    )
    allow_deletions: bool = Field(
        default=False, description="Delete unwanted documents without a limit. The last slice does the deletions."
    )


class VerifyConfig(ManyConfig):
    """A verification. Without a sample, a bucket and `since_last` it compares every aggregate."""

    tier: Tier = Field(
        default="documents",
        description="documents: compare every field and its BSON type. versions: only check that each document exists "
        "at the version of its stream; reads no event, so it is fast on a huge store.",
    )
    sample: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description="Verify a random sample of this many aggregates, from 1 to 10000000.",
    )
    bucket: str | None = Field(
        default=None,
        description="Verify one bucket, given as K/N: part K of N (at most 999999), by a hash of the id. N nights with "
        "one part each cover everything.",
    )
    since_last: bool = Field(
        default=False,
        description="Verify the aggregates with events since the last verification, and those with open findings. If "
        "the server's history does not reach back that far, everything is verified.",
    )
    enqueue_repairs: bool = Field(
        default=False,
        description="Queue a repair for each finding except malformed streams, at most READMODEL_ENQUEUE_LIMIT.",
    )
    read_only: bool = Field(default=False, description="Write nothing to MongoDB: no finding is recorded or closed.")
    off_peak: bool = Field(
        default=False, description="Work only in READMODEL_OFF_PEAK_WINDOW. At its end the run fails, without a result."
    )
    write_reports: bool = Field(
        default=True, description="Write an HTML page and a Parquet file with all findings to READMODEL_REPORTS_DIR."
    )

    def request(self, settings: Settings, read_models: Sequence[str], run_id: str) -> VerificationRequest:
        """The verification request with these values.

        Raises:
            UsageError: the bucket is invalid, two fields contradict each other, or the folder of reports cannot be
            created.
        """
        bucket = Bucket.parse(self.bucket) if self.bucket is not None else None
        about = f"{'-'.join(read_models)}-{run_id[:8]}"
        return VerificationRequest(
            Coverage(self.sample, bucket, self.since_last),
            self.tier,
            remember=not self.read_only,
            enqueue_repairs=self.enqueue_repairs,
            allow_no_events=self.allow_no_events,
            reports=new_report_files(settings, about) if self.write_reports else (),
            off_peak=self.off_peak,
        )


class RepairConfig(Config):
    """The part of the queue that one run repairs."""

    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Aggregates that are leased and repaired together, from 1 to 10000. Not given: "
        "READMODEL_REPAIR_BATCH_SIZE.",
    )
    limit: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000_000,
        description="The run ends after about this many aggregates, from 1 to 1000000000; the sensor launches the next "
        "run.",
    )
    task_ids: list[str] = Field(
        default=[],
        description="Repair the open tasks with these _id values now, even if they are not due. Empty: all due tasks.",
    )
    lease_seconds: float | None = Field(
        default=None,
        ge=1,
        le=86_400,
        description="Seconds until another run may take over the aggregates of a dead run, from 1 to 86400. The lease "
        "is renewed during the work. Not given: READMODEL_REPAIR_LEASE_SECONDS.",
    )
