"""Follows runs in Dagster: prints their logs, then their results. It only reads."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from readmodel_pipelines.cli.dagster.web_server import WebServer
from readmodel_pipelines.cli.terminal.command import Interrupted
from readmodel_pipelines.cli.terminal.voice import voice
from readmodel_pipelines.errors import DagsterUnavailable
from readmodel_pipelines.wording import cut, one_line, span

_EVERY = 1.0
_PATIENCE = 60.0
_QUEUED_LONG = 15.0
# A living daemon sends a heartbeat every 30 seconds.
_HEARTBEAT_SECONDS = 330.0
_LONGEST = 300
_ENDED = ("SUCCESS", "FAILURE", "CANCELED")
_TOLD = ("INFO", "WARNING", "ERROR", "CRITICAL")

_NEWS = """
query News($run: ID!, $after: String) {
  logsForRun(runId: $run, afterCursor: $after, limit: 500) {
    ... on Error { message }
    ... on EventConnection {
      cursor
      hasMore
      events {
        __typename
        ... on MessageEvent { message level }
        ... on ExecutionStepOutputEvent { metadataEntries { ...entry } }
        ... on ExecutionStepFailureEvent {
          error { message }
          failureMetadata { description metadataEntries { ...entry } }
        }
        ... on RunFailureEvent { error { message } }
      }
    }
  }
  runOrError(runId: $run) {
    ... on Error { message }
    ... on Run { status tags { key value } }
  }
}
fragment entry on MetadataEntry {
  label
  ... on IntMetadataEntry { intRepr }
  ... on FloatMetadataEntry { floatValue }
  ... on TextMetadataEntry { text }
  ... on BoolMetadataEntry { boolValue }
  ... on PathMetadataEntry { path }
}
"""

_DAEMON = """
query Daemon {
  instance {
    daemonHealth {
      daemonStatus(daemonType: "QUEUED_RUN_COORDINATOR") {
        required
        lastHeartbeatTime
        lastHeartbeatErrors { message }
      }
    }
  }
}
"""


@dataclass(slots=True)
class Run:
    """A run to launch: the job, its op with the config, and the partition if the job has partitions.

    After the launch it also holds the run's state.
    """

    job: str
    op: str
    config: dict[str, Any]
    partition: str | None = None
    run_id: str = ""
    url: str = ""
    status: str = "QUEUED"
    why: str = ""
    """The error of a failed run."""
    last: str = ""
    """The last line of its log."""
    metadata: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    cursor: str | None = None

    @property
    def label(self) -> str:
        """Its name in messages."""
        return f"{self.job}{f' of {self.partition}' if self.partition else ''} (run {self.run_id[:8]})"

    @property
    def said(self) -> str:
        """The error of a failed run, else the last line of its log."""
        return self.why or self.last

    @property
    def ended(self) -> bool:
        """Whether the run has ended."""
        return self.status in _ENDED

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        about = {"run_id": self.run_id, "url": self.url, "job": self.job, "partition": self.partition}
        return {**about, "status": self.status.lower(), "said": self.said, "metadata": self.metadata}


def follow(server: WebServer, verb: str, runs: Sequence[Run]) -> bool:
    """Print the runs' logs until all have ended, then their results; returns True if all succeeded.

    Raises:
        DagsterUnavailable: the web server stopped answering for too long; the runs continue.
    """
    try:
        _until_all_ended(server, runs)
    except DagsterUnavailable as error:
        told, where = _going_on(runs, "See {} once it answers.")
        raise DagsterUnavailable(f"{error.message} {told}", hint=where) from None
    voice.result(
        {"verb": verb, "runs": [run.as_json() for run in runs]}, [line for run in runs for line in _ending(run)]
    )
    return all(run.status == "SUCCESS" for run in runs)


def left_alone(server: WebServer, runs: Sequence[Run]) -> Interrupted:
    """The error for an interrupted follower; the runs continue."""
    if not runs:
        return Interrupted(
            "Interrupted before or while a run was launched.", hint=f"See {server.shown}/runs for a launched run."
        )
    told, where = _going_on(runs, "Follow or terminate it at {}.")
    return Interrupted(
        f"Interrupted. The runs are no longer followed; {told}",
        hint=where,
        done={"runs": [run.as_json() for run in runs]},
    )


def _going_on(runs: Sequence[Run], hint: str) -> tuple[str, str]:
    """The runs that continue, and their pages."""
    left = [run for run in runs if not run.ended]
    told = "; ".join(f"{run.label} continues" for run in left)
    return f"{told}.", "\n".join(hint.format(run.url) for run in left)


def _until_all_ended(server: WebServer, runs: Sequence[Run]) -> None:
    started = heard = time.monotonic()
    asked_why = False
    while True:
        try:
            for run in runs:
                if not run.ended:
                    _hear(server, run, alone=len(runs) == 1)
            heard = time.monotonic()
        except DagsterUnavailable as error:
            # A restart of the web server must not end the wait for the run.
            if time.monotonic() - heard > _PATIENCE:
                raise
            voice.detail(error.message)
        waiting = [run for run in runs if run.status == "QUEUED"]
        if waiting and not asked_why and time.monotonic() - started > _QUEUED_LONG:
            asked_why = True
            voice.note(_why_queued(server, waiting))
        if all(run.ended for run in runs):
            return
        time.sleep(_EVERY)


def _hear(server: WebServer, run: Run, *, alone: bool) -> None:
    """Read the news of a run."""
    ended = False
    while True:
        news = server.ask(_NEWS, run=run.run_id, after=run.cursor)
        logs, now = news["logsForRun"], news["runOrError"]
        for gone in (logs, now):
            if "message" in gone:
                raise DagsterUnavailable(f"Dagster no longer knows the run: {gone['message']}")
        for event in logs["events"]:
            for line in _told(run, event):
                voice.note(line if alone else f"{run.partition or run.job}: {line}")
        run.cursor = logs["cursor"]
        run.tags = {tag["key"]: tag["value"] for tag in now["tags"]}
        if logs["hasMore"]:
            continue
        if ended or now["status"] not in _ENDED:
            run.status = now["status"]
            return
        # Its last events may be newer than those already read, so they are read once more.
        ended = True


def _told(run: Run, event: dict[str, Any]) -> Iterator[str]:
    """Record an event; returns a line to print, if any."""
    message = str(event.get("message", "")).strip()
    match event["__typename"]:
        case "LogMessageEvent":
            if event["level"] in _TOLD:
                run.last = message
                yield message if event["level"] == "INFO" else f"{event['level'].capitalize()}: {message}"
        case "RunEnqueuedEvent":
            yield "Queued."
        case "RunStartEvent":
            yield "Started."
        case "ExecutionStepOutputEvent":
            run.metadata |= _values(event["metadataEntries"])
        case "ExecutionStepFailureEvent":
            failure = event["failureMetadata"] or {}
            run.metadata |= _values(failure.get("metadataEntries") or ())
            run.why = failure.get("description") or (event["error"] or {}).get("message", message).strip()
        case "RunFailureEvent":
            # A failed step has a better error.
            run.why = run.why or (event["error"] or {}).get("message", message).strip()
        case _:
            voice.detail(message)


def _values(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The metadata that are numbers or text; the web UI shows the tables."""
    return {
        entry["label"]: int(value) if name == "intRepr" else value
        for entry in entries
        for name, value in entry.items()
        if name != "label"
    }


