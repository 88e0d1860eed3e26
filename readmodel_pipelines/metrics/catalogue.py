"""Every metric that is exported: its name, its labels and what it says. docs/monitoring.md has the same as a table.

Names follow Prometheus: base units, timestamps in seconds since 1970, and no `_total`, for nothing here only ever
grows: all of it is read from the database as it is. Every label takes values of a closed set: read models of the
registry, outcomes, states, reasons of this project (all others are `other`). No id is ever a label.
"""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily

_UNITS = ("seconds", "ratio")


@dataclass(frozen=True, slots=True)
class Metric:
    """A gauge."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()

    def family(self) -> GaugeMetricFamily:
        """An empty family of it."""
        unit = next((unit for unit in _UNITS if self.name.endswith(f"_{unit}")), "")
        return GaugeMetricFamily(self.name, self.meaning, labels=self.labels, unit=unit)


# The exporter itself

UP = Metric("readmodel_up", "Whether MongoDB answered this scrape: 1, or 0, and then there is no other number of it.")
BUILD = Metric("readmodel_build_info", "Always 1; the label is the version of this project.", ("version",))
SCRAPE_DURATION = Metric("readmodel_scrape_duration_seconds", "How long this scrape took to ask MongoDB.")
COLLECTOR_SUCCESS = Metric(
    "readmodel_scrape_collector_success",
    "Whether this part of the scrape could be read: 1, or 0 when a right is lacking or the time was over.",
    ("collector",),
)

# The repair queue

QUEUE_TASKS = Metric(
    "readmodel_repair_queue_tasks",
    "Repair tasks by status; failed are dead letters, completed as estimated by MongoDB.",
    ("status",),
)
QUEUE_DUE = Metric("readmodel_repair_queue_due_tasks", "Repair tasks that a worker may take now.")
QUEUE_OLDEST = Metric(
    "readmodel_repair_queue_oldest_pending_age_seconds",
    "Age of the oldest pending repair task, those that wait for their next attempt included; 0 without any.",
)
QUEUE_RATE = Metric(
    "readmodel_repair_queue_repairs_per_second", "Repair tasks completed per second, over the last five minutes."
)
DEAD_LETTERS = Metric("readmodel_repair_queue_dead_letters", "Dead letters by reason.", ("reason",))
QUEUE_WARNING = Metric("readmodel_repair_queue_warning_tasks", "READMODEL_REPAIR_QUEUE_WARNING, to alert on.")
QUEUE_LIMIT = Metric(
    "readmodel_repair_queue_limit_tasks", "READMODEL_REPAIR_QUEUE_LIMIT: with more open tasks producers are refused."
)

# Findings and verifications

OPEN_FINDINGS = Metric(
    "readmodel_open_findings", "Open findings of verifications, by read model and outcome.", ("read_model", "outcome")
)
OLDEST_FINDING = Metric(
    "readmodel_open_findings_oldest_timestamp_seconds",
    "When the oldest open finding was first seen; absent without any.",
    ("read_model", "outcome"),
)
_VERIFICATION = ("read_model", "coverage")
VERIFICATION_END = Metric(
    "readmodel_last_verification_end_timestamp_seconds",
    "When the last verification ended: of any coverage, or of everything, all fields of all aggregates.",
    _VERIFICATION,
)
VERIFICATION_DURATION = Metric(
    "readmodel_last_verification_duration_seconds",
    "How long the last verification took, all its read models together.",
    _VERIFICATION,
)
VERIFICATION_EVENTS = Metric(
    "readmodel_last_verification_events",
    "Events that the last verification read, for all its read models together.",
    _VERIFICATION,
)
VERIFICATION_RATE = Metric(
    "readmodel_last_verification_events_per_second", "Events that the last verification read per second.", _VERIFICATION
)
VERIFICATION_AGGREGATES = Metric(
    "readmodel_last_verification_aggregates",
    "Aggregates that the last verification looked at, by outcome.",
    (*_VERIFICATION, "outcome"),
)
VERIFICATION_ENDED = (
    VERIFICATION_END,
    VERIFICATION_DURATION,
    VERIFICATION_EVENTS,
    VERIFICATION_RATE,
    VERIFICATION_AGGREGATES,
)
VERIFICATION_SUCCESS = Metric(
    "readmodel_last_verification_success", "Whether the last verification found no discrepancy: 1, or 0.", _VERIFICATION
)

# Rebuilds

REBUILD_END = Metric(
    "readmodel_last_rebuild_end_timestamp_seconds", "When the last full rebuild was done.", ("read_model",)
)
REBUILD_DURATION = Metric(
    "readmodel_last_rebuild_duration_seconds",
    "How long the last full rebuild took, without the time between an interruption and its resumption.",
    ("read_model",),
)
REBUILD_EVENTS = Metric("readmodel_last_rebuild_events", "Events that the last full rebuild read.", ("read_model",))
REBUILD_RATE = Metric(
    "readmodel_last_rebuild_events_per_second", "Events that the last full rebuild read per second.", ("read_model",)
)
REBUILD_AGGREGATES = Metric(
    "readmodel_last_rebuild_aggregates",
    "Aggregates that the last full rebuild looked at, by outcome.",
    ("read_model", "outcome"),
)
REBUILD_ENDED = (REBUILD_END, REBUILD_DURATION, REBUILD_EVENTS, REBUILD_RATE, REBUILD_AGGREGATES)
REBUILD_WRITES = Metric(
    "readmodel_last_rebuild_writes",
    "Documents that the last full rebuild wrote, by what was done.",
    ("read_model", "operation"),
)
REBUILD_FAILED = Metric(
    "readmodel_last_rebuild_failed_aggregates",
    "Aggregates that needed a write of the last full rebuild and did not get it.",
    ("read_model",),
)
REBUILD_SUCCESS = Metric(
    "readmodel_last_rebuild_success",
    "Whether the last full rebuild left every aggregate as its events say: 1, or 0 when some are malformed or failed.",
    ("read_model",),
)
REBUILD_STATE = Metric(
    "readmodel_rebuild_state", "1 for the state that an unfinished full rebuild is in, else 0.", ("read_model", "state")
)
REBUILD_START = Metric(
    "readmodel_rebuild_start_timestamp_seconds", "When the unfinished full rebuild began.", ("read_model",)
)
REBUILD_PROGRESS_AT = Metric(
    "readmodel_rebuild_progress_timestamp_seconds", "When the unfinished rebuild last saved progress.", ("read_model",)
)
REBUILD_READ = Metric(
    "readmodel_rebuild_read_events", "Events that the unfinished rebuild has read so far.", ("read_model",)
)
REBUILD_EXPECTED = Metric(
    "readmodel_rebuild_expected_events",
    "Events that the unfinished rebuild has to read at most: those of every aggregate type, as estimated.",
    ("read_model",),
)
REBUILD_PROGRESS = Metric(
    "readmodel_rebuild_progress_ratio",
    "Share of the unfinished rebuild's reading that is done; 1 while it finishes.",
    ("read_model",),
)
REBUILD_LEASE = Metric(
    "readmodel_rebuild_lease_held",
    "Whether somebody works on a full rebuild of the read model now: 1, or 0.",
    ("read_model",),
)

# What there is

LEASES = Metric(
    "readmodel_leases_held", "Leases that are held: of full rebuilds, and of aggregates under repair.", ("kind",)
)
DOCUMENTS = Metric("readmodel_documents", "Documents of the read model, as estimated by MongoDB.", ("read_model",))
EVENTS = Metric("readmodel_events", "Events of every aggregate type, as estimated by MongoDB.")

METRICS: tuple[Metric, ...] = tuple(item for item in globals().copy().values() if isinstance(item, Metric))
"""All of them, in this order."""
