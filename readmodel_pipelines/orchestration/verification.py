"""What a verification launched by Dagster takes, and how it becomes a request."""

# Without `from __future__ import annotations`: Dagster takes the class of a config field, not its name.
from typing import Literal

from pydantic import Field

from readmodel_pipelines.orchestration.assets import ReportConfig
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.verification import Bucket, Coverage, VerificationRequest, new_report_files


class VerifyConfig(ReportConfig):
    """A verification. Without a sample, a bucket and `since_last` it looks at every aggregate."""

    tier: Literal["documents", "versions"] = Field(
        default="documents",
        description="documents: every field and its BSON type. versions: only whether documents are there, at the "
        "version of their streams; reads no event, for a quick look at a huge store.",
    )
    sample: int | None = Field(default=None, ge=1, description="Look at so many aggregates at random.")
    bucket: str | None = Field(
        default=None,
        description="Look at one bucket, as K/N: the K-th of N parts, by a hash of the id. "
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


def request_of(config: VerifyConfig, settings: Settings, *, run_id: str, read_models: list[str]) -> VerificationRequest:
    """The request that a config stands for.

    Raises:
        UsageError: the bucket is none, the config contradicts itself, or the folder of reports cannot be made.
    """
    bucket = Bucket.parse(config.bucket) if config.bucket is not None else None
    about = f"{'-'.join(read_models)}-{run_id[:8]}"
    return VerificationRequest(
        Coverage(config.sample, bucket, config.since_last),
        config.tier,
        remember=not config.read_only,
        enqueue_repairs=config.enqueue_repairs,
        reports=new_report_files(settings, about) if config.write_reports else (),
    )
