"""Shared by `rebuild-readmodel` and `verify-consistency`: the choice of aggregates, and a pass over them.

A pass shows its progress and ends with its summary. On Ctrl-C it reports its progress and the command that continues.
"""

from collections.abc import Callable, Mapping, Sequence

from readmodel_pipelines.cli.terminal.command import Interrupted, again
from readmodel_pipelines.cli.terminal.progress import event_progress
from readmodel_pipelines.cli.terminal.summary import human_lines
from readmodel_pipelines.cli.terminal.voice import OutputLost, voice
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.driver import Database
from readmodel_pipelines.projections.names import ALL
from readmodel_pipelines.projections.registry import names, projections_for
from readmodel_pipelines.reconcile.outcome import WRITES, Counts, Outcome
from readmodel_pipelines.reconcile.progress import Progress
from readmodel_pipelines.reconcile.summary import Summary, Verb
from readmodel_pipelines.settings import Settings, load_settings
from readmodel_pipelines.wording import numbers

Work = Callable[[Database, Progress], Summary]
"""The work of a command on the database; it reports its progress."""

_Reached = tuple[int, int, Mapping[str, Counts]]
_COUNTED = tuple(item.value for item in Outcome)
_WRITTEN = (*WRITES, "failed")


def target_of(read_model: str, aggregate_id: str | None, everything: bool) -> tuple[Settings, Sequence[str]]:
    """The settings, and the read models chosen by `--type`, `--id` and `--all`.

    Raises:
        UsageError: there is no such read model, or not exactly one of `--id` and `--all` is given.
    """
    settings = load_settings()
    known = names(projections_for(settings))
    if read_model not in (*known, ALL):
        raise UsageError(f"There is no read model {read_model!r}.", hint=f"--type takes {', '.join((*known, ALL))}.")
    if (aggregate_id is not None) == everything:
        both = "Both --id and --all were given" if everything else "Neither --id nor --all was given"
        raise UsageError(
            f"{both}; exactly one of them is needed.",
            hint="Give --id UUID for one aggregate, or --all for every aggregate.",
        )
    return settings, known if read_model == ALL else (read_model,)


def carry_out(
    verb: Verb,
    settings: Settings,
    role: str,
    work: Work,
    *,
    aggregate_id: str | None,
    max_findings: int,
    remembers: bool = False,
) -> int:
    """Do the work here, with the rights of `role`, and print the result; returns the exit code.

    Raises:
        Interrupted: by Ctrl-C; its `done` holds the result so far.
    """
    with (
        open_database(settings, role, tell=voice.note) as database,
        event_progress(verb.replace("_", " ")) as on_progress,
    ):
        reached: _Reached = (0, 0, {})

        def progress(*now: *_Reached) -> None:
            nonlocal reached
            reached = now
            on_progress(*now)

        try:
            summary = work(database, progress)
        except KeyboardInterrupt as ending:
            if verb == "rebuild":
                raise _interrupted_rebuild(getattr(ending, "summary", None)) from None
            raise _interrupted_look(reached, remembers=remembers) from None
    # A summary keeps this many of each kind; the option limits the total.
    summary.findings = summary.first_findings(max_findings)
    voice.result(summary.as_json(), human_lines(summary, aggregate_id))
    if settings.tell_dagster:
        from readmodel_pipelines.cli.dagster.tell import tell_dagster

        tell_dagster(settings, summary, aggregate_id)
    if summary.ok and summary.scope.reports == []:
        # The report was asked for, so the run fails; a full disk says nothing about the documents.
        return OutputLost.exit_code
    return int(not summary.ok)


def _interrupted_look(reached: _Reached, *, remembers: bool) -> Interrupted:
    """The error for an interrupted verification or dry run."""
    events, total, read_models = reached
    if not events:
        return Interrupted("Interrupted. No read model was changed.", hint=f"Run again: {again()}")
    kept = " Its findings so far are recorded." if remembers else ""
    return Interrupted(
        f"Interrupted after {events:,} of about {max(events, total):,} events"
        f"{_told(read_models, _COUNTED)}. No read model was changed.{kept}",
        hint=f"Run again: {again()}",
        done={
            "events": events,
            "of_about": max(events, total),
            "read_models": {name: counts.as_dict() for name, counts in read_models.items()},
        },
    )


def _interrupted_rebuild(summary: Summary | None) -> Interrupted:
    """The error for an interrupted rebuild; a full one has a summary so far."""
    if summary is None:
        return Interrupted("Interrupted. The document is either unchanged or rebuilt.", hint=f"Run again: {again()}")
    rebuild = summary.rebuild
    if not any(item.id for item in summary.rebuilds):
        return Interrupted("Interrupted before the rebuild began. Nothing was written.", hint=f"Run again: {again()}")
    about = f"Rebuild {rebuild.id} ({rebuild.strategy}) is not finished" if rebuild.id else "The next one had not begun"
    counts = _told(summary.read_models, (*_COUNTED, *_WRITTEN))
    return Interrupted(
        f"Interrupted. {about}; so far {summary.events:,} events were read{counts}.",
        hint=f"Continue with: {again('--resume')}",
        done=summary.as_json(),
    )


def _told(read_models: Mapping[str, Counts], shown: Sequence[str]) -> str:
    told = ""
    for read_model, counts in read_models.items():
        there = numbers({name: number for name, number in counts.as_dict().items() if name in shown})
        told += f"; {read_model}: {counts.checked:,} compared{there and f', {there}'}"
    return told
