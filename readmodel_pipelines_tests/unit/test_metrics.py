"""Metrics from facts, and what is made of them: the table of the page, the dashboard, the alert rules."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.core import GaugeMetricFamily

from readmodel_pipelines.bookkeeping.held_leases import TakenLease
from readmodel_pipelines.bookkeeping.queue_stats import QueueStats
from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRecord
from readmodel_pipelines.bookkeeping.rebuilds import RangeProgress
from readmodel_pipelines.metrics.catalogue import METRICS
from readmodel_pipelines.metrics.scrape import (
    Ended,
    Sample,
    families,
    of_causes,
    of_leases,
    of_queue,
    of_rebuild,
    of_unfinished,
    of_verification,
)
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines_tests.support.alert_scenarios import SCENARIOS
from readmodel_pipelines_tests.support.pages.blocks import ROOT, anchors_of

FOLDER = ROOT / "readmodel_pipelines" / "metrics"
DOCS = ROOT / "readmodel_pipelines" / "docs"
ALERTS = FOLDER / "alerts.yaml"

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC).replace(tzinfo=None)
"""As the driver gives it."""
NAMES = {metric.name for metric in METRICS.values()}

Samples = dict[tuple[str, tuple[str, ...]], float]


def promtool(*arguments: object) -> str:
    """What it says when it is content."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("no promtool here; it is in Debian's package prometheus")
    ran = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def samples(*told: Iterable[Sample]) -> Samples:
    """Values by metric and labels, in the order of the catalogue's labels."""
    order = {metric.name: metric.labels for metric in METRICS.values()}
    return {
        (sample.name, tuple(sample.labels[label] for label in order[sample.name])): sample.value
        for family in families(chain(*told))
        for sample in family.samples
    }


def names(found: Samples) -> set[str]:
    return {name for name, _ in found}


# The values


def test_reasons_that_somebody_made_up_are_one_label_value() -> None:
    made_up = {f"reason {number}": 2 for number in range(500)}
    found = samples(of_queue(QueueStats(0, 2, 0, 1001, 1, 0, 0, 0, {"bad_field": 1, **made_up})))

    letters = {labels: value for (name, labels), value in found.items() if name.endswith("_dead_letters")}
    assert letters["bad_field",] == 1
    assert letters["other",] == 1000
    assert letters["crashes_worker",] == 0
    assert len(letters) < 30
    tasks = {status: found["readmodel_repair_queue_tasks", (status,)] for status in ("processing", "failed", "other")}
    assert tasks == {"processing": 2, "failed": 1001, "other": 1}


def test_a_verification_is_well_when_all_that_it_found_lags_and_one_that_took_no_time_has_no_rate() -> None:
    key = ("chats_read_model", "any")
    found = samples(of_verification(*key, Ended(NOON, 0.0, 0, {"same": 90, "lagging": 2, "checked": 90})))
    assert found["readmodel_last_verification_success", key] == 1
    assert ("readmodel_last_verification_events_per_second", key) not in found


@pytest.mark.parametrize(("wrong", "success"), [({}, 1), ({"malformed": 1}, 0), ({"failed": 1}, 0), ({"orphan": 1}, 1)])
def test_a_rebuild_succeeded_when_it_left_nothing_undone(wrong: dict[str, int], success: int) -> None:
    done = Ended(NOON, 2.0, 1000, {"same": 5, "different": 2, "replaced": 2, **wrong})
    found = samples(of_rebuild("chats_read_model", done), of_unfinished("chats_read_model", None, 1000))

    assert found["readmodel_last_rebuild_success", ("chats_read_model",)] == success
    assert found["readmodel_last_rebuild_writes", ("chats_read_model", "replaced")] == 2
    assert found["readmodel_last_rebuild_events_per_second", ("chats_read_model",)] == 500
    assert not any(name.startswith("readmodel_rebuild_progress") for name in names(found))
    assert sum(value for (name, _), value in found.items() if name == "readmodel_rebuild_state") == 0


