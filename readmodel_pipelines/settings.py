"""All settings of the project: environment variables ``READMODEL_*``, validated only here."""

import hashlib
import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import platformdirs
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.pacing import Window

TaskSource = Literal["chat", "task"]
NightlyCoverage = Literal["changed", "bucket", "changed_and_bucket", "everything"]
AllowedKind = Literal["unknown_event_type", "version_gap"]
ReadOrder = Literal["auto", "index", "scan"]

MOST_SLICES = 1_000
"""Of one rebuild, because each slice that ends searches for every other one."""

_OWNER = re.compile(r"team:[\w.-]+|[\w.+-]+@[\w-]+(\.[\w-]+)+", re.ASCII)
_CRON = re.compile(r"[\d*,/-]+ +[\d*,/-]+ +[\d*,/?L-]+ +[\w*,/-]+ +[\w*,/#-]+", re.ASCII)
_SCHEME = re.compile(r"[\w+.-]+://")
_HOST = re.compile(r"(\[[^]]*\]|[^:]*)(:\d*)?")
SECRET_OPTION = re.compile(r"(?i)([?&;](?:\w*password|authMechanismProperties)=)([^&;]*(?:[&;](?![\w.]+=)[^&;]*)*)")
"""An option of a connection string whose value is secret. A password may contain unescaped separators of options."""


