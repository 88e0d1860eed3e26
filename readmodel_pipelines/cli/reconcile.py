"""What `rebuild-readmodel` and `verify-consistency` share: which aggregates are meant, and a pass over them.

A pass shows its progress, ends with its summary, and on Ctrl-C tells how far it came and how to go on.
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
"""What a command does with the database, telling how far it is."""

_Reached = tuple[int, int, Mapping[str, Counts]]
_COUNTED = tuple(item.value for item in Outcome)
_WRITTEN = (*WRITES, "failed")


def target_of(read_model: str, aggregate_id: str | None, everything: bool) -> tuple[Settings, Sequence[str]]:
    """The settings, and the read models that are meant by `--type`, `--id` and `--all`.

    Raises:
        UsageError: there is no read model of that name, or it is not said which aggregates are meant.
    """
    settings = load_settings()
    known = names(projections_for(settings))
    if read_model not in (*known, ALL):
        raise UsageError(f"There is no read model {read_model!r}.", hint=f"--type takes {', '.join((*known, ALL))}.")
    if (aggregate_id is not None) == everything:
        both = "Both --id and --all were given" if everything else "Neither --id nor --all was given"
        raise UsageError(
            f"{both}; exactly one of them says what to work on.",
            hint="Give --id UUID for one aggregate, or --all for every one.",
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
    """Do it here, as a user of that role, and show the result; gives the exit code.

    Raises:
        Interrupted: Ctrl-C, with what was done.
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
    # A summary keeps so many of each kind; what was asked for is so many in all.
    summary.findings = summary.first_findings(max_findings)
    voice.result(summary.as_json(), human_lines(summary, aggregate_id))
    if settings.tell_dagster:
        from readmodel_pipelines.cli.dagster.tell import tell_dagster

        tell_dagster(settings, summary, aggregate_id)
    if summary.ok and summary.scope.reports == []:
        # It was asked for, and a full disk says nothing about the documents.
        return OutputLost.exit_code
    return int(not summary.ok)


def _interrupted_look(reached: _Reached, *, remembers: bool) -> Interrupted:
    """A verification or a dry run was interrupted."""
    events, total, read_models = reached
    if not events:
        return Interrupted("Interrupted. No read model was changed.", hint=f"Again: {again()}")
    kept = " What was found so far is remembered." if remembers else ""
    return Interrupted(
        f"Interrupted after {events:,} of about {max(events, total):,} events"
        f"{_told(read_models, _COUNTED)}. No read model was changed.{kept}",
        hint=f"Again: {again()}",
        done={
            "events": events,
            "of_about": max(events, total),
            "read_models": {name: counts.as_dict() for name, counts in read_models.items()},
        },
    )


def _interrupted_rebuild(summary: Summary | None) -> Interrupted:
    """A rebuild was interrupted; of a full one its summary so far."""
    if summary is None:
        return Interrupted(
            "Interrupted. The document is as it was, or what its events say.", hint=f"Make sure with: {again()}"
        )
    rebuild = summary.rebuild
    if not any(item.id for item in summary.rebuilds):
        return Interrupted("Interrupted before the rebuild began: nothing was written.", hint=f"Begin with: {again()}")
    about = f"Rebuild {rebuild.id} ({rebuild.strategy}) is not done" if rebuild.id else "The next one was not begun"
    counts = _told(summary.read_models, (*_COUNTED, *_WRITTEN))
    return Interrupted(
        f"Interrupted. {about}; so far {summary.events:,} events were read{counts}.",
        hint=f"Go on with: {again('--resume')}",
        done=summary.as_json(),
    )


def _told(read_models: Mapping[str, Counts], shown: Sequence[str]) -> str:
    told = ""
    for read_model, counts in read_models.items():
        there = numbers({name: number for name, number in counts.as_dict().items() if name in shown})
        told += f"; {read_model}: {counts.checked:,} compared{there and f', {there}'}"
    return told
