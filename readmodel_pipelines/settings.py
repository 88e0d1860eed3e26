"""Every knob of the project, once: environment variables ``READMODEL_*``, validated here and nowhere else."""

import hashlib
import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import available_timezones

import platformdirs
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.pacing import Window

TaskSource = Literal["chat", "task"]
AllowedKind = Literal["unknown_event_type", "version_gap"]

MOST_SLICES = 1_000
"""Of one rebuild: each is looked for by every other that ends."""

_OWNER = re.compile(r"team:[\w.-]+|[\w.+-]+@[\w-]+(\.[\w-]+)+", re.ASCII)
_SCHEME = re.compile(r"[\w+.-]+://")
_HOST = re.compile(r"(\[[^]]*\]|[^:]*)(:\d*)?")
_SECRET_OPTION = re.compile(r"(?i)([?&;](?:\w*password|authMechanismProperties)=)[^&;]*")


class Settings(BaseSettings):
    """What the environment says; an unset variable means the default given here. Every number has a range."""

    model_config = SettingsConfigDict(env_prefix="READMODEL_", frozen=True, extra="ignore", env_ignore_empty=True)

    mongodb_uri: SecretStr | None = None
    """MongoDB connection string (auth, TLS, replica set, `mongodb+srv`). Unset: the embedded server."""
    database: str = "flowra"
    """Database that holds the events and the read models."""
    events_collection: str = "events"
    """Collection of the events; never written."""
    chats_collection: str = "chats_read_model"
    """Collection of the chats read model."""
    tasks_collection: str = "tasks_read_model"
    """Collection of the tasks read model."""
    repair_queue_collection: str = "repair_queue"
    """Collection of the failed updates."""
    task_source: TaskSource = "chat"
    """Streams that tasks are made from: `chat` (current) or `task` (legacy Task streams)."""
    projections: Annotated[tuple[str, ...], NoDecode] = ()
    """Further read models: modules, or paths of .py files, that define READ_MODELS, comma-separated."""
    allow_malformed: Annotated[frozenset[AllowedKind], NoDecode] = frozenset()
    """Kinds of malformed streams to fold all the same, comma-separated: `unknown_event_type` (such events are skipped),
    `version_gap`."""
    max_delete_share: float = Field(0.05, ge=0, le=1)
    """A full rebuild refuses to delete more than this share of a read model; 3 documents may always go, but with 0."""
    workers: int = Field(default_factory=lambda: min(4, os.cpu_count() or 1), ge=1, le=64)
    """Worker processes of a full rebuild or verification of a large store on this machine."""
    slices: int = Field(16, ge=1, le=MOST_SLICES)
    """Partitions of `rebuild_slices` for each read model."""
    rebuild_valid_days: float = Field(7, ge=0.001, le=365)
    """A rebuild that was interrupted is resumed for so long; then it starts anew."""
    catch_up_seconds: float = Field(300, ge=0, le=86_400)
    """After a rebuild, how long to follow writers that do not stand still, at most."""
    keep_copy: bool = True
    """A rebuild in a shadow keeps a copy of what was before, for `readmodel rebuilds rollback`."""
    max_events_per_second: float | None = Field(None, ge=0.01, le=1_000_000_000)
    """Events that a full rebuild reads at most."""
    max_documents_per_second: float | None = Field(None, ge=0.01, le=1_000_000_000)
    """Documents that it writes at most."""
    max_queued_operations: int = Field(100, ge=0, le=1_000_000)
    """It pauses while more operations are queued on the server; 0 never."""
    max_replication_lag_seconds: float = Field(30, ge=0, le=86_400)
    """It pauses while a secondary is farther behind; 0 never."""
    off_peak_window: str = "22:00-06:00"
    """Hours of `off_peak_rebuild` and `--off-peak`, in READMODEL_TIMEZONE."""
    lease_seconds: float = Field(60, ge=1, le=86_400)
    """Life of a full rebuild's lease after its holder died; it is renewed while it works."""
    repair_lease_seconds: float = Field(300, ge=1, le=86_400)
    """Life of a repair's lease on an aggregate after its holder died; it is renewed meanwhile."""
    repair_attempts: int = Field(8, ge=1, le=1000)
    """Failed repairs of a task until it is a dead letter."""
    repair_backoff_seconds: float = Field(30, ge=0, le=2_592_000)
    """Longest wait after the first failed repair; the wait is drawn from 0 to there."""
    repair_backoff_factor: float = Field(2, ge=1, le=1_000)
    """By how much that grows with each further failure."""
    repair_backoff_cap_seconds: float = Field(3600, ge=0, le=2_592_000)
    """Where it stops growing."""
    repair_batch_size: int = Field(500, ge=1, le=10_000)
    """Aggregates that a repair works on at once."""
    repair_queue_limit: int = Field(100_000, ge=1, le=100_000_000)
    """Open repair tasks beyond which this project's API takes no more."""
    repair_queue_warning: int = Field(1_000, ge=1, le=100_000_000)
    """Open repair tasks beyond which the queue's asset check warns."""
    repair_retention_days: float = Field(14, ge=0.001, le=10_000)
    """Days until a completed repair task expires; `ensure-indexes` puts it in force."""
    grace_seconds: float = Field(5, ge=0, le=3600)
    """A document that lacks only events younger than this is `lagging`, no discrepancy: its writer is about to update
    it. A verification looks again after so long where that may be; 0 looks once."""
    alarm_after_seconds: float = Field(0, ge=0, le=31_536_000)
    """The check `matches_events` only warns of discrepancies that are all younger than this."""
    fresh_minutes: float = Field(15, ge=0.01, le=525_600)
    """The check `is_fresh` looks at aggregates with events of the last so many minutes."""
    verification_buckets: int = Field(7, ge=1, le=1000)
    """`nightly_verification` looks at one of so many buckets each night."""
    timezone: str = "UTC"
    """Time zone of the schedules, such as `Europe/Vienna`."""
    owners: str = "team:read-models"
    """Whom Dagster's UI names as owners of assets, jobs, schedules and sensors: emails, or teams as `team:name`,
    comma-separated."""
    reports_dir: Path | None = None
    """Folder of the reports that Dagster's runs write. Unset: `reports` in the data folder."""
    reports_kept: int = Field(100, ge=1, le=1_000_000)
    """Report files kept there, two for each run; the oldest go."""
    enqueue_limit: int = Field(10_000, ge=1, le=100_000_000)
    """Repairs that one verification with `--enqueue-repairs` queues at most."""
    enqueue_per_second: float = Field(1_000, ge=0.01, le=1_000_000_000)
    """Repairs that it queues in a second at most."""
    dagster_url: SecretStr = SecretStr("http://127.0.0.1:3000")
    """Dagster's web server, which `--launch` submits to; its credentials, if any, as user:password@."""
    data_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_path("readmodel_pipelines", appauthor=False))
    )
    """Data folder of the embedded server."""
    mongod: Path | None = None
    """`mongod` program for the embedded server. Unset: PATH, then the wheel."""

    @field_validator("allow_malformed", "projections", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("dagster_url")
    @classmethod
    def _web_address(cls, value: SecretStr) -> SecretStr:
        try:
            parts = urlsplit(value.get_secret_value())
            there = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            there = False
        if not there:
            raise ValueError(
                "an address looks like http://127.0.0.1:3000 or https://user:password@host/path, with reserved "
                "characters of a password %-escaped"
            )
        return value

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError("there is no such time zone; take a name of the IANA database such as Europe/Vienna")
        return value

    @field_validator("owners")
    @classmethod
    def _are_owners(cls, value: str) -> str:
        owners = [part.strip() for part in value.split(",")]
        if wrong := [owner for owner in owners if not _OWNER.fullmatch(owner)]:
            raise ValueError(f"{wrong[0]!r} is neither an email nor a team such as team:read-models")
        return ",".join(owners)

    @field_validator("off_peak_window")
    @classmethod
    def _is_window(cls, value: str) -> str:
        try:
            return str(Window.parse(value, "UTC")).removesuffix(" UTC")
        except UsageError as error:
            raise ValueError(f"{error.message} {error.hint}") from None

    @field_validator("database")
    @classmethod
    def _database_name(cls, value: str) -> str:
        if not value or len(value.encode()) > 63 or set(value) & set('/\\. "$*<>:|?\0'):
            raise ValueError("a database's name has 1 to 63 bytes, no blank, dot, slash nor any of \\\"$*<>:|?")
        return value

    @field_validator("events_collection", "chats_collection", "tasks_collection", "repair_queue_collection")
    @classmethod
    def _collection_name(cls, value: str) -> str:
        if not value.strip() or "$" in value or "\0" in value:
            raise ValueError("a collection's name is not blank and holds neither '$' nor a zero byte")
        return value

    @model_validator(mode="after")
    def _collections_apart(self) -> Self:
        names = self.named_collections
        if len(set(names)) < len(names) or any(name.startswith(("readmodel_", "system.")) for name in names):
            raise ValueError(
                "events, read models and repair queue lie in four different collections, "
                "none named readmodel_… or system.…"
            )
        return self

    @property
    def named_collections(self) -> tuple[str, ...]:
        """The collections that have a setting; those of further read models have the read model's name."""
        return (self.events_collection, self.chats_collection, self.tasks_collection, self.repair_queue_collection)

    def shown_uri(self) -> str:
        """The connection string without credentials: the only form that may reach a log, an error or a report."""
        if self.mongodb_uri is None:
            return "embedded server"
        return _without_credentials(self.mongodb_uri)

    def fingerprint(self) -> str:
        """What tells this database from others in one Dagster; the server is in it, but for how it is reached."""
        return f"{self.database}-{hashlib.sha256(self.shown_uri().encode()).hexdigest()[:8]}"

    def shown_dagster_url(self) -> str:
        """The address of Dagster's web server without credentials, as `shown_uri`."""
        return _without_credentials(self.dagster_url)


def _without_credentials(secret: SecretStr) -> str:
    # Up to the last @: a password with an unescaped / or @ is the commonest mistake in a connection string.
    whole = secret.get_secret_value()
    scheme = found[0] if (found := _SCHEME.match(whole)) else ""
    _, at, behind = whole.removeprefix(scheme).rpartition("@")
    # Where the @ is missing, what looks like no list of hosts may be user and password.
    if not at and not all(map(_HOST.fullmatch, re.split("[/?#]", behind, maxsplit=1)[0].split(","))):
        behind = "***"
    return _SECRET_OPTION.sub(r"\1***", scheme + behind)


def load_settings() -> Settings:
    """Read the environment.

    Raises:
        UsageError: a variable holds a value that its setting does not take; names each, never shows the URI.
    """
    try:
        return Settings()
    except ValidationError as error:
        wrong = [
            f"READMODEL_{'_'.join(str(part) for part in item['loc'][:1]).upper()}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        ]
        raise UsageError(
            "These settings cannot be used: " + "; ".join(wrong), hint="Correct or unset the environment variables."
        ) from None
