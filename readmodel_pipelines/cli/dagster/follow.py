"""Following runs of Dagster: their logs as they come, then how they ended. Nothing that happens here touches them."""

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
# A daemon that lives says so every 30 seconds.
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
    """A run to launch: the job, its one op with what is configured of it, and the partition if the job has some.

    And what is known of it so far, once it is launched.
    """

    job: str
    op: str
    config: dict[str, Any]
    partition: str | None = None
    run_id: str = ""
    url: str = ""
    status: str = "QUEUED"
    why: str = ""
    """Why it failed."""
    last: str = ""
    """The last line of its log."""
    metadata: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    cursor: str | None = None

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.job}{f' of {self.partition}' if self.partition else ''} (run {self.run_id[:8]})"

    @property
    def said(self) -> str:
        """Its last word: why it failed, else what it logged at its end."""
        return self.why or self.last

    @property
    def ended(self) -> bool:
        """Whether it will change no more."""
        return self.status in _ENDED

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        about = {"run_id": self.run_id, "url": self.url, "job": self.job, "partition": self.partition}
        return {**about, "status": self.status.lower(), "said": self.said, "metadata": self.metadata}


def follow(server: WebServer, verb: str, runs: Sequence[Run]) -> bool:
    """Tell what the runs log until all of them ended, then how; True when all succeeded.

    Raises:
        DagsterUnavailable: the web server went away and does not come back; the runs go on.
    """
    try:
        _until_all_ended(server, runs)
    except DagsterUnavailable as error:
        told, where = _going_on(runs, " once it answers")
        raise DagsterUnavailable(f"{error.message} {told}", hint=where) from None
    voice.result(
        {"verb": verb, "runs": [run.as_json() for run in runs]}, [line for run in runs for line in _ending(run)]
    )
    return all(run.status == "SUCCESS" for run in runs)


def left_alone(server: WebServer, runs: Sequence[Run]) -> Interrupted:
    """Nobody follows the runs any more, and they go on."""
    if not runs:
        return Interrupted(
            "Interrupted while a run was launched, or before.",
            hint=f"See {server.shown}/runs for whether there is one.",
        )
    told, where = _going_on(runs, ", or end it there")
    return Interrupted(f"No longer following; {told}", hint=where, done={"runs": [run.as_json() for run in runs]})


def _going_on(runs: Sequence[Run], when: str) -> tuple[str, str]:
    """Which runs go on, and where they are seen."""
    left = [run for run in runs if not run.ended]
    told = "; ".join(f"{run.label} goes on" for run in left)
    return f"{told}.", "\n".join(f"See {run.url}{when}." for run in left)


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
            # A web server that is started anew must not cost whoever waits for the run.
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
    """What is new of a run."""
    ended = False
    while True:
        news = server.ask(_NEWS, run=run.run_id, after=run.cursor)
        logs, now = news["logsForRun"], news["runOrError"]
        for gone in (logs, now):
            if "message" in gone:
                raise DagsterUnavailable(f"Dagster does not know the run any more: {gone['message']}")
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
        # Its last events may have come after those were read: once more.
        ended = True


def _told(run: Run, event: dict[str, Any]) -> Iterator[str]:
    """Take an event in; what of it is worth a line."""
    message = str(event.get("message", "")).strip()
    match event["__typename"]:
        case "LogMessageEvent":
            if event["level"] in _TOLD:
                run.last = message
                yield message if event["level"] == "INFO" else f"{event['level'].capitalize()}: {message}"
        case "RunEnqueuedEvent":
            yield "Waits in the queue."
        case "RunStartEvent":
            yield "Started."
        case "ExecutionStepOutputEvent":
            run.metadata |= _values(event["metadataEntries"])
        case "ExecutionStepFailureEvent":
            failure = event["failureMetadata"] or {}
            run.metadata |= _values(failure.get("metadataEntries") or ())
            run.why = failure.get("description") or (event["error"] or {}).get("message", message).strip()
        case "RunFailureEvent":
            # A step that failed says more.
            run.why = run.why or (event["error"] or {}).get("message", message).strip()
        case _:
            voice.detail(message)


def _values(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The metadata that are numbers or text; tables are for the web UI."""
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
            f"{who}: no daemon takes runs from the queue{since}. Start `dagster-daemon run` on the same DAGSTER_HOME."
        )
    # Dagster calls one unhealthy, too, that is at work and met an error: a code location that is being loaded, for one.
    if errors := daemon["lastHeartbeatErrors"]:
        said = one_line(cut(str(errors[0]["message"]).strip(), _LONGEST))
        return f"{who}: the daemon that takes runs from the queue is there, and says: {said}"
    if beat is None:
        return f"{who}: it is about to be started. See {server.shown}/runs/queued."
    ago = span(time.time() - beat)
    return (
        f"{who}: other runs go first, a rebuild of the same read model for one, or the daemon has just ended (its last "
        f"heartbeat was {ago} ago). See {server.shown}/runs/queued."
    )


def _ending(run: Run) -> Iterator[str]:
    how = {"SUCCESS": "succeeded", "FAILURE": "failed", "CANCELED": "was canceled"}[run.status]
    said = f": {run.said}" if run.said else "."
    # A sentence, and below it what to do.
    yield from f"{run.label} {how}{said}".split("\n")
    if run.status != "SUCCESS":
        yield f"See {run.url}"
    if run.tags.get("dagster/will_retry") == "true":
        yield "Dagster launches it again by itself."
