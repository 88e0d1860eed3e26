"""The verbs of a campaign: each finds, foretells and mends what is wrong, as the second implementation says."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from readmodel_pipelines import spread
from readmodel_pipelines.cutover.definition import ShadowFailed
from readmodel_pipelines.errors import AggregateNotFound, WrongAggregateType
from readmodel_pipelines.mongo.driver import CODEC
from readmodel_pipelines.repair.worker import RepairWorker
from readmodel_pipelines_tests.support.campaign import judge
from readmodel_pipelines_tests.support.campaign.judge import Finding, Judgement
from readmodel_pipelines_tests.support.campaign.trial import Broken, Trial
from readmodel_pipelines_tests.support.campaign.writers import one_event_at_a_time, saved
from readmodel_pipelines_tests.support.grammar import Grammar
from readmodel_pipelines_tests.support.scene import found_in
from readmodel_pipelines_tests.support.stored_values import Value
from readmodel_pipelines_tests.support.verbs.repairing import task


def play(trial: Trial, *, processes: bool = True) -> None:
    """All of a trial: broken read models are looked at and mended by each verb; then writers write.

    Without `processes` no worker processes are started, which takes longer than all else of a small trial.
    """
    trial.add_events()
    broken = trial.break_everything()
    found = {name: judge.findings(name, documents, trial.wanted[name]) for name, documents in broken.items()}
    every = [item for items in found.values() for item in items]
    everything = trial.mended(broken, found)
    look(trial, every, everything, broken)
    if processes:
        with small_ranges():
            trial.says("verify in processes", trial.projector().verify_all(), every)
            trial.counts("rebuild in processes", trial.projector().rebuild_all(), everything)
        trial.holds("rebuild in processes", everything)
    trial.put_back(broken)
    trial.counts("rebuild", trial.projector().rebuild_all(), everything)
    trial.holds("rebuild", everything)
    trial.put_back(broken)
    in_a_shadow(trial, broken, found, everything)
    for verb, (mend, documents_too) in BY_ID.items():
        trial.put_back(broken)
        asked = set(trial.ids(broken if documents_too else {})[:: trial.every])
        mend(trial, sorted(key.value for key in asked))
        some = trial.mended(broken, found, asked)
        trial.holds(verb, some)
    one_event_at_a_time(trial, trial.some(trial.streams))
    plain = Grammar(trial.seed, odd=0.0).streams(trial.number, "Task" if trial.legacy else "Chat")
    saved(trial, trial.some([*plain]))


def in_a_shadow(
    trial: Trial, broken: Broken, found: Mapping[str, Sequence[Finding]], everything: Mapping[str, Judgement]
) -> None:
    """A rebuild in a shadow does the same, but for a read model in whose way a malformed stream's document is."""
    out = [name for name, item in everything.items() if not item.fits_a_shadow(name)]
    before = {name: judge.mended(broken[name], found[name], ()) for name in out}
    failed = {name: {"failed": sum(bool(item.write) for item in found[name])} for name in out}
    judged = {**everything, **{name: replace(item, counts=failed[name]) for name, item in before.items()}}
    try:
        trial.counts("shadow", trial.projector().rebuild_all(strategy="shadow"), judged)
    except ShadowFailed:
        # What is rebuilt alone cannot be left out.
        trial.same("shadow", "refusal", trial.legacy and out, ["tasks_read_model"])
    trial.holds("shadow", judged, to_the_byte=False)


def look(trial: Trial, found: Sequence[Finding], judged: Mapping[str, Judgement], broken: Broken) -> None:
    """Verbs that write nothing find exactly what is wrong, and write nothing."""
    trial.says("verify", trial.projector().verify_all(), found)
    trial.counts("dry run", trial.projector().rebuild_all(dry_run=True), judged)
    by_key: dict[Value, list[Finding]] = defaultdict(list)
    for item in found:
        by_key[item.key].append(item)
    for key in trial.ids(broken)[::10]:
        trial.says(f"verify of {key.value}", trial.projector().verify_consistency(str(key.value)), by_key[key])
    for name, documents in broken.items():
        trial.same(
            "verbs that only look", name, [item.raw for item in trial.stored(name)], [item.raw for item in documents]
        )


def one_by_one(trial: Trial, ids: Sequence[str]) -> None:
    projector = trial.projector()
    for aggregate_id in ids:
        # An orphan may have gone before, because it was in another's way.
        with suppress(AggregateNotFound):
            projector.rebuild_one(aggregate_id)


def repaired(trial: Trial, ids: Sequence[str]) -> None:
    queue = trial.database[trial.settings.repair_queue_collection]
    queue.delete_many({})
    kinds = ("chat", "task") if trial.legacy else ("chat",)
    tasks = [task(aggregate_id, aggregate_type=kind) for aggregate_id in ids for kind in kinds]
    if tasks:
        queue.insert_many(tasks)
    RepairWorker(trial.database, trial.settings).work()


def handled(trial: Trial, ids: Sequence[str]) -> None:
    projector = trial.projector()
    decoded = trial.database.get_collection(trial.settings.events_collection, codec_options=CODEC)
    for aggregate_id in ids:
        event = found_in(decoded, {"aggregate_id": aggregate_id})
        # A type that is no text is no handler's business; the stream is malformed then.
        with suppress(WrongAggregateType):
            projector.process_event(event)


BY_ID: Mapping[str, tuple[Callable[[Trial, Sequence[str]], None], bool]] = {
    "rebuild one by one": (one_by_one, True),
    "repairs": (repaired, True),
    "process_event": (handled, False),
}
"""How to mend these aggregates, and whether those are meant as well that have a document and no events."""


@contextmanager
def small_ranges() -> Iterator[None]:
    """Two worker processes, which even few events are worth."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spread, "EVENTS_WORTH_A_PROCESS", 20)
        yield
