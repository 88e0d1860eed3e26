"""`--launch`: submit to the Dagster instance instead of running here. A run for each read model, as the web UI does it.

A run carries the tags that its partition has there, so that the instance's limits hold for it, and it is found by them.
"""

from collections.abc import Sequence
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
          ... on RepositoryLocation { repositories { name jobs { name tags { key value } } } }
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


def launch_runs(settings: Settings, verb: str, runs: Sequence[Run]) -> bool:
    """Launch the runs, say where they are, and follow them to their end; True when all of them succeed.

    Raises:
        DagsterUnavailable: there is no web server, it does not let us, or it does not know our jobs.
        ReadModelError: it refuses a run.
        Interrupted: somebody stopped following; the runs go on.
    """
    server = WebServer(settings)
    try:
        place = _place_of(server, {run.job for run in runs}, settings.fingerprint())
        for run in runs:
            run.run_id = _launched(server, place, run)
            run.url = f"{server.shown}/runs/{run.run_id}"
            voice.note(f"{run.label} is launched: {run.url}")
        return follow(server, verb, runs)
    except KeyboardInterrupt:
        raise left_alone(server, [run for run in runs if run.url]) from None


def materialize(server: WebServer, assets: Sequence[str]) -> str:
    """Have these assets materialized in one run, as by their button; gives the run's address.

    Raises:
        DagsterUnavailable: there is no web server, or it does not know our jobs.
        ReadModelError: it refuses the run.
    """
    place = _place_of(server, {"rebuild_read_models"}, "")
    selected = {**place, "pipelineName": "__ASSET_JOB", "assetSelection": [{"path": [name]} for name in assets]}
    params = {"selector": selected, "mode": "default", "runConfigData": {}, "executionMetadata": {"tags": []}}
    return f"{server.shown}/runs/{_submitted(server, params, 'the assets')}"


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


def _place_of(server: WebServer, jobs: set[str], database: str) -> dict[str, str]:
    """The repository and location of the jobs, that of this database where there are several."""
    found = server.ask(_LOCATIONS)["workspaceOrError"]
    places, broken, of_this_one = [], [], set()
    for entry in found.get("locationEntries", ()):
        # Nothing yet while it is loading.
        location = entry["locationOrLoadError"] or {"message": "it is being loaded"}
        if "message" in location:
            broken.append(f"location {entry['name']}: {location['message'].strip()[:_LONGEST]}")
        for repository in location.get("repositories", ()):
            if {job["name"] for job in repository["jobs"]} >= jobs:
                places.append({"repositoryName": repository["name"], "repositoryLocationName": entry["name"]})
                if any(tag["value"] == database for job in repository["jobs"] for tag in job.get("tags", ())):
                    of_this_one.add(entry["name"])
    # Where several have them, the one that says so, then the one that is ours by name.
    names = [place["repositoryLocationName"] for place in places]
    places.sort(
        key=lambda place: (
            place["repositoryLocationName"] not in of_this_one,
            place["repositoryLocationName"] != LOCATION,
        )
    )
    if len(places) > 1 and not of_this_one and LOCATION not in names:
        raise DagsterUnavailable(
            f"Dagster at {server.shown} has {min(jobs)} in several code locations ({', '.join(names)}), and none says "
            "that it works on this database.",
            hint="Give the one that does the same READMODEL_MONGODB_URI and READMODEL_DATABASE as this command, or the "
            f"name {LOCATION}.",
        )
    if not places:
        why = "; ".join(broken) or found.get("message") or "no code location that it loads has it"
        raise DagsterUnavailable(
            f"Dagster at {server.shown} has no job {min(jobs)}: {why}",
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
    found_tags: list[dict[str, str]] = tags["results"]
    return found_tags


def _launched(server: WebServer, place: dict[str, str], run: Run) -> str:
    """The run's id."""
    tags = [] if run.partition is None else _tags_of(server, place, run.job, run.partition)
    params = {
        "selector": {**place, "jobName": run.job},
        "runConfigData": {"ops": {run.op: {"config": run.config}}},
        "executionMetadata": {"tags": tags},
    }
    return _submitted(server, params, run.job)


def _submitted(server: WebServer, params: dict[str, Any], what: str) -> str:
    """The id of the run."""
    result = server.ask(_LAUNCH, params=params)["launchRun"]
    if result["__typename"] == "UnauthorizedError":
        raise DagsterUnavailable(
            f"Dagster at {server.shown} refuses to launch {what}: its web server is read-only, or only lets "
            "others launch.",
            hint="Name another one in READMODEL_DAGSTER_URL, or leave --launch away.",
        )
    if "run" not in result:
        why = result.get("message") or "; ".join(error["message"] for error in result.get("errors", ()))
        raise ReadModelError(
            f"Dagster at {server.shown} refuses to launch {what}: {why.strip()[:_LONGEST]}",
            hint="Its code location should be of this version; reload it, or leave --launch away.",
        )
    run_id: str = result["run"]["runId"]
    return run_id
