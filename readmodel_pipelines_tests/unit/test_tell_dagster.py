"""What the command line has Dagster record of its own runs; the real web server is in `e2e/`."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from pydantic import SecretStr

from readmodel_pipelines.cli.dagster.tell import tell_dagster
from readmodel_pipelines.reconcile.outcome import Counts
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import Settings


class _Records(BaseHTTPRequestHandler):
    server: "_Dagster"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.recorded.append((self.path, body))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, *_: Any) -> None: ...


class _Dagster(HTTPServer):
    def __init__(self) -> None:
        self.recorded: list[tuple[str, Any]] = []
        self.answer = b"{}"
        super().__init__(("127.0.0.1", 0), _Records)


@pytest.fixture
def dagster() -> Iterator[_Dagster]:
    with _Dagster() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def summary() -> Summary:
    counts = Counts(checked=40, same=39, different=1)
    return Summary("verify", "chat", read_models={"chats_read_model": counts})


def settings_for(port: int) -> Settings:
    return Settings(tell_dagster=True, dagster_url=SecretStr(f"http://127.0.0.1:{port}/"))


def test_a_run_is_recorded_on_the_asset_in_words_and_plots_nothing(dagster: _Dagster) -> None:
    tell_dagster(settings_for(dagster.server_port), summary(), None)
    ((path, body),) = dagster.recorded
    assert path == "/report_asset_observation/chats_read_model"
    assert "verified every aggregate" in body["description"]
    assert (body["metadata"]["verb"], body["metadata"]["different"]) == ("verify", "1")
    assert not any(isinstance(value, int | float) for value in body["metadata"].values())


def test_a_web_server_that_is_away_or_refuses_fails_nobody(
    dagster: _Dagster, capsys: pytest.CaptureFixture[str]
) -> None:
    dagster.answer = b'{"error": "no such asset"}'
    tell_dagster(settings_for(dagster.server_port), summary(), None)
    tell_dagster(settings_for(1), summary(), "some id")
    assert capsys.readouterr().err.count("Dagster did not record") == 2
