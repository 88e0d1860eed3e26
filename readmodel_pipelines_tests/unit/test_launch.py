"""`--launch` against a web server that answers as Dagster does when something is wrong; the real one is in `e2e/`."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from readmodel_pipelines.settings import load_settings
from readmodel_pipelines_tests.support.verbs.command_line import readmodel

VERIFY = ("verify-consistency", "--type", "chat", "--all", "--launch", "--json")
JOBS = ("verify_read_models", "rebuild_read_models", "rebuild_aggregate", "repair_read_models")
TAGS = {"pipelineOrError": {"partition": {"tagsOrError": {"results": [{"key": "dagster/partition", "value": "chat"}]}}}}
LAUNCHED = {"launchRun": {"__typename": "LaunchRunSuccess", "run": {"runId": "0123456789"}}}


def locations(**databases: str) -> dict[str, Any]:
    """Code locations that have our jobs, each of a database, or not saying of which."""
    entries = []
    for name, database in databases.items():
        tags = {"tags": [{"key": "readmodel/database", "value": database}]} if database else {}
        jobs = [{"name": job, **tags} for job in JOBS]
        loaded = {"repositories": [{"name": "__repository__", "jobs": jobs}]}
        entries.append({"name": name, "locationOrLoadError": loaded})
    return {"workspaceOrError": {"locationEntries": entries}}


class Answers:
    """What the web server says, by the name of the query; and what it was asked."""

    def __init__(self) -> None:
        self.status, self.page = 200, b""
        self.data: dict[str, list[Any]] = {
            "Locations": [locations(readmodel_pipelines="")],
            "Tags": [TAGS],
            "Launch": [LAUNCHED],
        }
        self.asked: list[dict[str, Any]] = []
        self.authorization: set[str | None] = set()

    def to(self, body: bytes, authorization: str | None) -> bytes:
        self.authorization.add(authorization)
        question = json.loads(body)
        self.asked.append(question)
        name = question["query"].split()[1].partition("(")[0]
        said = self.data[name]
        return self.page or json.dumps({"data": said.pop(0) if len(said) > 1 else said[0]}).encode()

    def news(self, *events: dict[str, Any], status: str, cursor: str = "1") -> dict[str, Any]:
        logs = {"cursor": cursor, "hasMore": False, "events": list(events)}
        return {"logsForRun": logs, "runOrError": {"status": status, "tags": []}}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answers]:
    told = Answers()
    with served(told) as port:
        monkeypatch.setenv("READMODEL_DAGSTER_URL", f"http://ann:s3cr%2Ft@127.0.0.1:{port}/")
        monkeypatch.setattr("readmodel_pipelines.cli.dagster.follow._EVERY", 0.01)
        yield told


@contextmanager
def served(answers: Answers) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            said = answers.to(body, self.headers["Authorization"])
            self.send_response(answers.status)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def run(*arguments: str) -> Any:
    result = readmodel(*arguments)
    assert "s3cr" not in result.stdout + result.stderr
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def refused(*arguments: str, code: int) -> dict[str, str]:
    """The error, in three parts: what happened to what and why, and what to do."""
    result = run(*arguments)
    assert result.exit_code == code, result.stdout + result.stderr
    error: dict[str, str] = json.loads(result.stdout)["error"]
    assert error["message"]
    assert error["hint"]
    return error


@pytest.mark.parametrize("first", ["readmodel_pipelines", "another"])
def test_of_several_code_locations_that_of_the_same_database_runs_it(answers: Answers, first: str) -> None:
    this = load_settings().fingerprint()
    answers.data["Locations"] = [locations(**{first: "flowra-00000000", "mine": this})]
    answers.data["News"] = [answers.news(status="SUCCESS")]
    assert run(*VERIFY).exit_code == 0
    (launched,) = [item for item in answers.asked if "launchRun" in item["query"]]
    assert launched["variables"]["params"]["selector"]["repositoryLocationName"] == "mine"


def test_no_code_location_is_guessed(answers: Answers) -> None:
    answers.data["Locations"] = [locations(one="flowra-00000000", other="flowra-11111111")]
    assert "one, other" in refused(*VERIFY, code=3)["message"]


def test_a_run_is_followed_to_its_end_and_its_last_word_is_the_result(answers: Answers) -> None:
    line = {"__typename": "LogMessageEvent", "level": "INFO"}
    output = {"__typename": "ExecutionStepOutputEvent", "metadataEntries": [{"label": "checked", "intRepr": "7"}]}
    answers.data["News"] = [
        answers.news({"__typename": "RunEnqueuedEvent"}, status="QUEUED"),
        answers.news({**line, "message": "half of it"}, status="STARTED", cursor="2"),
        answers.news({**line, "message": "all same"}, output, status="SUCCESS", cursor="3"),
        answers.news(status="SUCCESS", cursor="3"),
    ]
    result = run(*VERIFY)
    assert result.exit_code == 0
    (told,) = json.loads(result.stdout)["runs"]
    assert (told["status"], told["said"], told["metadata"]) == ("success", "all same", {"checked": 7})
    assert told["url"].startswith("http://127.0.0.1:")
    assert "half of it" in result.stderr
    assert answers.authorization == {"Basic YW5uOnMzY3IvdA=="}
    launched = answers.asked[2]["variables"]["params"]
    assert launched["executionMetadata"]["tags"] == [{"key": "dagster/partition", "value": "chat"}]
    assert [item["variables"]["after"] for item in answers.asked[3:]] == [None, "1", "2", "3"]


def test_a_run_that_fails_ends_with_its_sentence_and_exit_code_1(answers: Answers) -> None:
    failure = {"description": "3 are not as their events say.", "metadataEntries": []}
    step = {"__typename": "ExecutionStepFailureEvent", "error": {"message": "Failure"}, "failureMetadata": failure}
    of_run = {"__typename": "RunFailureEvent", "message": "Steps failed", "error": None}
    answers.data["News"] = [answers.news(step, of_run, status="FAILURE"), answers.news(status="FAILURE")]
    result = run(*VERIFY[:-1])
    assert result.exit_code == 1
    assert "verify_read_models of chat (run 01234567) failed: 3 are not as their events say.\n" in result.stdout
    assert "/runs/0123456789" in result.stdout


def test_a_web_server_that_comes_back_costs_nothing_and_one_that_stays_away_leaves_the_run(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers.data["News"] = [answers.news(status="STARTED"), *[{"gone": True}] * 2, answers.news(status="SUCCESS")]
    asked = Answers.to

    def now_and_then(self: Answers, body: bytes, authorization: str | None) -> bytes:
        said = asked(self, body, authorization)
        return b"<html>starting" if b"gone" in said else said

    monkeypatch.setattr(Answers, "to", now_and_then)
    assert run(*VERIFY).exit_code == 0
    answers.data["News"] = [{"gone": True}]
    monkeypatch.setattr("readmodel_pipelines.cli.dagster.follow._PATIENCE", 0.05)
    assert "verify_read_models of chat (run 01234567) continues" in refused(*VERIFY, code=3)["message"]


def test_what_is_no_web_server_of_dagsters_is_told_so(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    answers.page = b"<html>Welcome"
    assert "is not Dagster's web server" in refused(*VERIFY, code=3)["message"]
    answers.status = 401
    assert "(HTTP 401)" in refused(*VERIFY, code=3)["message"]
    answers.status, answers.page = 400, json.dumps({"errors": [{"message": "Unknown field"}]}).encode()
    assert ": Unknown field" in refused(*VERIFY, code=1)["message"]
    monkeypatch.setenv("READMODEL_DAGSTER_URL", "http://ann:s3cret@127.0.0.1:1")
    assert "http://127.0.0.1:1 does not answer: Connection refused" in refused(*VERIFY, code=3)["message"]


@pytest.mark.parametrize("url", ["", "dagster:3000", "ftp://h/", "http://ann:s3/cret@h", "http://"])
def test_an_address_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("READMODEL_DAGSTER_URL", url or "   ")
    assert "READMODEL_DAGSTER_URL" in refused(*VERIFY, code=2)["message"]


def test_a_location_that_is_not_loaded_is_told_with_its_reason(answers: Answers) -> None:
    broken = {"name": "readmodel_pipelines", "locationOrLoadError": {"message": "No module named 'x'"}}
    loading = {"name": "other", "locationOrLoadError": None}
    answers.data["Locations"] = [{"workspaceOrError": {"locationEntries": [broken, loading]}}]
    error = refused(*VERIFY, code=3)
    assert "has no job verify_read_models: location readmodel_pipelines: No module named 'x'" in error["message"]
    assert "location other: " in error["message"]


def test_a_partition_that_is_not_there_and_a_refused_launch_are_told(answers: Answers) -> None:
    answers.data["Launch"] = [{"launchRun": {"__typename": "UnauthorizedError", "message": "no"}}]
    assert "refuses to launch verify_read_models: its web server is read-only" in refused(*VERIFY, code=3)["message"]
    wrong = {"__typename": "RunConfigValidationInvalid", "errors": [{"message": "unexpected tier"}]}
    answers.data["Launch"] = [{"launchRun": wrong}]
    assert "unexpected tier" in refused(*VERIFY, code=1)["message"]
    answers.data["Tags"] = [{"pipelineOrError": {"partition": {"tagsOrError": {"message": "no such partition"}}}}]
    assert "does not know the partition chat" in refused(*VERIFY, code=1)["message"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*VERIFY, "--report", "x.json"), "READMODEL_REPORTS_DIR"),
        (("verify-consistency", "--type", "chat", "--id", "x", "--launch", "--json"), "no job verifies one"),
        (("rebuild-readmodel", "--type", "all", "--all", "--slice", "1/2", "--launch", "--json"), "rebuild_slices"),
        (("rebuild-readmodel", "--type", "chats", "--all", "--launch", "--json"), "no read model 'chats'"),
        (("repair-queue", "work", "--launch", "--json"), "a worker without --once does not"),
    ],
)
def test_what_makes_no_sense_as_a_run_is_not_asked_for(answers: Answers, arguments: tuple[str, ...], said: str) -> None:
    error = refused(*arguments, code=2)
    assert said in error["message"]
    assert answers.asked == []


@pytest.mark.parametrize(
    ("ago", "errors", "required", "said"),
    [
        (20.0, [], True, "other runs are ahead"),
        # Dagster calls it unhealthy, and it lives.
        (20.0, [{"message": "the code location is being loaded"}], True, "reports an error: the code location"),
        (900.0, [], True, "no daemon has started queued runs for 15 min"),
        (None, [], True, "no daemon has started queued runs"),
        # An instance without a queue wants no daemon.
        (None, [], False, "it will start soon"),
    ],
)
def test_a_run_that_waits_tells_why_and_no_daemon_that_lives_is_called_dead(
    answers: Answers, monkeypatch: pytest.MonkeyPatch, ago: float | None, errors: list[Any], required: bool, said: str
) -> None:
    monkeypatch.setattr("readmodel_pipelines.cli.dagster.follow._QUEUED_LONG", 0.0)
    beat = None if ago is None else time.time() - ago
    daemon = {"required": required, "lastHeartbeatTime": beat, "lastHeartbeatErrors": errors}
    answers.data["Daemon"] = [{"instance": {"daemonHealth": {"daemonStatus": daemon}}}]
    answers.data["News"] = [answers.news(status="QUEUED"), answers.news(status="CANCELED")]
    result = run(*VERIFY)
    assert result.exit_code == 1
    assert result.stderr.count(said) == 1
    assert json.loads(result.stdout)["runs"][0]["status"] == "canceled"
