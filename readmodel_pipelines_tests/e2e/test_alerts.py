"""Failed runs and failed checks reach somebody: a webhook in Slack's form, and mail; each answer once."""

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import takewhile
from typing import Any

import dagster as dg
import pytest

from readmodel_pipelines.alerts.tell import NotTold, tell
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.definitions import defs
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.settings import Settings, load_settings
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.verbs.dagster_runs import CHATS, SAMPLE, Dagster

SECRET = "of-our-own"  # noqa: S105 - it stands for one


class Webhook(HTTPServer):
    """Keeps what is posted, and answers with `code`."""

    def __init__(self) -> None:
        self.posted: list[Any] = []
        self.code = 200
        super().__init__(("127.0.0.1", 0), _Answer)


class _Answer(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        self.server.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.code)
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


class MailServer(socketserver.TCPServer):
    """Takes mail, and keeps it."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        super().__init__(("127.0.0.1", 0), _Mail)


class _Mail(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self._say("220 here")
        while line := self.rfile.readline().decode().strip():
            if line.upper() == "DATA":
                self._say("354 go on")
                lines = list(iter(lambda: self.rfile.readline().decode().rstrip("\r\n"), "."))
                self.server.taken.append("\n".join(lines))
            if line.upper() == "QUIT":
                self._say("221 done")
                return
            self._say("250 well")

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    with Webhook() as server, _serving(server):
        monkeypatch.setenv("READMODEL_ALERT_WEBHOOK", f"http://127.0.0.1:{server.server_port}/{SECRET}")
        yield server


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with MailServer() as server, _serving(server):
        yield server


class _serving:  # noqa: N801
    def __init__(self, server: socketserver.BaseServer) -> None:
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(0.02,))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()


@pytest.fixture
def tick(dagster: Dagster) -> Callable[[], int]:
    return ticking(dagster, "tell_of_failed_checks")


def ticking(dagster: Dagster, name: str) -> Callable[[], int]:
    """Evaluates the sensor once more; gives the number of runs or results that it sent."""
    sensor = defs.resolve_sensor_def(name)
    cursor: str | None = None

    def evaluate() -> int:
        nonlocal cursor
        context = dg.build_sensor_context(instance=dagster.instance, cursor=cursor)
        said = sensor.evaluate_tick(context)
        cursor = said.cursor
        return sent(said.skip_message)

    return evaluate


def sent(message: str | None) -> int:
    return int("".join(takewhile(str.isdigit, message or "")) or 0)


def test_mail_has_sender_receivers_subject_and_text(mail: MailServer) -> None:
    port = mail.server_address[1]
    to = f"smtp://127.0.0.1:{port}?from=readmodels@x.org&to=a@x.org&to=b@x.org"
    tell(Settings(alert_mail=to), "Something\nfailed", "because of a title with ü")
    (taken,) = mail.taken
    assert "Subject: Something\\nfailed" in taken
    assert "From: readmodels@x.org" in taken
    assert "To: a@x.org, b@x.org" in taken


def test_what_is_not_taken_is_an_error_that_tells_no_secret(webhook: Webhook, mail: MailServer) -> None:
    webhook.code = 500
    settings = Settings(alert_mail=f"smtp://127.0.0.1:{mail.server_address[1]}?from=a@x.org&to=b@x.org")
    with pytest.raises(NotTold, match="READMODEL_ALERT_WEBHOOK: it answers with HTTP 500") as caught:
        tell(settings, "failed", "text")
    assert SECRET not in str(caught.value)
    assert "READMODEL_ALERT_MAIL" not in str(caught.value)
    assert len(mail.taken) == 1, "who can be told is told"


@pytest.mark.parametrize("wrong", ["smtp://host", "smtp://host?from=a&from=b&to=c", "http://host?from=a&to=b"])
def test_an_address_of_mail_without_sender_or_receivers_is_refused_and_not_shown(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("READMODEL_ALERT_MAIL", wrong)
    with pytest.raises(UsageError, match="smtp://") as caught:
        load_settings()
    assert wrong not in str(caught.value)


def test_a_failed_run_is_told_once_with_its_sentence_and_a_link_and_again_where_nobody_took_it(
    sample: Mongo, dagster: Dagster, webhook: Webhook
) -> None:
    tick = ticking(dagster, "tell_of_failed_runs")
    assert tick() == 0
    result = dagster.run("rebuild_aggregate", aggregate_id="no id")
    webhook.code = 503
    with pytest.raises(dg.Failure, match="HTTP 503"):
        tick()
    webhook.code = 200
    webhook.posted.clear()
    assert tick() == 1, "what could not be told is told by a later tick"
    assert tick() == 0
    (posted,) = webhook.posted
    assert posted["text"].startswith("rebuild_aggregate failed\n")
    assert "is no aggregate id" in posted["text"]
    assert posted["text"].endswith(f"/runs/{result.run_id}")


def test_runs_that_failed_at_once_are_all_told_though_one_tick_tells_some_of_them(
    sample: Mongo, dagster: Dagster, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("readmodel_pipelines.orchestration.alerts._MOST", 2)
    tick = ticking(dagster, "tell_of_failed_runs")
    tick()
    failed = {dagster.run("rebuild_aggregate", aggregate_id="no id").run_id for _ in range(5)}
    assert [tick() for _ in range(4)] == [2, 2, 1, 0]
    assert {posted["text"].rpartition("/")[2] for posted in webhook.posted} == failed


@pytest.mark.parametrize(
    "cursor",
    [
        *("abc", "null", "[]", '"x"', "{}", '{"since": 1e400, "begun": 0, "runs": []}'),
        *('{"since": NaN, "begun": 0, "runs": []}', '{"since": 1, "begun": [], "runs": []}'),
        *('{"since": 1, "begun": 1, "runs": {}}', '{"since": -1e18, "begun": -1e18, "runs": []}'),
    ],
)
def test_a_cursor_that_the_sensor_did_not_write_stops_no_tick(dagster: Dagster, webhook: Webhook, cursor: str) -> None:
    sensor = defs.resolve_sensor_def("tell_of_failed_runs")
    said = sensor.evaluate_tick(dg.build_sensor_context(instance=dagster.instance, cursor=cursor))
    assert sent(said.skip_message) == 0


def test_dead_letters_are_told_once_and_their_end_too(
    sample: Mongo, settings: Settings, dagster: Dagster, webhook: Webhook, tick: Callable[[], int]
) -> None:
    def evaluated() -> None:
        queue = RepairQueue(sample, settings)
        from readmodel_pipelines.orchestration.checks import whether_it_drains

        said = whether_it_drains(queue, queue.stats(), settings)
        dagster.instance.report_runless_asset_event(dg.AssetCheckEvaluation(**said))

    assert tick() == 0
    RepairQueue(sample, settings).add(SAMPLE[0]["aggregate_id"], "chat")
    sample.repair_queue.update_many({}, {"$set": {"status": "failed", "reason": "bad_aggregate_id"}})
    evaluated()
    webhook.code = 503
    with pytest.raises(dg.Failure, match="HTTP 503"):
        tick()
    webhook.code = 200
    webhook.posted.clear()
    assert tick() == 1
    assert tick() == 0
    assert "repair_queue: drains (ERROR): 1 dead letters" in webhook.posted[0]["text"]
    sample.repair_queue.delete_many({})
    evaluated()
    assert tick() == 1
    assert webhook.posted[1]["text"].endswith("repair_queue: drains passes again.")


def test_a_check_that_fails_within_a_run_that_failed_is_told_by_that_run_alone(
    sample: Mongo, dagster: Dagster, webhook: Webhook, tick: Callable[[], int]
) -> None:
    assert dagster.materialize(CHATS).success
    assert tick() == 0
    sample[CHATS].update_one({}, {"$set": {"title": "damaged"}})
    assert not dagster.run("verify_read_models", "chat").success
    assert tick() == 0
    assert webhook.posted == []


@pytest.mark.parametrize("name", ["tell_of_failed_runs", "tell_of_failed_checks"])
def test_without_a_recipient_no_alert_is_sent(dagster: Dagster, name: str) -> None:
    said = defs.resolve_sensor_def(name).evaluate_tick(dg.build_sensor_context(instance=dagster.instance))
    assert "READMODEL_ALERT_WEBHOOK" in (said.skip_message or "")
