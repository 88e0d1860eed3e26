"""`--launch`: submit to the Dagster instance instead of running here. A run for each read model, as the web UI does it.

A run carries the tags that its partition has there, so that the instance's limits hold for it, and it is found by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from readmodel_pipelines.cli.dagster.follow import Run, follow, left_alone
from readmodel_pipelines.cli.dagster.web_server import WebServer
from readmodel_pipelines.cli.terminal.options import DEFAULT_MAX_FINDINGS
from readmodel_pipelines.cli.terminal.voice import voice
from readmodel_pipelines.errors import DagsterUnavailable, ReadModelError, UsageError
from readmodel_pipelines.settings import Settings

LOCATION = "readmodel_pipelines"
_LONGEST = 1_000

_LOCATIONS = """
query Locations {
  workspaceOrError {
    ... on Error { message }
    ... on Workspace {
      locationEntries {
        name
        locationOrLoadError {
          ... on PythonError { message }
          ... on RepositoryLocation { repositories { name jobs { name } } }
        }
      }
    }
  }
}
"""

_TAGS = """
query Tags($job: PipelineSelector!, $partition: String!) {
  pipelineOrError(params: $job) {
    ... on Error { message }
    ... on Pipeline {
      partition(partitionName: $partition) {
        tagsOrError {
          ... on Error { message }
          ... on PartitionTags { results { key value } }
        }
      }
    }
  }
}
"""

_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on Error { message }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on LaunchRunSuccess { run { runId } }
  }
}
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run to launch: the job, its one op with what is configured of it, and the partition if the job has some."""

    job: str
    op: str
    config: dict[str, Any]
    partition: str | None = None


def launch_runs(settings: Settings, verb: str, wanted: Sequence[Wanted]) -> bool:
    """Launch the runs, say where they are, and follow them to their end; True when all of them succeed.

    Raises:
        DagsterUnavailable: there is no web server, it does not let us, or it does not know our jobs.
        ReadModelError: it refuses a run.
        Interrupted: somebody stopped following; the runs go on.
    """
    server = WebServer(settings)
    runs: list[Run] = []
    try:
        place = _place_of(server, [item.job for item in wanted])
        for item in wanted:
            tags = [] if item.partition is None else _tags_of(server, place, item.job, item.partition)
            runs.append(Run(_launched(server, place, item, tags), item.job, item.partition))
            voice.note(f"{runs[-1].label} is launched: {server.run_url(runs[-1].run_id)}")
        return follow(server, verb, runs)
    except KeyboardInterrupt:
        raise left_alone(server, runs) from None


def shown_findings(max_findings: int) -> dict[str, int]:
    """Config of a run that shows so many; a run that is not told shows its own number."""
    return {} if max_findings == DEFAULT_MAX_FINDINGS else {"max_findings": max_findings}


def refuse(option: str, given: object, why: str) -> None:
    """Refuse an option that no run has.

    Raises:
        UsageError: it was given.
    """
    if given:
        raise UsageError(f"{option} makes no sense with --launch: {why}.", hint=f"Leave {option} away, or --launch.")


def _place_of(server: WebServer, jobs: Sequence[str]) -> dict[str, str]:
    """The repository and location of the jobs."""
    found = server.ask(_LOCATIONS)["workspaceOrError"]
    places, broken = [], []
    for entry in found.get("locationEntries", ()):
        # Nothing yet while it is loading.
        location = entry["locationOrLoadError"] or {"message": "it is being loaded"}
        if "message" in location:
            broken.append(f"location {entry['name']}: {location['message'].strip()[:_LONGEST]}")
        places += [
            {"repositoryName": repository["name"], "repositoryLocationName": entry["name"]}
            for repository in location.get("repositories", ())
            if {job["name"] for job in repository["jobs"]} >= set(jobs)
        ]
    # Where several have them, the one that is ours by name.
    places.sort(key=lambda place: place["repositoryLocationName"] != LOCATION)
    if not places:
        why = "; ".join(broken) or found.get("message") or "no code location that it loads has it"
        raise DagsterUnavailable(
            f"Dagster at {server.shown} has no job {jobs[0]}: {why}",
            hint=f"Look at {server.shown}/locations, mend the location and reload it; or leave --launch away.",
        )
    return places[0]


def _tags_of(server: WebServer, place: dict[str, str], job: str, partition: str) -> list[dict[str, str]]:
    found = server.ask(_TAGS, job={**place, "pipelineName": job}, partition=partition)["pipelineOrError"]
    tags = (found.get("partition") or {}).get("tagsOrError", found)
    if "results" not in tags:
        raise ReadModelError(
            f"Dagster at {server.shown} does not know the partition {partition} of {job}: "
            f"{str(tags.get('message', 'no reason given')).strip()[:_LONGEST]}",
            hint="Its code location should have the settings of this command; reload it, or leave --launch away.",
        )
    return [{"key": tag["key"], "value": tag["value"]} for tag in tags["results"]]


def _launched(server: WebServer, place: dict[str, str], wanted: Wanted, tags: list[dict[str, str]]) -> str:
    """The run's id."""
    params = {
        "selector": {**place, "jobName": wanted.job},
        "runConfigData": {"ops": {wanted.op: {"config": wanted.config}}},
        "executionMetadata": {"tags": tags},
    }
    result = server.ask(_LAUNCH, params=params)["launchRun"]
    if result["__typename"] == "UnauthorizedError":
        raise DagsterUnavailable(
            f"Dagster at {server.shown} refuses to launch {wanted.job}: its web server is read-only, or only lets "
            "others launch.",
            hint="Name another one in READMODEL_DAGSTER_URL, or leave --launch away.",
        )
    if "run" not in result:
        why = result.get("message") or "; ".join(error["message"] for error in result.get("errors", ()))
        raise ReadModelError(
            f"Dagster at {server.shown} refuses to launch {wanted.job}: {why.strip()[:_LONGEST]}",
            hint="Its code location should be of this version; reload it, or leave --launch away.",
        )
    run_id: str = result["run"]["runId"]
    return run_id
