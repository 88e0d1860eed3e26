"""`readmodel metrics` on a real MongoDB: what it says, what it costs, and that it answers whatever MongoDB does."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from typer.testing import Result

from readmodel_pipelines import RepairWorker
from readmodel_pipelines.bookkeeping.leases import hold_leases
from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRange, RebuildRecord
from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.embedded import server as embedded
from readmodel_pipelines.metrics.catalogue import METRICS
from readmodel_pipelines.metrics.exporter import Exporter, text
from readmodel_pipelines.mongo.driver import server_time
from readmodel_pipelines.mongo.names import FINDINGS, VERIFICATIONS
from readmodel_pipelines.mongo.names import REBUILDS as REBUILDS
from readmodel_pipelines.rebuild import RebuildRequest, rebuild
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.ranges import IdRange
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.verification.coverage import Coverage
from readmodel_pipelines.verification.verify import VerificationRequest, verify
from readmodel_pipelines_tests.support.environment import name_database
from readmodel_pipelines_tests.support.pages.blocks import ROOT
from readmodel_pipelines_tests.support.scene import Mongo, Scene
from readmodel_pipelines_tests.support.verbs.command_line import readmodel

Value = Callable[..., float]

CHATS, TASKS = "chats_read_model", "tasks_read_model"
SECONDS = 60.0
"""Longer than a scrape takes here, on a machine that has other things to do."""
PASSWORD = "an0pensecret"  # noqa: S105


def parsed(shown: str) -> Value:
    """A way to ask for the value of a metric with just these labels."""
    found = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(shown)
        for sample in family.samples
    }
    return lambda name, **labels: found[f"readmodel_{name}", frozenset(labels.items())]


def names_in(shown: str) -> set[str]:
    return set(re.findall(r"^(readmodel_\w+)", shown, flags=re.MULTILINE))


def scrape(settings: Settings) -> str:
    said: list[str] = []
    with Exporter(settings, SECONDS, said.append) as exporter:
        shown = text(exporter)
    assert said == []
    return shown


@pytest.fixture(scope="module")
def busy(opened: Mongo, mongodb_uri: str) -> Scene:
    """Something of all there is: rebuilds done and at work, verifications, findings, repairs, dead letters.

    Only looked at by all who share it.
    """
    settings = Settings(mongodb_uri=SecretStr(mongodb_uri), database=f"test_{uuid.uuid4().hex[:12]}")
    scene = Scene(opened.client.get_database(settings.database), settings)
    scene.ensure_indexes()
    ids = [scene.chat(f"chat {number}") for number in range(8)]
    assert rebuild(scene.database, scene.settings, [], RebuildRequest()).ok
    verify(scene.database, scene.settings, [], VerificationRequest())
    queue, worker = RepairQueue(scene.database, scene.settings), RepairWorker(scene.database, scene.settings)
    scene.chats.update_one({"chat_id": ids[0]}, {"$set": {"title": "wrong"}})
    assert queue.add(ids[0], "chat")
    assert worker.work().completed == 1
    scene.append(ids[1], ("chat.exploded", {}))
    assert queue.add(ids[1], "chat")
    assert worker.work().parked == 1
    assert queue.add(ids[2], "task")
    before = server_time(scene.database) - timedelta(minutes=10)
    scene.database.repair_queue.update_one({"aggregate_id": ids[2]}, {"$set": {"created_at": before}})
    scene.events.update_many({"aggregate_id": ids[3]}, {"$set": {"occurred_at": before}})
    scene.tasks.delete_one({"task_id": ids[3]})
    verify(scene.database, scene.settings, ["task"], VerificationRequest(Coverage(sample=100)))
    begun(scene)
    return scene


def begun(scene: Scene) -> RebuildRecord:
    """A rebuild of the chats with two ranges, one of which is done."""
    rebuilds = Rebuilds(scene.database)
    about = {"read_models": [CHATS], "names": ["chat"], "strategy": "in_place"}
    record = rebuilds.begin("a" * 12, about, [(1, IdRange(None, "8")), (1, IdRange("8", None))])
    rebuilds.save(RebuildRange(f"{record.id}/0", IdRange(None, "8")), None, {CHATS: {"same": 2}}, 7, 0.5)
    return record


def done(scene: Scene, record: RebuildRecord) -> None:
    rebuilds = Rebuilds(scene.database)
    rebuilds.to(record, RebuildState.FINISHING)
    rebuilds.to(record, RebuildState.DONE)
    rebuilds.note(record, counts={CHATS: {"same": 2}}, events=7)


def test_a_record_of_another_form_costs_no_other_metric(settings: Settings, database: Mongo) -> None:
    database[VERIFICATIONS].insert_one({"read_model": CHATS, "started_at": server_time(database)})
    said: list[str] = []
    with Exporter(settings, SECONDS, said.append) as exporter:
        value = parsed(text(exporter))
    assert value("up") == value("scrape_collector_success", collector="queue") == 1
    assert value("scrape_collector_success", collector="verifications") == 0
    assert "KeyError: 'seconds'" in " ".join(said)


# What it says


def test_a_scrape_says_all_that_there_is(busy: Scene) -> None:
    with hold_leases(busy.database, [CHATS], 60):
        shown = scrape(busy.settings)
    value = parsed(shown)

    assert names_in(shown) == {metric.name for metric in METRICS.values()}
    assert value("up") == 1
    assert value("repair_queue_tasks", status="pending") == value("repair_queue_due_tasks") == 1
    assert value("repair_queue_tasks", status="completed") == value("repair_queue_tasks", status="failed") == 1
    assert 600 <= value("repair_queue_oldest_pending_age_seconds") < 600 + SECONDS
    assert value("repair_queue_repairs_per_second") == pytest.approx(1 / 300)
    assert value("repair_queue_dead_letters", reason="unknown_event_type") == 1
    assert value("open_findings", read_model=TASKS, outcome="missing") == 1
    assert value("last_verification_causes", read_model=TASKS, coverage="any", cause="never_created") == 1
    assert value("open_findings", read_model=TASKS, outcome="malformed") == 1
    assert value("open_findings", read_model=CHATS, outcome="malformed") == 0
    with pytest.raises(KeyError):
        value("open_findings_oldest_timestamp_seconds", read_model=CHATS, outcome="malformed")
    assert value("rebuild_state", read_model=CHATS, state="building") == 1
    assert value("rebuild_state", read_model=TASKS, state="building") == 0
    assert value("rebuild_progress_ratio", read_model=CHATS) == 0.5
    assert value("rebuild_read_events", read_model=CHATS) == 7
    assert value("rebuild_expected_events", read_model=CHATS) == value("events") == busy.events.count_documents({})
    assert value("rebuild_lease_held", read_model=CHATS) == value("leases_held", kind="rebuild") == 1
    assert value("rebuild_lease_held", read_model=TASKS) == value("leases_held", kind="repair") == 0
    assert (value("documents", read_model=CHATS), value("documents", read_model=TASKS)) == (8, 7)


def test_times_are_those_of_the_server_and_the_last_look_at_everything_is_kept(busy: Scene) -> None:
    value, now = parsed(scrape(busy.settings)), server_time(busy.database).timestamp()

    def last(name: str, coverage: str, **labels: str) -> float:
        return value(f"last_verification_{name}", read_model=TASKS, coverage=coverage, **labels)

    ended = [last("end_timestamp_seconds", coverage) for coverage in ("everything", "any")]
    ended.append(value("last_rebuild_end_timestamp_seconds", read_model=TASKS))
    ended.append(value("open_findings_oldest_timestamp_seconds", read_model=TASKS, outcome="missing"))
    ended.append(value("rebuild_start_timestamp_seconds", read_model=CHATS))
    ended.append(value("rebuild_progress_timestamp_seconds", read_model=CHATS))
    assert all(now - 60 < moment <= now for moment in ended)
    assert ended[0] < ended[1]
    assert ended[4] <= ended[5]
    assert (last("success", "everything"), last("success", "any")) == (1, 0)
    assert last("aggregates", "everything", outcome="same") == 8
    assert last("aggregates", "any", outcome="malformed") == 1
    assert value("last_rebuild_writes", read_model=TASKS, operation="inserted") == 8
    assert value("last_rebuild_success", read_model=TASKS) == 1
    assert 0 < last("duration_seconds", "any") < SECONDS


def test_promtool_has_nothing_to_say_against_a_scrape(busy: Scene) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here; it is in Debian's package prometheus")
    linted = subprocess.run(
        [promtool, "check", "metrics"], input=scrape(busy.settings), capture_output=True, text=True, timeout=240
    )
    assert (linted.returncode, linted.stdout, linted.stderr) == (0, "", "")


def test_an_added_read_model_has_its_metrics_too(scene: Scene) -> None:
    example = ROOT / "readmodel_pipelines" / "docs" / "examples" / "chat_activity.py"
    value = parsed(scrape(scene.settings.model_copy(update={"projections": (str(example),)})))
    assert value("documents", read_model="chat_activity_read_model") == 0
    assert value("open_findings", read_model="chat_activity_read_model", outcome="missing") == 0


def test_the_time_in_which_nobody_worked_on_a_rebuild_is_not_its_duration(scene: Scene) -> None:
    record = begun(scene)
    for_two_hours = {"$set": {name: record.stored[name] - timedelta(hours=2) for name in ("started_at", "updated_at")}}
    scene.database[REBUILDS].update_one({"_id": record.id}, for_two_hours)
    scene.database[REBUILDS].update_many({"of": record.id}, {"$unset": {"updated_at": ""}})
    rebuilds = Rebuilds(scene.database)
    record = rebuilds.taken_over(record, lambda: None)
    done(scene, record)

    assert rebuilds.stored(record.id)["runs"] == 2
    value = parsed(scrape(scene.settings))
    assert 0 < value("last_rebuild_duration_seconds", read_model=CHATS) < SECONDS


def test_records_of_earlier_versions_are_told_as_far_as_they_tell(scene: Scene) -> None:
    began = server_time(scene.database).replace(tzinfo=None, microsecond=0) - timedelta(hours=1)
    scene.database[VERIFICATIONS].insert_one(
        {"read_model": CHATS, "started_at": began, "tier": "documents", "coverage": "every aggregate"}
        | {"events": 90, "seconds": 30.0, "counts": {"checked": 5, "same": 5}}
    )
    record = begun(scene)
    done(scene, record)
    scene.database[REBUILDS].update_one({"_id": record.id}, {"$set": {"started_at": began}})

    value = parsed(scrape(scene.settings))
    everything = {"read_model": CHATS, "coverage": "everything"}
    assert value("last_verification_duration_seconds", **everything) == 30
    assert value("last_verification_events_per_second", **everything) == 3
    assert value("last_rebuild_duration_seconds", read_model=CHATS) >= 3600


# What it costs


def test_a_scrape_reads_no_more_when_there_is_more(scene: Scene) -> None:
    scene.ensure_indexes()
    begun(scene)
    now = server_time(scene.database)
    many = range(300)
    task = {"aggregate_type": "chat", "task_type": "readmodel_sync", "created_at": now, "attempts": []}
    for status, more in (
        ("completed", {"completed_at": now - timedelta(days=1)}),
        ("failed", {"reason": "bad_field"}),
        ("pending", {}),
    ):
        scene.database.repair_queue.insert_many(
            [{**task, "aggregate_id": str(number), "status": status, **more} for number in many]
        )
    finding = {"read_model": CHATS, "outcome": "different", "state": "open", "first_seen": now, "last_seen": now}
    scene.database[FINDINGS].insert_many([{**finding, "_id": f"{CHATS}/{number}"} for number in many])
    look = {"read_model": CHATS, "tier": "documents", "coverage": "bucket 1/7", "events": 1, "seconds": 1.0}
    scene.database[VERIFICATIONS].insert_many([{**look, "started_at": now, "counts": {"same": 1}} for _ in many])

    with scene.profiled() as work:
        shown = scrape(scene.settings)

    assert parsed(shown)("open_findings", read_model=CHATS, outcome="different") == 300
    seen = [item for item in work if item["ns"] != f"{scene.database.name}.system.profile"]
    plans = {(item["ns"].partition(".")[2], item["planSummary"].partition(" ")[0]) for item in seen}
    assert len(seen) > 20
    assert {item["op"] for item in seen} <= {"command", "query"}
    assert not [item for item in seen if "distinct" in item["command"]]
    assert plans >= {("repair_queue", "COUNT_SCAN"), (FINDINGS, "IXSCAN"), (VERIFICATIONS, "IXSCAN")}
    assert {plan for name, plan in plans if name in ("events", CHATS, TASKS)} == {"RECORD_STORE_FAST_COUNT"}
    # A small collection is scanned as cheaply as its index; that of leases holds a handful.
    assert {name for name, plan in plans if plan == "COLLSCAN"} <= {"readmodel_leases"}
    assert sum(item.get("docsExamined", 0) for item in seen) < 40


# Whatever MongoDB does


def cli(*arguments: str) -> Result:
    return readmodel("metrics", *arguments)


def test_without_mongodb_it_says_so_in_time_and_ends_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("READMODEL_MONGODB_URI", f"mongodb://somebody:{PASSWORD}@127.0.0.1:9/")
    started = time.monotonic()
    result = cli("--once", "--timeout", "0.5")
    assert time.monotonic() - started < SECONDS / 2

    assert result.exit_code == 0
    assert parsed(result.stdout)("up") == 0
    assert names_in(result.stdout) == {f"readmodel_{name}" for name in ("up", "build_info", "scrape_duration_seconds")}
    assert result.stderr.startswith("MongoDB at mongodb://127.0.0.1:9/ does not answer: ")
    assert "readmodel_up 0" in result.stderr
    assert PASSWORD not in result.stdout + result.stderr


def test_a_server_that_takes_the_connection_and_says_nothing_does_not_hang_a_scrape() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = SecretStr(f"mongodb://127.0.0.1:{silent.getsockname()[1]}/?directConnection=true")
        said: list[str] = []
        with Exporter(Settings(mongodb_uri=uri), 0.5, said.append) as exporter:
            started = time.monotonic()
            for _ in range(2):
                assert parsed(text(exporter))("up") == 0
            assert 0.9 < time.monotonic() - started < SECONDS / 2
    assert len(said) == 1
    assert "does not answer" in said[0]


def test_a_part_that_mongodb_refuses_is_told_and_the_others_are_there(scene: Scene) -> None:
    scene.database.source.insert_one({})
    scene.database.create_collection(FINDINGS, viewOn="source", pipeline=[{"$set": {"state": {"$divide": [1, 0]}}}])
    said: list[str] = []
    with Exporter(scene.settings, SECONDS, said.append) as exporter:
        value = parsed(text(exporter))
        assert value("up") == 1
        assert value("scrape_collector_success", collector="findings") == 0
        assert value("scrape_collector_success", collector="queue") == 1
        assert value("repair_queue_tasks", status="pending") == 0
        scene.database.drop_collection(FINDINGS)
        assert parsed(text(exporter))("scrape_collector_success", collector="findings") == 1
    assert len(said) == 2
    assert said[0].startswith("findings cannot be read: ")
    assert "divide" in said[0]
    assert said[1] == "MongoDB answers everything again."


def test_the_embedded_server_is_not_started_and_is_met_when_it_runs() -> None:
    with tempfile.TemporaryDirectory(prefix="readmodel-metrics-") as folder:
        settings = Settings(data_dir=Path(folder))
        said: list[str] = []
        try:
            with Exporter(settings, SECONDS, said.append) as exporter:
                assert parsed(text(exporter))("up") == 0
                assert list(Path(folder).iterdir()) == []
                embedded.ensure_running(settings, die_with_parent=True)
                assert parsed(text(exporter))("up") == 1
        finally:
            embedded.stop(settings)
    assert len(said) == 2
    assert "The embedded server does not run." in said[0]
    assert "`readmodel server start`" in said[0]


def test_a_connection_string_that_nobody_can_read_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("READMODEL_MONGODB_URI", f"mongo//somebody:{PASSWORD}@host")
    for more in (["--once"], ["--port", "0"]):
        result = cli(*more)
        assert result.exit_code == 2
        assert "READMODEL_MONGODB_URI cannot be used" in result.stderr
        assert PASSWORD not in result.stderr


# Over HTTP


def test_it_serves_until_it_is_ended_politely(busy: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    name_database(monkeypatch, busy.settings)
    program = [sys.executable, "-m", "readmodel_pipelines.cli.main", "metrics", "--port", "0"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            address = re.match(r"Metrics at (http://127\.0\.0\.1:(\d+)/metrics); Ctrl-C ends it\.\n", said)
            assert address, said

            with urlopen(address[1], timeout=SECONDS) as answer:  # noqa: S310
                assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                assert parsed(answer.read().decode())("documents", read_model=CHATS) == 8
            asked = Request(f"{address[1]}?name[]=readmodel_up", headers={"Accept": "application/openmetrics-text"})  # noqa: S310
            with urlopen(asked, timeout=SECONDS) as answer:  # noqa: S310
                assert answer.read().decode().endswith("readmodel_up 1.0\n# EOF\n")
            with ThreadPoolExecutor(8) as pool:
                answers = pool.map(lambda _: urlopen(address[1], timeout=SECONDS).read().decode(), range(16))  # noqa: S310
            assert all(parsed(shown)("up") == 1 for shown in answers)

            taken = cli("--port", address[2])
            assert taken.exit_code == 2
            assert f"127.0.0.1:{address[2]}: Address already in use" in taken.stderr
            assert "--port" in taken.stderr

            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0
            assert (process.stdout.read() if process.stdout else "", process.stderr.read()) == ("", "")
            with pytest.raises(URLError):
                urlopen(address[1], timeout=SECONDS)  # noqa: S310
        finally:
            process.kill()
