"""The MongoDB resource: opens the database of the settings, and runs verifications and rebuilds for a Dagster run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import dagster as dg
from pydantic import Field

from readmodel_pipelines.embedded import server as embedded
from readmodel_pipelines.errors import ReadModelError, raised
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.driver import Database
from readmodel_pipelines.mongo.no_events import refuse_without_events
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.orchestration.config import VerifyConfig
from readmodel_pipelines.orchestration.failure import failing_in_words
from readmodel_pipelines.orchestration.partitions import Context, tag_run
from readmodel_pipelines.projections.registry import choose_projections
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.rebuild import RebuildRequest, rebuild
from readmodel_pipelines.reconcile.progress import ProgressLines
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import Settings, load_settings
from readmodel_pipelines.verification.verify import verify, verify_fresh
from readmodel_pipelines.wording import one_line

_WHAT_STAYS = (
    "Its writes are correct and stay. Its leases are freed soon. Launch it again: a rebuild resumes, a verification "
    "starts again, and the tasks of a repair are still in the queue."
)


def owner_of(run_id: str) -> str:
    """The owner name of a run's leases."""
    return f"Dagster run {run_id}"


def where(settings: Settings) -> str:
    """The database and server, for a run's log."""
    return f"database {settings.database} of MongoDB at {settings.shown_uri()}"


class MongoResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # at runtime it takes no argument here
    """The MongoDB that holds the events and the read models.

    It is configured by the environment of the process that runs the code, never by run config, so that no secret gets
    into one. READMODEL_MONGODB_URI is the connection string, READMODEL_DATABASE the database, and READMODEL_TASK_SOURCE
    the streams that tasks are made from. docs/settings.md lists all READMODEL_* variables. Without
    READMODEL_MONGODB_URI the embedded server is used, and started if it does not run.
    """

    # Every method raises `dg.Failure`, with a sentence, for an error that a person can cause or must act on. Warnings
    # and progress go to the run's log.

    progress_seconds: float = Field(
        default=5.0, ge=0, le=86_400, description="Seconds between two progress lines in a run's log, from 0 to 86400."
    )

    def is_there(self) -> bool:
        """Whether a MongoDB is available without starting the embedded server, which nobody asked for."""
        with failing_in_words():
            settings = load_settings()
            return settings.mongodb_uri is not None or embedded.status(settings).running

    @contextmanager
    def opened(self, context: Context | None = None, *, retried: bool = False) -> Iterator[tuple[Settings, Database]]:
        """The settings and their open database. Errors inside the `with` block become failures with a sentence.

        With a `context`, it logs to the run and waits for a primary; a sensor does not wait, because it ticks again. If
        the wait ends without a primary, the step is retried where `retried` allows it.
        """
        with failing_in_words(retried=retried), _ending_in_words(context):
            settings = load_settings()
            tell = None if context is None else context.log.warning
            with open_database(settings, "dagster", tell=tell, waits=context is not None) as database:
                yield settings, database

    def refuse_without_events(self, read_models: list[str], *, allowed: bool) -> None:
        """Fail, with the names of the read models, if read models have no event at all."""
        with self.opened() as (settings, database):
            store = Store(database, settings, choose_projections(settings, read_models))
            refuse_without_events(store, allowed=allowed)

    def verify(self, context: Context, read_models: list[str], config: VerifyConfig) -> tuple[Summary, Settings]:
        """Verify the read models with these names."""
        tag_run(context, read_models)
        with self.opened(context, retried=True) as (settings, database):
            request = config.request(settings, read_models, context.run.run_id)
            what = f"{request.coverage} of {' and '.join(read_models)}, tier {request.tier}"
            context.log.info(f"Verifying {what}, in {where(settings)}.")
            summary = verify(database, settings, read_models, request, on_progress=self._progress(context))
        return _warned(context, summary), settings

    def verify_fresh(
        self, context: Context, read_models: list[str], *, allow_no_events: bool = False, told: Sequence[str] = ()
    ) -> Summary:
        """Verify the aggregates with events in the last minutes; warnings in `told` are not logged again."""
        with self.opened(context, retried=True) as (settings, database):
            summary = verify_fresh(database, settings, read_models, allow_no_events=allow_no_events)
        return _warned(context, summary, told)

    def rebuild(
        self, context: Context, read_models: list[str], request: RebuildRequest
    ) -> tuple[Summary, Mapping[str, int]]:
        """Rebuild the read models with these names in full.

        Returns the summary, and the approximate number of documents of each read model.
        """
        tag_run(context, read_models)
        with self.opened(context, retried=True) as (settings, database):
            chosen = choose_projections(settings, read_models)
            names = ", ".join(item.read_model for item in chosen)
            context.log.info(f"Rebuilding {names} ({request.strategy}) in {where(settings)}.")
            if context.retry_number:
                # A retry resumes, whatever the first attempt was asked for.
                request = replace(request, resume=True)
            summary = rebuild(
                database,
                settings,
                read_models,
                request,
                on_progress=self._progress(context),
                on_phase=context.log.info,
                holder=owner_of(context.run.run_id),
                # A crashed run is retried at once, with the lease of its first attempt.
                owner=owner_of(context.run.root_run_id or context.run.run_id),
            )
            documents = Store(database, settings, chosen).sizes()
        return _warned(context, summary), documents

    def work(self, context: Context, read_models: list[str], job: Callable[[ReadModelProjector], Summary]) -> Summary:
        """Run `job` with a projector of the read models with these names."""
        with self.opened(context, retried=True) as (settings, database):
            names = ", ".join(item.read_model for item in choose_projections(settings, read_models))
            context.log.info(f"Working on {names} in {where(settings)}.")
            summary = job(ReadModelProjector(database, settings, *read_models, on_progress=self._progress(context)))
        return _warned(context, summary)

    def _progress(self, context: Context) -> ProgressLines:
        return ProgressLines(context.log.info, every=self.progress_seconds)


@contextmanager
def _ending_in_words(context: Context | None) -> Iterator[None]:
    """Log a sentence and a hint before the stack trace of a run that is terminated or fails unexpectedly."""
    try:
        yield
    except dg.DagsterExecutionInterruptedError:
        if context is not None:
            context.log.error(f"This run was terminated. {_WHAT_STAYS}")
        raise
    except (ReadModelError, dg.Failure, dg.RetryRequested):
        raise
    except Exception as error:
        if context is not None:
            context.log.error(
                f"This run failed with an unexpected error: {raised(error)}. {_WHAT_STAYS} If it fails again, report "
                "the stack trace below."
            )
        raise


def _warned(context: Context, summary: Summary, told: Sequence[str] = ()) -> Summary:
    for warning in summary.warnings:
        if warning not in told:
            context.log.warning(one_line(warning))
    return summary
