"""For each symptom, which alerts fire, which do not, and not before their time: what `promtool test rules` is told.

Series are without the prefix `readmodel_`, alerts without `Readmodel`. What fires at a time is complete: no other does.
"""

from dataclasses import dataclass
from typing import Any

_FIRING = 'count by (alertname, instance, collector, reason, read_model) (ALERTS{alertstate="firing"})'
"""`ALERTS` is what Prometheus itself records."""


@dataclass(frozen=True)
class Scenario:
    """Series with their values, and the alerts that fire by the time; a sample each `interval`."""

    name: str
    series: dict[str, str]
    firing: dict[str, list[str]]
    interval: str = "1m"

    def as_test(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "interval": self.interval,
            "input_series": [
                {"series": f"readmodel_{series}", "values": values} for series, values in self.series.items()
            ],
            "promql_expr_test": [
                {"expr": _FIRING, "eval_time": time, "exp_samples": [_sample(*alert.split(" ", 1)) for alert in alerts]}
                for time, alerts in self.firing.items()
            ],
        }


def _sample(alert: str, labels: str = "") -> dict[str, Any]:
    return {"labels": f'{{alertname="Readmodel{alert}"{labels and ", "}{labels}}}', "value": 1}


CHATS, TASKS = 'read_model="chats_read_model"', 'read_model="tasks_read_model"'