def _why_queued(server: WebServer, waiting: Sequence[Run]) -> str:
    who = " and ".join(run.label for run in waiting)
    daemon = server.ask(_DAEMON)["instance"]["daemonHealth"]["daemonStatus"]
    beat = daemon["lastHeartbeatTime"]
    if daemon["required"] and (beat is None or time.time() - beat > _HEARTBEAT_SECONDS):
        since = "" if beat is None else f" for {span(time.time() - beat)}"
        return (
            f"{who}: no daemon has started queued runs{since}. Start `dagster-daemon run` with the same DAGSTER_HOME."
        )
    # Dagster also calls a working daemon unhealthy after an error, for example while a code location loads.
    if errors := daemon["lastHeartbeatErrors"]:
        said = one_line(cut(str(errors[0]["message"]).strip(), _LONGEST))
        return f"{who}: the daemon that starts queued runs reports an error: {said}"
    if beat is None:
        return f"{who}: it will start soon. See {server.shown}/runs/queued."
    ago = span(time.time() - beat)
    return (
        f"{who}: other runs are ahead, for example a rebuild of the same read model, or the daemon has just stopped "
        f"(last heartbeat {ago} ago). See {server.shown}/runs/queued."
    )


def _ending(run: Run) -> Iterator[str]:
    how = {"SUCCESS": "succeeded", "FAILURE": "failed", "CANCELED": "was canceled"}[run.status]
    said = f": {run.said}" if run.said else "."
    # A sentence, then the hint on its own line.
    yield from f"{run.label} {how}{said}".split("\n")
    if run.status != "SUCCESS":
        yield f"See {run.url}"
    if run.tags.get("dagster/will_retry") == "true":
        yield "Dagster will retry it."
