"""Run configs: what the Launchpad asks for, of every job and of the assets, and the request that each stands for.

What Dagster's own check of types lets pass is refused in a sentence.
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
"""Of the rows of a table, unless a run asks for more."""
_LONGEST = 100


class Config(dg.Config):
    """A config. The Launchpad checks types and choices; ranges are checked when the run starts, here."""

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
        return "a number of thousands of digits"


class AggregateConfig(Config):
    """Which aggregate to rebuild."""

    aggregate_type: ReadModelOrAll = Field(
        default=ALL,
        description="Read model to mend: "
        + ", ".join(f"{name} means {item.read_model}" for name, item in READ_MODELS.items())
        + ", all means every one.",
    )
    aggregate_id: str = Field(
        description="Id of the aggregate, a UUID, for example 6f1c2f6e-8d0b-4c5e-9a53-0d4d2a7b9c11: `aggregate_id` of "
        "its events, `chat_id` or `task_id` of its document, and in the table of findings of a check. For a task made "
        "from a chat it is the chat's id."
    )
    dry_run: bool = Field(default=False, description="Write nothing; say what would be written.")


class HistoryConfig(Config):
    """Whose history to show, and how much of it."""

    aggregate_type: ReadModelOrAll = Field(
        default=ALL, description="Read model whose document is followed; all: every one that is made from the stream."
    )
    aggregate_id: str = Field(
        description="Id of the aggregate, a UUID, for example 6f1c2f6e-8d0b-4c5e-9a53-0d4d2a7b9c11: `aggregate_id` of "
        "its events, `chat_id` or `task_id` of its document."
    )
    at_version: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000_000,
        description="Only up to this version, from 0 to 1000000000. Not given: all of it.",
    )
    at: str | None = Field(
        default=None,
        description="Only up to this time, such as 2026-11-02T03:05:00Z: before the first event that occurred later.",
    )
    field: str | None = Field(default=None, description="Only the events that changed this field, such as title.")
    max_rows: int = Field(
        default=500, ge=1, le=10_000, description="At most so many lines of the table, from 1 to 10000; the newest."
    )


class ManyConfig(Config):
    """A run over many aggregates: how much it tells, and whether it goes on without an event."""

    max_findings: int = Field(
        default=SHOWN,
        ge=0,
        le=DEFAULT_MAX_FINDINGS,
        description="At most so many findings of a read model are shown in the table, "
        f"from 0 to {DEFAULT_MAX_FINDINGS}; the counts are always whole.",
    )
    allow_no_events: bool = Field(
        default=False,
        description="Go on although there is not one event to go by, so that every document is an orphan. Off: the run "
        "fails and changes nothing, for most often a setting names another database or collection.",
    )


class FullRebuildConfig(ManyConfig):
    """A rebuild of every aggregate."""

    allow_deletions: bool = Field(
        default=False,
        description="Delete unwanted documents however many they are. Off: more than READMODEL_MAX_DELETE_SHARE of the "
        "read model, and more than 3 documents, are not deleted and the run fails, because lost events look the same.",
    )
    strategy: Strategy = Field(
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
            allow_no_events=self.allow_no_events,
        )


class RebuildConfig(FullRebuildConfig):
    """A rebuild of every aggregate, or a dry run of it."""

    dry_run: bool = Field(
        default=False, description="Write nothing; count what would be inserted, replaced and deleted."
    )


class SliceConfig(ManyConfig):
    """A slice of a full rebuild."""

    strategy: Strategy = Field(
        default="in_place",
        description="in_place or shadow, the same for all slices. A shadow is swapped in once, with the last one. "
        f"A backfill says it by the tag {STRATEGY_TAG}, which goes before this.",
    )
    allow_deletions: bool = Field(
        default=False, description="Delete unwanted documents however many they are; the last slice deletes."
    )


class VerifyConfig(ManyConfig):
    """A verification. Without a sample, a bucket and `since_last` it looks at every aggregate."""

    tier: Tier = Field(
        default="documents",
        description="documents: every field and its BSON type. versions: only whether documents are there, at the "
        "version of their streams; reads no event, for a quick look at a huge store.",
    )
    sample: int | None = Field(
        default=None, ge=1, le=10_000_000, description="Look at so many aggregates at random, from 1 to 10000000."
    )
    bucket: str | None = Field(
        default=None,
        description="Look at one bucket, as K/N: the K-th of N parts (999999 at most), by a hash of the id. "
        "N nights, one part each, cover everything.",
    )
    since_last: bool = Field(
        default=False,
        description="Look at what got events since the last verification, and at open findings. When the server's "
        "history does not reach back so far, everything is verified.",
    )
    enqueue_repairs: bool = Field(
        default=False,
        description="Put what is found into the repair queue, but for malformed streams; "
        "at most READMODEL_ENQUEUE_LIMIT.",
    )
    read_only: bool = Field(
        default=False, description="Write nothing at all to MongoDB: no finding is remembered, none closed."
    )
    write_reports: bool = Field(
        default=True, description="Write a page and a Parquet file with all findings to READMODEL_REPORTS_DIR."
    )

    def request(self, settings: Settings, read_models: Sequence[str], run_id: str) -> VerificationRequest:
        """The verification that it stands for.

        Raises:
            UsageError: the bucket is none, the config contradicts itself, or the folder of reports cannot be made.
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
        )


class RepairConfig(Config):
    """How much of the queue one run takes on."""

    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Aggregates that are leased and repaired together, from 1 to 10000. "
        "Not given: READMODEL_REPAIR_BATCH_SIZE.",
    )
    limit: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000_000,
        description="The run ends after about so many aggregates, from 1 to 1000000000; the sensor launches the next "
        "one.",
    )
    task_ids: list[str] = Field(
        default=[], description="Repair these open tasks now, whether due or not, by their _id. Empty: whatever is due."
    )
    lease_seconds: float | None = Field(
        default=None,
        ge=1,
        le=86_400,
        description="Seconds until others may take over the aggregates of a run that died, from 1 to 86400; renewed "
        "while it works. Not given: READMODEL_REPAIR_LEASE_SECONDS.",
    )