SCENARIOS = [
    Scenario(
        "all is well, with repairs going on, a rebuild at work and verifications each night",
        {
            "up": "1x576",
            'scrape_collector_success{collector="queue"}': "1x576",
            'repair_queue_tasks{status="pending"}': "0+5x18 90x558",
            'repair_queue_tasks{status="completed"}': "0+500x576",
            'repair_queue_tasks{status="failed"}': "0x576",
            "repair_queue_due_tasks": "5x576",
            "repair_queue_repairs_per_second": "2x576",
            "repair_queue_oldest_pending_age_seconds": "3600x576",
            "repair_queue_warning_tasks": "1000x576",
            "repair_queue_limit_tasks": "100000x576",
            'repair_queue_dead_letters{reason="bad_field"}': "0x576",
            f'open_findings{{{CHATS}, outcome="different"}}': "0x576",
            f'open_findings{{{CHATS}, outcome="malformed"}}': "0x576",
            f"documents{{{CHATS}}}": "1000x576",
            # The one of the first night ends at minute 0, that of the second a day later.
            f'last_verification_end_timestamp_seconds{{{CHATS}, coverage="any"}}': "0x288 86400x288",
            f'last_verification_end_timestamp_seconds{{{CHATS}, coverage="everything"}}': "0x576",
            f'rebuild_state{{{CHATS}, state="building"}}': "1x576",
            f'rebuild_state{{{CHATS}, state="refused"}}': "0x576",
            f"rebuild_progress_timestamp_seconds{{{CHATS}}}": "0+300x576",
            f"rebuild_lease_held{{{CHATS}}}": "1x576",
            f"last_rebuild_success{{{CHATS}}}": "1x576",
        },
        {"2h": [], "30h": [], "48h": []},
        interval="5m",
    ),
    Scenario("nobody is scraped", {'up{instance="a"}': "1x10"}, {"12m": [], "30m": ["ExporterDown"]}),
    Scenario("MongoDB is away", {'up{instance="a"}': "0x30"}, {"9m": [], "10m": ['MongoDBUnreachable instance="a"']}),
    Scenario(
        "MongoDB refuses a part",
        {
            "up": "1x30",
            'scrape_collector_success{collector="queue"}': "0x30",
            'scrape_collector_success{collector="sizes"}': "1x30",
        },
        {"20m": ['MetricsIncomplete collector="queue"']},
    ),
    Scenario(
        "the application fails to update read models, and nobody repairs",
        {
            "up": "1x240",
            'repair_queue_tasks{status="pending"}': "1x30 100+10x210",
            'repair_queue_tasks{status="processing"}': "0x240",
            'repair_queue_tasks{status="completed"}': "5000000x240",
            "repair_queue_due_tasks": "0x30 100+10x210",
            "repair_queue_repairs_per_second": "0x240",
            "repair_queue_oldest_pending_age_seconds": "0+60x240",
            "repair_queue_warning_tasks": "1000x240",
            "repair_queue_limit_tasks": "2000x240",
        },
        {
            "30m": [],
            # It doubled, and nothing is repaired.
            "60m": ["RepairQueueGrows", "RepairsNotDone"],
            # From minute 121 on 1,000 are open, from minute 221 on 2,000; none of the completed ones counts.
            "240m": ["RepairPendingTooLong", "RepairQueueFull", "RepairQueueLong", "RepairsNotDone"],
        },
    ),
    Scenario(
        "dead letters of one reason",
        {
            "up": "1x30",
            'repair_queue_dead_letters{reason="bad_field"}': "3x30",
            'repair_queue_dead_letters{reason="other"}': "0x30",
        },
        {"9m": [], "10m": ['DeadLetters reason="bad_field"']},
    ),
    Scenario(
        "a verification found something",
        {
            "up": "1x30",
            f'open_findings{{{CHATS}, outcome="different"}}': "3x30",
            f'open_findings{{{TASKS}, outcome="malformed"}}': "1x30",
        },
        {"20m": [f"MalformedStreams {TASKS}", f"OpenFindings {CHATS}"]},
    ),
    Scenario(
        "one read model was verified two days ago, another never, and an empty one need not be",
        {
            "up": "1x576",
            f"documents{{{CHATS}}}": "10x576",
            f"documents{{{TASKS}}}": "10x576",
            'documents{read_model="new_read_model"}': "0x576",
            f'last_verification_end_timestamp_seconds{{{CHATS}, coverage="any"}}': "0x576",
        },
        {"20h": [], "47h": [f"NeverVerified {TASKS}", f"VerificationTooOld {CHATS}"]},
        interval="5m",
    ),
    Scenario(
        "a rebuild holds its lease and saves nothing",
        {
            "up": "1x60",
            f'rebuild_state{{{CHATS}, state="building"}}': "1x60",
            f'rebuild_state{{{TASKS}, state="finishing"}}': "1x60",
            f"rebuild_progress_timestamp_seconds{{{CHATS}}}": "0x60",
            f"rebuild_progress_timestamp_seconds{{{TASKS}}}": "0x60",
            f"rebuild_lease_held{{{CHATS}}}": "1x60",
            f"rebuild_lease_held{{{TASKS}}}": "1x60",
        },
        # The end of a rebuild saves nothing for long: only the ranges do.
        {"30m": [], "50m": [f"RebuildStuck {CHATS}"]},
    ),
    Scenario(
        "a rebuild that waits for the next night, and one that nobody resumes",
        {
            "up": "1x576",
            f'rebuild_state{{{CHATS}, state="building"}}': "1x576",
            f"rebuild_lease_held{{{CHATS}}}": "0x192 1x96 0x192 1x96",
            f"rebuild_progress_timestamp_seconds{{{CHATS}}}": "0+300x576",
            f'rebuild_state{{{TASKS}, state="building"}}': "1x576",
            f'rebuild_state{{{TASKS}, state="finishing"}}': "0x576",
            f"rebuild_lease_held{{{TASKS}}}": "0x576",
        },
        {"25h": [], "47h": [f"RebuildInterrupted {TASKS}"]},
        interval="5m",
    ),
    Scenario(
        "a rebuild was killed at its swap, another refused, a third left some out",
        {
            "up": "1x30",
            f'rebuild_state{{{CHATS}, state="swapping"}}': "1x30",
            f"rebuild_lease_held{{{CHATS}}}": "0x30",
            f'rebuild_state{{{TASKS}, state="refused"}}': "1x30",
            f"rebuild_lease_held{{{TASKS}}}": "0x30",
            'last_rebuild_success{read_model="another"}': "0x30",
        },
        {
            "15m": [
                'RebuildIncomplete read_model="another"',
                f"RebuildInterruptedAtSwap {CHATS}",
                f"RebuildRefused {TASKS}",
            ]
        },
    ),
]