@pytest.mark.parametrize(
    ("events", "ranges_done", "first_pass", "expected", "progress"),
    [
        (300, 5, True, 1000, 0.3),
        # Half of the events are of another type.
        (500, 18, True, 1000, 0.9),
        # More was appended meanwhile.
        (1100, 18, True, 1000, 1.0),
        # What is read a second time does not count.
        (1500, 10, False, 1000, 0.5),
        (300, 5, True, None, 0.25),
        (0, 20, True, 0, 1.0),
    ],
)
def test_progress_is_the_share_of_the_reading_that_is_done(
    events: int, ranges_done: int, first_pass: bool, expected: int | None, progress: float
) -> None:
    passes = 1 if first_pass else 2
    record = RebuildRecord("a", RebuildState.BUILDING, "in_place", ["tasks"], NOON, NOON, {}, ranges=20, passes=passes)
    unfinished = record, RangeProgress(events, ranges_done, NOON)
    found = samples(of_unfinished("tasks_read_model", unfinished, expected))

    assert found["readmodel_rebuild_progress_ratio", ("tasks_read_model",)] == progress
    assert found["readmodel_rebuild_read_events", ("tasks_read_model",)] == events
    assert found["readmodel_rebuild_state", ("tasks_read_model", "building")] == 1
    assert found["readmodel_rebuild_state", ("tasks_read_model", "refused")] == 0


def test_leases_are_told_by_kind_and_a_rebuilds_by_read_model() -> None:
    found = samples(
        of_leases(
            [
                *(TakenLease(on, "run 1", NOON) for on in ("tasks", "tasks/slice 3")),
                *(TakenLease("", f"run {n}", NOON, 20) for n in (2, 3)),
                *(TakenLease(on, "run 4", NOON, over=True) for on in ("chats", "")),
            ],
            {"chats_read_model": "chats", "tasks_read_model": "tasks"},
        )
    )

    assert found["readmodel_leases_held", ("rebuild",)] == 2
    assert found["readmodel_leases_held", ("repair",)] == 40
    assert found["readmodel_rebuild_lease_held", ("chats_read_model",)] == 0
    assert found["readmodel_rebuild_lease_held", ("tasks_read_model",)] == 1


# The names


def test_every_metric_is_named_once_in_base_units_and_says_something() -> None:
    assert len(METRICS) == len(NAMES)
    for metric in METRICS.values():
        assert re.fullmatch(r"readmodel_[a-z]+(_[a-z]+)*", metric.name) or metric.name == "readmodel_up"
        assert not re.search(r"_(total|count|sum|bucket|milliseconds|minutes|hours)$", metric.name), metric.name
        assert metric.meaning.endswith(".")
        assert isinstance(metric.family(), GaugeMetricFamily)
        assert metric.family().name == metric.name


def test_the_table_of_the_page_has_every_metric_with_its_labels_and_meaning() -> None:
    page = (DOCS / "monitoring.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(readmodel_\w+)` \| (.*?) \| (.+) \|$", page, flags=re.MULTILINE)
    assert rows == [
        (metric.name, ", ".join(f"`{label}`" for label in metric.labels), metric.meaning) for metric in METRICS.values()
    ]


# The dashboard


DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]


def named_in(expression: str) -> set[str]:
    return set(re.findall(r"\breadmodel_\w+", expression))


def test_the_dashboard_asks_for_what_is_exported_and_for_all_of_it() -> None:
    asked = [item["query"]["query"] for item in DASHBOARD["templating"]["list"] if item["type"] == "query"]
    shown = set().union(*map(named_in, QUERIES + asked))
    assert shown <= NAMES
    assert NAMES - shown == {"readmodel_build_info", "readmodel_repair_queue_limit_tasks"}


def test_the_dashboard_takes_any_data_source_and_says_what_each_panel_shows() -> None:
    variables = {item["name"]: item for item in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    for panel in PANELS:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        assert panel["description"], panel["title"]
        for target in panel["targets"]:
            assert '$instance"' in target["expr"], panel["title"]


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)