class Settings(BaseSettings):
    """The values of the environment; an unset variable has its default. Every number has a range."""

    model_config = SettingsConfigDict(env_prefix="READMODEL_", frozen=True, extra="ignore", env_ignore_empty=True)

    mongodb_uri: SecretStr | None = None
    """Connection string of MongoDB. Unset: the embedded server."""
    api_version: Literal["1"] | None = None
    """Version of MongoDB's Stable API that each command declares, for a server with `requireApiVersion`. Unset:
    none."""
    database: str = "flowra"
    """Database that holds the events and the read models."""
    events_collection: str = "events"
    """Collection that holds the events. It is never written."""
    chats_collection: str = "chats_read_model"
    """Collection of the chats read model."""
    tasks_collection: str = "tasks_read_model"
    """Collection of the tasks read model."""
    repair_queue_collection: str = "repair_queue"
    """Collection of the repair queue."""
    failover_seconds: float = Field(60, ge=0, le=86_400)
    """Time that a running command waits for a primary after a lost connection, an election or a killed operation, in
    seconds. It then continues at its last batch. A first connection always fails within seconds. 0: no wait."""
    task_source: TaskSource = "chat"
    """Streams that the tasks read model is built from: `chat` (current) or `task` (legacy task streams)."""
    projections: Annotated[tuple[str, ...], NoDecode] = ()
    """Additional read models: modules or paths of `.py` files that define READ_MODELS, comma-separated. Unset: the
    built-in ones alone."""
    allow_malformed: Annotated[frozenset[AllowedKind], NoDecode] = frozenset()
    """Kinds of malformed streams to fold anyway, comma-separated: `unknown_event_type` (the event is skipped),
    `version_gap`. Unset: none."""
    max_delete_share: float = Field(0.05, ge=0, le=1)
    """Largest share of a read model that a full rebuild may delete. Up to 3 documents may always be deleted, unless
    this is 0. 0: a rebuild that would delete is refused."""
    workers: int = Field(default_factory=lambda: min(4, os.cpu_count() or 1), ge=1, le=64)
    """Worker processes of a full rebuild or verification on this machine. A small store uses one."""
    read_order: ReadOrder = "auto"
    """Order in which a full pass reads the events: `index` (the order of the index), `scan` (the order in which they
    are stored, sorted in a spool on this machine), `auto` (`scan` where the events exceed the server's cache)."""
    spool_dir: Path | None = None
    """Folder of the spool. Unset: `spool` in the data folder."""
    slices: int = Field(16, ge=1, le=MOST_SLICES)
    """Partitions of `rebuild_slices` for each read model."""
    rebuild_valid_days: float = Field(7, ge=0.001, le=365)
    """Time in which an interrupted rebuild can be resumed, in days. Later it begins anew."""
    catch_up_seconds: float = Field(300, ge=0, le=86_400)
    """Longest time that a rebuild follows new events before it ends, in seconds. 0: one catch-up."""
    keep_copy: bool = True
    """Whether a shadow rebuild keeps the previous documents for `readmodel rebuilds rollback REBUILD`."""
    swap_wait_seconds: float = Field(1, ge=0.01, le=600)
    """Longest wait of one cut-over attempt for the application's transactions, in seconds. Writers to the live
    collection wait as long."""
    swap_tries: int = Field(60, ge=1, le=100_000)
    """Cut-over attempts before the rebuild gives up. The pause between two attempts is READMODEL_SWAP_WAIT_SECONDS."""
    max_events_per_second: float | None = Field(None, ge=0.01, le=1_000_000_000)
    """Most events that a full rebuild or a verification reads per second. Unset: no limit."""
    max_documents_per_second: float | None = Field(None, ge=0.01, le=1_000_000_000)
    """Most documents that a full rebuild writes per second. Unset: no limit."""
    max_queued_operations: int = Field(100, ge=0, le=1_000_000)
    """A rebuild or verification pauses while the server has more queued operations than this. 0: it never pauses."""
    max_replication_lag_seconds: float = Field(30, ge=0, le=86_400)
    """A rebuild or verification pauses while a secondary lags by more than this, in seconds. 0: it never pauses."""
    off_peak_window: str = "22:00-06:00"
    """Hours in which `off_peak_rebuild` and `--off-peak` work, in READMODEL_TIMEZONE."""
    lease_seconds: float = Field(60, ge=1, le=86_400)
    """Lifetime of a rebuild's lease after its holder died, in seconds. A living holder renews it."""
    repair_lease_seconds: float = Field(300, ge=1, le=86_400)
    """Lifetime of a repair's lease on an aggregate after its holder died, in seconds. A living holder renews it."""
    repair_attempts: int = Field(8, ge=1, le=1000)
    """Failed attempts after which a repair task becomes a dead letter."""
    repair_backoff_seconds: float = Field(30, ge=0, le=2_592_000)
    """Maximum delay after the first failed attempt, in seconds. The actual delay is random, from 0 to this."""
    repair_backoff_factor: float = Field(2, ge=1, le=1_000)
    """Multiplier applied to the maximum delay after each failed attempt."""
    repair_backoff_cap_seconds: float = Field(3600, ge=0, le=2_592_000)
    """Upper bound of the maximum delay, in seconds."""
    repair_batch_size: int = Field(500, ge=1, le=10_000)
    """Aggregates that a repair run processes in one batch."""
    repair_queue_limit: int = Field(100_000, ge=1, le=100_000_000)
    """Open repair tasks above which this project's API refuses new ones."""
    repair_queue_warning: int = Field(1_000, ge=1, le=100_000_000)
    """Open repair tasks above which the asset check of the queue warns."""
    repair_retention_days: float = Field(14, ge=0.001, le=10_000)
    """Time after which a completed repair task expires, in days. `ensure-indexes` applies a change."""
    grace_seconds: float = Field(5, ge=0, le=3600)
    """Age below which an event may still be on its way to the read model, in seconds. A document that lacks only such
    events is `lagging`, not a discrepancy. A verification compares it again after this time. 0: it compares once."""
    alarm_after_seconds: float = Field(0, ge=0, le=31_536_000)
    """The check `matches_events` fails only if a discrepancy is older than this, in seconds; otherwise it warns. 0: it
    fails at once."""
    fresh_minutes: float = Field(15, ge=0.01, le=525_600)
    """The check `is_fresh` compares the aggregates that have events of the last minutes; this is how many."""
    causes_limit: int = Field(20_000, ge=0, le=100_000_000)
    """Findings of one read model whose cause a verification determines. It folds their streams once more. 0: none."""
    verification_buckets: int = Field(7, ge=1, le=1000)
    """Number of buckets. `nightly_verification` verifies one bucket each night."""
    verified_within_hours: float = Field(36, ge=0, le=100_000)
    """Time after which the check `is_verified` warns if no verification began, in hours. 0: it never warns."""
    nightly_cron: str = "0 2 * * *"
    """Schedule of `nightly_verification` in READMODEL_TIMEZONE: minute, hour, day of the month, month, day of the
    week."""
    nightly_coverage: NightlyCoverage = "changed_and_bucket"
    """Part of the store that `nightly_verification` covers: `changed` (aggregates with events since the last
    verification, and open findings), `bucket`, `changed_and_bucket` or `everything`."""
    nightly_enqueue_repairs: bool = False
    """Whether `nightly_verification` queues a repair for each finding."""
    weekly_cron: str = "0 3 * * 0"
    """Schedule of `weekly_verification` in READMODEL_TIMEZONE."""
    timezone: str = "UTC"
    """Time zone of the schedules, as an IANA name such as `Europe/Vienna`."""
    owners: str = "team:read-models"
    """Owners that Dagster's UI shows, comma-separated: emails, or teams as `team:name`."""
    reports_dir: Path | None = None
    """Folder of the reports that Dagster's runs write. Unset: `reports` in the data folder."""
    reports_url: str | None = None
    """Address of that folder, served by `readmodel reports` or by another web server. The pages of runs and checks then
    link their report. Unset: they show its path."""
    reports_kept: int = Field(100, ge=1, le=1_000_000)
    """Report files kept in that folder; the oldest are removed. A run writes two, and its own stay."""
    enqueue_limit: int = Field(10_000, ge=1, le=100_000_000)
    """Most repairs that one verification with `--enqueue-repairs` queues."""
    enqueue_per_second: float = Field(1_000, ge=0.01, le=1_000_000_000)
    """Most repairs that a verification queues per second."""
    dagster_url: SecretStr = SecretStr("http://127.0.0.1:3000")
    """Address of Dagster's web server, which `--launch` submits to. Credentials stand in it as `user:password@`."""
    tell_dagster: bool = False
    """Whether rebuilds and verifications of the command line are recorded on the assets of that web server."""
    alert_webhook: SecretStr | None = None
    """Address that alerts of failed runs and checks are posted to, in Slack's form. Unset: no post."""
    alert_mail: SecretStr | None = None
    """Mail server, sender and receivers of alerts: `smtp://user:password@host:25?from=a@x.org&to=b@x.org&to=c@x.org`.
    `smtps` encrypts from the beginning. Unset: no mail."""
    data_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_path("readmodel_pipelines", appauthor=False))
    )
    """Data folder of the embedded server."""
    mongod: Path | None = None
    """`mongod` program of the embedded server. Unset: the one in PATH, else the wheel's; of two of one series, the one
    with the higher patch."""

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
                "an address has the form http://127.0.0.1:3000 or https://user:password@host/path, with reserved "
                "characters of a password %-escaped"
            )
        return value

    @field_validator("reports_url")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None:
            cls._web_address(SecretStr(value))
        return value

    @field_validator("alert_webhook")
    @classmethod
    def _is_webhook(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else cls._web_address(value)

    @field_validator("alert_mail")
    @classmethod
    def _is_mail(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value.get_secret_value())
            asked = parse_qs(parts.query)
            there = parts.scheme in ("smtp", "smtps") and parts.hostname and parts.port != 0
        except ValueError:
            there, asked = False, {}
        if not there or len(asked.get("from", ())) != 1 or not asked.get("to"):
            raise ValueError(
                "mail has the form smtp://user:password@host:25?from=a@x.org&to=b@x.org, with reserved characters "
                "%-escaped, or smtps:// for encryption from the beginning"
            )
        return value

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str) -> str:
        # Only the file of that name, because a list of all would read hundreds for every process that starts.
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError(
                "there is no such time zone; give a name of the IANA database such as Europe/Vienna"
            ) from None
        return value

    @field_validator("nightly_cron", "weekly_cron")
    @classmethod
    def _is_cron(cls, value: str) -> str:
        if not _CRON.fullmatch(value.strip()):
            raise ValueError(
                "a schedule looks like 30 2 * * 1-5: minute, hour, day of the month, month, day of the week"
            )
        return value.strip()

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
                "events, read models and repair queue must be four different collections, none named readmodel_… or "
                "system.…"
            )
        return self

    @property
    def named_collections(self) -> tuple[str, ...]:
        """The collections that have a setting; those of added read models have the read model's name."""
        return (self.events_collection, self.chats_collection, self.tasks_collection, self.repair_queue_collection)

    def shown_uri(self) -> str:
        """The connection string without credentials, the only form for logs, errors and reports."""
        if self.mongodb_uri is None:
            return "embedded server"
        return _without_credentials(self.mongodb_uri)

    def fingerprint(self) -> str:
        """Identifies this database among others in one Dagster; includes the server, but not how it is reached."""
        return f"{self.database}-{hashlib.sha256(self.shown_uri().encode()).hexdigest()[:8]}"

    def shown_dagster_url(self) -> str:
        """The address of Dagster's web server without credentials, like `shown_uri`."""
        return _without_credentials(self.dagster_url)


def _without_credentials(secret: SecretStr) -> str:
    # Options first, because their secrets may contain an @ without escape. Then up to the last @: a password with an
    # unescaped / or @ is the most common mistake in a connection string.
    whole = SECRET_OPTION.sub(r"\1***", secret.get_secret_value())
    scheme = found[0] if (found := _SCHEME.match(whole)) else ""
    _, at, behind = whole.removeprefix(scheme).rpartition("@")
    # Without an @, text that is no list of hosts may be user and password.
    if not at and not all(map(_HOST.fullmatch, re.split("[/?#]", behind, maxsplit=1)[0].split(","))):
        behind = "***"
    return scheme + behind


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        UsageError: a variable has an invalid value; the message names each variable, and never shows the URI.
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
