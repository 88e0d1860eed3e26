"""Every exported metric: its name, its labels and its meaning. docs/monitoring.md has the same as a table.

Names follow Prometheus: base units, timestamps in seconds since 1970. There is no `_total`, because all values are read
from the database and can decrease. Every label has a closed set of values: read models of the registry, outcomes,
states, reasons of this project (all others are `other`). No id is ever a label.
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


# As in Prometheus, without their common prefix `readmodel_`.
_MEANINGS = {
    # The exporter itself
    "up": "1 if MongoDB answered this scrape, else 0 (no other MongoDB metric is exported then).",
    "build_info{version}": "Always 1; the label is the version of this project.",
    "scrape_duration_seconds": "Duration of this scrape's requests to MongoDB.",
    "scrape_collector_success{collector}": "1 if this part of the scrape succeeded, 0 if a right is missing or the "
    "time was over.",
    # The repair queue
    "repair_queue_tasks{status}": "Repair tasks by status; failed are dead letters, completed as estimated by MongoDB.",
    "repair_queue_due_tasks": "Repair tasks that a worker may take now.",
    "repair_queue_oldest_pending_age_seconds": "Age of the oldest pending repair task, including those that wait for "
    "their next attempt; 0 without any.",
    "repair_queue_repairs_per_second": "Repair tasks completed per second, over the last five minutes.",
    "repair_queue_dead_letters{reason}": "Dead letters by reason.",
    "repair_queue_warning_tasks": "READMODEL_REPAIR_QUEUE_WARNING, to alert on.",
    "repair_queue_limit_tasks": "READMODEL_REPAIR_QUEUE_LIMIT: above this number of open tasks, producers are refused.",
    # Findings and verifications
    "open_findings{read_model,outcome}": "Open findings of verifications, by read model and outcome.",
    "open_findings_oldest_timestamp_seconds{read_model,outcome}": "Time when the oldest open finding was first seen; "
    "absent without any.",
    "last_verification_end_timestamp_seconds{read_model,coverage}": "End of the last verification: of any coverage, or "
    "of everything (all fields of all aggregates).",
    "last_verification_duration_seconds{read_model,coverage}": "Duration of the last verification, all its read "
    "models together.",
    "last_verification_events{read_model,coverage}": "Events that the last verification read, for all its read models "
    "together.",
    "last_verification_events_per_second{read_model,coverage}": "Events that the last verification read per second.",
    "last_verification_aggregates{read_model,coverage,outcome}": "Aggregates that the last verification compared, by "
    "outcome.",
    "last_verification_success{read_model,coverage}": "1 if the last verification found no discrepancy, else 0.",
    "last_verification_causes{read_model,coverage,cause}": "Findings of the last verification by cause, malformed "
    "streams apart.",
    "last_verification_lost_updates{read_model,coverage,event_type}": "Findings of the last verification by the type "
    "of the first lost event.",
    "last_verification_lost_updates_first_timestamp_seconds{read_model,coverage}": "Time of the earliest lost event "
    "in the last verification.",
    "last_verification_lost_updates_last_timestamp_seconds{read_model,coverage}": "Time of the latest first lost event "
    "of an aggregate in the last verification.",
    # Rebuilds
    "last_rebuild_end_timestamp_seconds{read_model}": "End of the last full rebuild.",
    "last_rebuild_duration_seconds{read_model}": "Duration of the last full rebuild, without the time between an "
    "interruption and its resumption.",
    "last_rebuild_events{read_model}": "Events that the last full rebuild read.",
    "last_rebuild_events_per_second{read_model}": "Events that the last full rebuild read per second.",
    "last_rebuild_aggregates{read_model,outcome}": "Aggregates that the last full rebuild compared, by outcome.",
    "last_rebuild_writes{read_model,operation}": "Documents that the last full rebuild wrote, by kind of write.",
    "last_rebuild_failed_aggregates{read_model}": "Aggregates that the last full rebuild failed to write.",
    "last_rebuild_success{read_model}": "1 if the last full rebuild left every aggregate equal to its events, 0 if "
    "some are malformed or failed.",
    "rebuild_state{read_model,state}": "1 for the state that an unfinished full rebuild is in, else 0.",
    "rebuild_start_timestamp_seconds{read_model}": "Beginning of the unfinished full rebuild.",
    "rebuild_progress_timestamp_seconds{read_model}": "Time when the unfinished rebuild last saved its checkpoint.",
    "rebuild_read_events{read_model}": "Events that the unfinished rebuild has read so far.",
    "rebuild_expected_events{read_model}": "Events that the unfinished rebuild has to read at most: those of every "
    "aggregate type, as estimated.",
    "rebuild_progress_ratio{read_model}": "Share of the unfinished rebuild's reading that is done; 1 while it "
    "finishes.",
    "rebuild_lease_held{read_model}": "1 if a full rebuild of the read model is at work now, else 0.",
    # Sizes and leases
    "leases_held{kind}": "Leases that are held: of full rebuilds, and of aggregates under repair.",
    "documents{read_model}": "Documents of the read model, as estimated by MongoDB.",
    "events": "Events of every aggregate type, as estimated by MongoDB.",
}

METRICS: Mapping[str, Metric] = {
    name: Metric(f"readmodel_{name}", meaning, tuple(filter(None, labels.split(","))))
    for told, meaning in _MEANINGS.items()
    for name, _, labels in [told.removesuffix("}").partition("{")]
}
"""All metrics, in this order, by their names without `readmodel_`."""