def test_prometheus_understands_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(QUERIES)]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(QUERIES)} rules found" in promtool("check", "rules", file)


# The alerts


GROUPS = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]


def test_every_alert_goes_by_what_is_exported_and_says_what_to_do_and_where() -> None:
    for alert in RULES:
        assert named_in(alert["expr"]), alert["alert"]
        assert named_in(alert["expr"]) <= NAMES, alert["alert"]
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert alert["for"]
        assert set(alert["annotations"]) == {"summary", "description", "runbook"}
        page, _, section = alert["annotations"]["runbook"].partition("#")
        assert section in anchors_of(DOCS / page.removeprefix("docs/")), alert["alert"]


def test_the_page_lists_every_alert_as_it_is() -> None:
    page = (DOCS / "monitoring.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(Readmodel\w+)` \| (\w+) \| (\w+) \| \[.+\]\((.*)#(.+)\) \|$", page, flags=re.MULTILINE)
    listed = [(*about, f"docs/{file or 'monitoring.md'}#{section}") for *about, file, section in rows]
    assert listed == [
        (item["alert"], item["labels"]["severity"], item["for"], item["annotations"]["runbook"]) for item in RULES
    ]


def test_every_alert_is_tried_in_a_case_where_it_fires() -> None:
    fired = {alert.split()[0] for scenario in SCENARIOS for alerts in scenario.firing.values() for alert in alerts}
    assert {f"Readmodel{alert}" for alert in fired} == {alert["alert"] for alert in RULES}


def test_prometheus_takes_the_alerts_and_they_fire_when_they_ought_to_and_only_then(tmp_path: Path) -> None:
    tests = [scenario.as_test() for scenario in SCENARIOS]
    (late,) = (rule for rule in RULES if rule["alert"] == "ReadmodelRepairPendingTooLong")
    annotations = {**late["annotations"], "summary": "A repair has been pending for 4h 0m 0s."}
    told = {"exp_labels": late["labels"], "exp_annotations": annotations}
    (unrepaired,) = (test for test in tests if "nobody repairs" in test["name"])
    unrepaired["alert_rule_test"] = [{"alertname": late["alert"], "eval_time": "240m", "exp_alerts": [told]}]
    file = tmp_path / "alerts.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "10m", "tests": tests}))

    assert "SUCCESS" in promtool("check", "rules", ALERTS)
    assert "SUCCESS" in promtool("test", "rules", file)


def test_causes_are_told_by_kind_and_type_and_a_type_that_is_not_known_is_other() -> None:
    key = ("chats_read_model", "any")
    causes: list[dict[str, Any]] = [
        {"kind": "behind", "event_type": "chat.renamed", "count": 3, "first": NOON, "last": NOON},
        {"kind": "lost_update", "event_type": "made.up", "count": 2, "first": None, "last": None},
        {"kind": "type_only", "event_type": None, "count": 1, "first": None, "last": None},
        {"kind": "of tomorrow", "event_type": None, "count": 1, "first": None, "last": None},
    ]
    found = samples(of_causes(*key, ["chat.closed", "chat.renamed"], causes))
    by_kind = {labels[2]: value for (name, labels), value in found.items() if name.endswith("_causes")}
    assert len(by_kind) == 7
    assert {kind: value for kind, value in by_kind.items() if value} == {"behind": 3, "lost_update": 2, "type_only": 1}
    by_type = {labels[2]: value for (name, labels), value in found.items() if name.endswith("_updates")}
    assert by_type == {"chat.closed": 0, "chat.renamed": 3, "other": 2}
    at = NOON.replace(tzinfo=UTC).timestamp()
    assert found["readmodel_last_verification_lost_updates_first_timestamp_seconds", key] == at
    assert names(samples(of_causes(*key, [], []))) == {
        "readmodel_last_verification_causes",
        "readmodel_last_verification_lost_updates",
    }
