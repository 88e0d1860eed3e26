"""`--launch`: submits a run for each read model to a Dagster instance, like the web UI, instead of working here.

A run carries the tags of its partition, so that the instance's limits apply to it and people find it.
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
    """Launch the runs, print their addresses, and follow them to their end; returns True if all succeed.

    Raises:
        DagsterUnavailable: there is no web server, it refuses access, or it does not know the jobs.
        ReadModelError: it refuses a run.
        Interrupted: the user stopped following; the runs continue.
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
    """Materialize these assets in one run, like their button in the UI; returns the run's address.

    Raises:
        DagsterUnavailable: there is no web server, or it does not know the jobs.
        ReadModelError: it refuses the run.
    """
    place = _place_of(server, {"rebuild_read_models"}, "")
    selected = {**place, "pipelineName": "__ASSET_JOB", "assetSelection": [{"path": [name]} for name in assets]}
    params = {"selector": selected, "mode": "default", "runConfigData": {}, "executionMetadata": {"tags": []}}
    return f"{server.shown}/runs/{_submitted(server, params, 'the assets')}"


def shown_findings(max_findings: int) -> dict[str, int]:
    """The config for the number of findings shown; empty for the run's default."""
    return {} if max_findings == DEFAULT_MAX_FINDINGS else {"max_findings": max_findings}


def refuse(option: str, given: object, why: str) -> None:
    """Refuse an option that runs in Dagster do not support.

    Raises:
        UsageError: the option was given.
    """
    if given:
        raise UsageError(f"{option} does not work with --launch: {why}.", hint=f"Remove {option} or --launch.")


def _place_of(server: WebServer, jobs: set[str], database: str) -> dict[str, str]:
    """The repository and location of the jobs; if several have them, those of this database."""
    found = server.ask(_LOCATIONS)["workspaceOrError"]
    places, broken, of_this_one = [], [], set()
    for entry in found.get("locationEntries", ()):
        # Empty while it is loading.
        location = entry["locationOrLoadError"] or {"message": "it is still loading"}
        if "message" in location:
            broken.append(f"location {entry['name']}: {location['message'].strip()[:_LONGEST]}")
        for repository in location.get("repositories", ()):
            if {job["name"] for job in repository["jobs"]} >= jobs:
                places.append({"repositoryName": repository["name"], "repositoryLocationName": entry["name"]})
                if any(tag["value"] == database for job in repository["jobs"] for tag in job.get("tags", ())):
                    of_this_one.add(entry["name"])
    # If several have them, the one with this database, then the one with our name.
    names = [place["repositoryLocationName"] for place in places]
    places.sort(
        key=lambda place: (
            place["repositoryLocationName"] not in of_this_one,
            place["repositoryLocationName"] != LOCATION,
        )
    )
    if len(places) > 1 and not of_this_one and LOCATION not in names:
        raise DagsterUnavailable(
            f"Dagster at {server.shown} has {min(jobs)} in several code locations ({', '.join(names)}), and none of "
            "them works on the database of this command.",
            hint="Start one of them with the READMODEL_MONGODB_URI and READMODEL_DATABASE of this command, or name it "
            f"{LOCATION}.",
        )
    if not places:
        why = "; ".join(broken) or found.get("message") or "no loaded code location has it"
        raise DagsterUnavailable(
            f"Dagster at {server.shown} has no job {min(jobs)}: {why}",
            hint=f"See {server.shown}/locations. Fix the location and reload it, or remove --launch.",
        )
    return places[0]


def _tags_of(server: WebServer, place: dict[str, str], job: str, partition: str) -> list[dict[str, str]]:
    found = server.ask(_TAGS, job={**place, "pipelineName": job}, partition=partition)["pipelineOrError"]
    tags = (found.get("partition") or {}).get("tagsOrError", found)
    if "results" not in tags:
        raise ReadModelError(
            f"Dagster at {server.shown} does not know the partition {partition} of {job}: "
            f"{str(tags.get('message', 'no reason given')).strip()[:_LONGEST]}",
            hint="Give its code location the settings of this command and reload it, or remove --launch.",
        )
    found_tags: list[dict[str, str]] = tags["results"]
    return found_tags


def _launched(server: WebServer, place: dict[str, str], run: Run) -> str:
    """Launch the run; returns its id."""
    tags = [] if run.partition is None else _tags_of(server, place, run.job, run.partition)
    params = {
        "selector": {**place, "jobName": run.job},
        "runConfigData": {"ops": {run.op: {"config": run.config}}},
        "executionMetadata": {"tags": tags},
    }
    return _submitted(server, params, run.job)


def _submitted(server: WebServer, params: dict[str, Any], what: str) -> str:
    """The id of the submitted run."""
    result = server.ask(_LAUNCH, params=params)["launchRun"]
    if result["__typename"] == "UnauthorizedError":
        raise DagsterUnavailable(
            f"Dagster at {server.shown} refuses to launch {what}: its web server is read-only, or this user may not "
            "launch runs.",
            hint="Set READMODEL_DAGSTER_URL to another web server, or remove --launch.",
        )
    if "run" not in result:
        why = result.get("message") or "; ".join(error["message"] for error in result.get("errors", ()))
        raise ReadModelError(
            f"Dagster at {server.shown} refuses to launch {what}: {why.strip()[:_LONGEST]}",
            hint="Install this version in its code location and reload it, or remove --launch.",
        )
    run_id: str = result["run"]["runId"]
    return run_id
