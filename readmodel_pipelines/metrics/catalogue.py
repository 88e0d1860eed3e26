"""Every metric that is exported: its name, its labels and what it says. docs/monitoring.md has the same as a table.

Names follow Prometheus: base units, timestamps in seconds since 1970, and no `_total`, for nothing here only ever
grows: all of it is read from the database as it is. Every label takes values of a closed set: read models of the
registry, outcomes, states, reasons of this project (all others are `other`). No id is ever a label.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily

_UNITS = ("seconds", "ratio")


@dataclass(frozen=True, slots=True)
class Metric:
    """A gauge."""

    name: str
    meaning: str
    labels: tuple[str, ...]

    def family(self) -> GaugeMetricFamily:
        """An empty family of it."""
        unit = next((unit for unit in _UNITS if self.name.endswith(f"_{unit}")), "")
        return GaugeMetricFamily(self.name, self.meaning, labels=self.labels, unit=unit)


# As Prometheus writes them, without the `readmodel_` that is before them all.
_MEANINGS = {
    # The exporter itself
    "up": "Whether MongoDB answered this scrape: 1, or 0, and then there is no other number of it.",
    "build_info{version}": "Always 1; the label is the version of this project.",
    "scrape_duration_seconds": "How long this scrape took to ask MongoDB.",
    "scrape_collector_success{collector}": "Whether this part of the scrape could be read: 1, or 0 when a right is "
    "lacking or the time was over.",
    # The repair queue
    "repair_queue_tasks{status}": "Repair tasks by status; failed are dead letters, completed as estimated by MongoDB.",
    "repair_queue_due_tasks": "Repair tasks that a worker may take now.",
    "repair_queue_oldest_pending_age_seconds": "Age of the oldest pending repair task, those that wait for their next "
    "attempt included; 0 without any.",
    "repair_queue_repairs_per_second": "Repair tasks completed per second, over the last five minutes.",
    "repair_queue_dead_letters{reason}": "Dead letters by reason.",
    "repair_queue_warning_tasks": "READMODEL_REPAIR_QUEUE_WARNING, to alert on.",
    "repair_queue_limit_tasks": "READMODEL_REPAIR_QUEUE_LIMIT: with more open tasks producers are refused.",
    # Findings and verifications
    "open_findings{read_model,outcome}": "Open findings of verifications, by read model and outcome.",
    "open_findings_oldest_timestamp_seconds{read_model,outcome}": "When the oldest open finding was first seen; absent "
    "without any.",
    "last_verification_end_timestamp_seconds{read_model,coverage}": "When the last verification ended: of any "
    "coverage, or of everything, all fields of all aggregates.",
    "last_verification_duration_seconds{read_model,coverage}": "How long the last verification took, all its read "
    "models together.",
    "last_verification_events{read_model,coverage}": "Events that the last verification read, for all its read models "
    "together.",
    "last_verification_events_per_second{read_model,coverage}": "Events that the last verification read per second.",
    "last_verification_aggregates{read_model,coverage,outcome}": "Aggregates that the last verification looked at, by "
    "outcome.",
    "last_verification_success{read_model,coverage}": "Whether the last verification found no discrepancy: 1, or 0.",
    # Rebuilds
    "last_rebuild_end_timestamp_seconds{read_model}": "When the last full rebuild was done.",
    "last_rebuild_duration_seconds{read_model}": "How long the last full rebuild took, without the time between an "
    "interruption and its resumption.",
    "last_rebuild_events{read_model}": "Events that the last full rebuild read.",
    "last_rebuild_events_per_second{read_model}": "Events that the last full rebuild read per second.",
    "last_rebuild_aggregates{read_model,outcome}": "Aggregates that the last full rebuild looked at, by outcome.",
    "last_rebuild_writes{read_model,operation}": "Documents that the last full rebuild wrote, by what was done.",
    "last_rebuild_failed_aggregates{read_model}": "Aggregates that needed a write of the last full rebuild and did not "
    "get it.",
    "last_rebuild_success{read_model}": "Whether the last full rebuild left every aggregate as its events say: 1, or 0 "
    "when some are malformed or failed.",
    "rebuild_state{read_model,state}": "1 for the state that an unfinished full rebuild is in, else 0.",
    "rebuild_start_timestamp_seconds{read_model}": "When the unfinished full rebuild began.",
    "rebuild_progress_timestamp_seconds{read_model}": "When the unfinished rebuild last saved progress.",
    "rebuild_read_events{read_model}": "Events that the unfinished rebuild has read so far.",
    "rebuild_expected_events{read_model}": "Events that the unfinished rebuild has to read at most: those of every "
    "aggregate type, as estimated.",
    "rebuild_progress_ratio{read_model}": "Share of the unfinished rebuild's reading that is done; 1 while it "
    "finishes.",
    "rebuild_lease_held{read_model}": "Whether somebody works on a full rebuild of the read model now: 1, or 0.",
    # What there is
    "leases_held{kind}": "Leases that are held: of full rebuilds, and of aggregates under repair.",
    "documents{read_model}": "Documents of the read model, as estimated by MongoDB.",
    "events": "Events of every aggregate type, as estimated by MongoDB.",
}

METRICS: Mapping[str, Metric] = {
    name: Metric(f"readmodel_{name}", meaning, tuple(filter(None, labels.split(","))))
    for told, meaning in _MEANINGS.items()
    for name, _, labels in [told.removesuffix("}").partition("{")]
}
"""All of them, in this order, by their names without `readmodel_`."""
