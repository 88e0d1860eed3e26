"""The gate: a shadow is verified like any read model before it replaces the live collection."""

from collections.abc import Iterator, Mapping, Sequence

from readmodel_pipelines.batched import batched
from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.lanes import OpenedPass, counts_of
from readmodel_pipelines.projections.registry import names
from readmodel_pipelines.reading import spooled
from readmodel_pipelines.rebuild.catch_up import CatchUp
from readmodel_pipelines.rebuild.this_run import Run
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict
from readmodel_pipelines.speed_limits import waiting
from readmodel_pipelines.spread import PassSetup, compare_ranges

_LOOKS = 5
_MOST = 20_000
_BATCH = 1_000


def wrong_documents(run: Run, catch_up: CatchUp) -> list[tuple[str, Verdict]]:
    """(read model, verdict) of wrong documents in the shadows that a catch-up does not correct."""
    for _ in range(_LOOKS):
        suspects, all_of_them = _suspects(run, catch_up)
        wrong = list(_still_wrong(run, catch_up, suspects))
        if wrong or all_of_them:
            return wrong
    return [(item.read_model, Verdict(None, Outcome.DIFFERENT)) for item in run.store.projections]


def _suspects(run: Run, catch_up: CatchUp) -> tuple[dict[str, list[str]], bool]:
    """Aggregates to verify again by read model, and whether the list is complete; it is limited."""
    suspects: dict[str, list[str]] = {item.read_model: [] for item in run.store.projections}
    malformed: dict[str, list[str]] = {item.read_model: [] for item in run.store.projections}
    all_of_them = True

    def suspect(read_model: str, verdict: Verdict) -> None:
        nonlocal all_of_them
        kind = malformed if verdict.outcome is Outcome.MALFORMED else suspects
        if not is_plain(verdict.aggregate_id):
            # The document of a malformed stream was copied unchanged; documents without an event were left out.
            return
        if len(kind[read_model]) < _MOST:
            kind[read_model].append(verdict.aggregate_id)
        else:
            all_of_them = False

    read = waiting(run.store.settings, run.store.database)
    with run.following.in_background(), spooled(run.store, events=run.events, shadows=run.shadows, read=read) as spools:
        setup = PassSetup(run.store.settings, names(run.store.projections), run.shadows, run.claims, spools)
        compare_ranges(setup, [item.whole for item in run.ranges], run.workers, suspect, here=run.store.database)
    for item in run.store.projections:
        for ids in batched(malformed[item.read_model], _BATCH):
            # Their expected documents are unknown; they only have to stay unchanged.
            catch_up.carry(item, run.shadows, ids)
    return suspects, all_of_them


def _still_wrong(run: Run, catch_up: CatchUp, suspects: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Verdict]]:
    counts = counts_of(run.store.projections)
    opened = OpenedPass(run.store, counts, run.claims, shadows=run.shadows)
    versions = {
        name: {key: version for ids in batched(of, _BATCH) for key, version in opened.events.last_versions(ids).items()}
        for name, of in suspects.items()
    }
    # Events that came during the verification reach the shadow here.
    catch_up.once(run.shadows)
    for lane in opened.lanes:
        name, again = lane.projection.read_model, opened.again(lane)
        for ids in batched(suspects[name], _BATCH):
            wrong = [item for item in again.verdicts(ids) if item.outcome is not Outcome.MALFORMED]
            # A stream that keeps growing has grown again; its document is right if it equals the fold up to the
            # catch-up.
            since = {item.aggregate_id: versions[name].get(item.aggregate_id, 1) for item in wrong}
            caught_up = again.behind(since)
            yield from ((name, item) for item in wrong if item.aggregate_id not in caught_up)
