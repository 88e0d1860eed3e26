"""The MongoDB resource: from the environment to a projector that reports to a run."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import dagster as dg
from pydantic import Field
from pymongo.database import Database

from readmodel_pipelines.embedded import server as embedded
from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.names import collection_of
from readmodel_pipelines.mongo.scan import Document
from readmodel_pipelines.orchestration.tags import Context, tag_run
from readmodel_pipelines.projections.registry import choose_projections
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.rebuild import RebuildRequest, rebuild
from readmodel_pipelines.reconcile.progress import ProgressLines
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import Settings, load_settings
from readmodel_pipelines.verification import VerificationRequest, verify, verify_fresh


def owner_of(run_id: str) -> str:
    """Whose the leases of a run are."""
    return f"Dagster run {run_id}"


@dataclass(frozen=True, slots=True)
class Result:
    """What a rebuild did, and about how many documents each read model holds after it."""

    summary: Summary
    documents: Mapping[str, int]


class MongoResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # at runtime it takes no argument here
    """The MongoDB that holds the events and the read models.

    It is configured by the environment of the process that runs the code and never by run config, so that no secret
    can land in one. READMODEL_MONGODB_URI is the connection string, READMODEL_DATABASE the database,
    READMODEL_TASK_SOURCE the streams that tasks are made from; docs/settings.md has all READMODEL_* variables. Without
    a READMODEL_MONGODB_URI the embedded server is used, and started when it does not run.
    """

    progress_seconds: float = Field(
        default=5.0, ge=0, description="A run's log tells how far it is at most once in so many seconds."
    )

    def is_there(self) -> bool:
        """Whether `opened` would meet a MongoDB without starting the embedded server: nobody asked for that."""
        try:
            settings = load_settings()
            return settings.mongodb_uri is not None or embedded.status(settings).running
        except ReadModelError as error:
            raise dg.Failure(str(error), allow_retries=False) from None

    @contextmanager
    def opened(self) -> Iterator[tuple[Settings, Database[Document]]]:
        """The settings and their database.

        Raises:
            Failure: what a person can cause or must act on, in words; from the body of the `with` too.
        """
        try:
            settings = load_settings()
            with open_database(settings, "dagster") as database:
                yield settings, database
        except ReadModelError as error:
            # The sentence says it all; the driver's traceback behind it would bury it.
            raise dg.Failure(str(error), allow_retries=False) from None

    def verify(
        self,
        context: Context,
        read_models: list[str],
        request_for: Callable[[Settings], VerificationRequest],
    ) -> tuple[Summary, Settings]:
        """Verify the read models with these names; progress and warnings go to the run's log.

        Raises:
            Failure: what a person can cause or must act on, in words.
        """
        tag_run(context, read_models)
        with self.opened() as (settings, database):
            request = request_for(settings)
            context.log.info(
                f"Verifying {request.coverage} of {' and '.join(read_models)}, tier {request.tier}, in database "
                f"{settings.database} of MongoDB at {settings.shown_uri()}."
            )
            summary = verify(database, settings, read_models, request, on_progress=self._progress(context))
        _log_warnings(context, summary)
        return summary, settings

    def verify_fresh(self, context: Context, read_models: list[str]) -> Summary:
        """Verify what got events in the last minutes; warnings go to the run's log.

        Raises:
            Failure: what a person can cause or must act on, in words.
        """
        with self.opened() as (settings, database):
            summary = verify_fresh(database, settings, read_models)
        _log_warnings(context, summary)
        return summary

    def rebuild(self, context: Context, read_models: list[str], request: RebuildRequest) -> Result:
        """Rebuild the read models with these names in full; progress and warnings go to the run's log.

        Raises:
            Failure: what a person can cause or must act on, in words.
        """
        tag_run(context, read_models)
        with self.opened() as (settings, database):
            chosen = choose_projections(settings, read_models)
            names = ", ".join(item.read_model for item in chosen)
            context.log.info(f"Rebuilding {names} ({request.strategy}) in {_where(settings)}.")
            summary = rebuild(
                database,
                settings,
                read_models,
                request,
                on_progress=self._progress(context),
                on_phase=context.log.info,
                holder=owner_of(context.run.run_id),
                # A crashed run is retried at once, under the lease that it left.
                owner=owner_of(context.run.root_run_id or context.run.run_id),
            )
            documents = {
                item.read_model: database[collection_of(settings, item)].estimated_document_count() for item in chosen
            }
        _log_warnings(context, summary)
        return Result(summary, documents)

    def work(
        self,
        context: dg.OpExecutionContext,
        read_models: list[str],
        job: Callable[[ReadModelProjector], Summary],
    ) -> Summary:
        """Do `job` with a projector of the read models with these names; progress and warnings go to the run's log.

        Raises:
            Failure: what a person can cause or must act on, in words.
        """
        with self.opened() as (settings, database):
            names = ", ".join(item.read_model for item in choose_projections(settings, read_models))
            context.log.info(f"Working on {names} in {_where(settings)}.")
            projector = ReadModelProjector(database, settings, *read_models, on_progress=self._progress(context))
            summary = job(projector)
        _log_warnings(context, summary)
        return summary

    def _progress(self, context: Context) -> ProgressLines:
        return ProgressLines(context.log.info, every=self.progress_seconds)


def _where(settings: Settings) -> str:
    return f"database {settings.database} of MongoDB at {settings.shown_uri()}"


def _log_warnings(context: Context, summary: Summary) -> None:
    for warning in summary.warnings:
        context.log.warning(warning)
