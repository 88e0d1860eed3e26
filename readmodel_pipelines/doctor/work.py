"""Judges what lies there and what is left to do: collections, indexes, repair queue, findings, leases, rebuilds."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial

from readmodel_pipelines.bookkeeping.held_leases import TakenLease
from readmodel_pipelines.bookkeeping.leases import is_gone
from readmodel_pipelines.bookkeeping.queue_stats import QueueStats
from readmodel_pipelines.bookkeeping.rebuilds import RebuildRecord
from readmodel_pipelines.doctor.check import Check, Health, worst
from readmodel_pipelines.mongo.indexes import Flaw
from readmodel_pipelines.mongo.wanted_indexes import VERSIONS
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.wording import count, numbers, span

_WAITS_LONG_SECONDS = 300
_VERIFIED_LONG_AGO_SECONDS = 8 * 86_400.0
_MANY = 5
_SHOWN = 8


def judge_collections(
    database: str, events: str, read_models: Sequence[str], sizes: Mapping[str, int], there: Collection[str]
) -> Check:
    """Whether events and read models are where they are looked for; `sizes` of those that are `there`."""
    held = ", ".join(f"{name} about {sizes[name]:,}" for name in (events, *read_models) if name in sizes)
    if not sizes.get(events):
        others = sorted(name for name in there if name not in (events, *read_models))
        instead = f" The database has {', '.join(others[:_SHOWN])}." if others else " The database is empty."
        return Check(
            "collections",
            Health.WARNING,
            f"{database}.{events} holds no event, or is not there.{instead}",
            "Check READMODEL_DATABASE and READMODEL_EVENTS_COLLECTION.",
        )
    empty = [name for name in read_models if not sizes.get(name)]
    if empty:
        return Check(
            "collections",
            Health.WARNING,
            f"Documents in {database}: {held}. There is nothing in {', '.join(empty)}.",
            "`readmodel rebuild-readmodel --type all --all` makes it from the events.",
        )
    return Check("collections", Health.OK, f"Documents in {database}: {held}.")


def judge_indexes(flaws: Sequence[Flaw], there: Collection[str]) -> Check:
    """Whether the indexes are as wanted. What is not there yet needs none: a rebuild and `ensure-indexes` make them."""
    counted = [flaw for flaw in flaws if flaw.collection in there]
    if not counted:
        return Check("indexes", Health.OK, "Every index is there, on every collection that is.")
    drop = [
        f"db.getCollection({flaw.collection!r}).dropIndex({flaw.instead!r})" for flaw in counted if flaw.kind == "other"
    ]
    make = "`readmodel ensure-indexes`"
    return Check(
        "indexes",
        # Without a unique index two writers make duplicates; any other makes work slow, and `queries` tells which.
        worst(Health.PROBLEM if flaw.index.unique else Health.WARNING for flaw in counted),
        f"{len(counted)} of the indexes are not as they ought to be.",
        f"Drop what is in their place ({'; '.join(drop)}), then run {make}." if drop else f"{make} makes them.",
        tuple(_told(flaw) for flaw in counted),
    )


def _told(flaw: Flaw) -> str:
    fields = ", ".join(name for name, _ in flaw.index.key)
    unique = "unique index" if flaw.index.unique else "index"
    for_what = " (only --tier versions needs it)" if flaw.index == VERSIONS else ""
    match flaw.kind:
        case "missing":
            return f"{flaw.collection}: no {unique} on {fields}{for_what}"
        case "collation":
            return f"{flaw.collection}: {flaw.instead} on {fields} has a collation, and no {unique} goes by bytes"
        case "other":
            return f"{flaw.collection}: {flaw.instead} on {fields} is no {unique} as it ought to be"
        case "expiry":
            return f"{flaw.collection}: {flaw.instead} lets documents expire at another time than the settings say"


def judge_queue(stats: QueueStats, warning: int, limit: int) -> Check:
    """Whether the repair queue drains and nothing in it is dead."""
    check = partial(Check, "repair queue")
    found = f"{count(stats.open, 'open task')}, {stats.due:,} due"
    if stats.pending:
        found += f", the oldest for {span(stats.oldest_pending_seconds)}"
    if stats.failed:
        return check(
            Health.PROBLEM,
            f"{found}; {count(stats.failed, 'dead letter')} ({stats.reasons_in_words()}).",
            "`readmodel repair-queue list --status failed` has them; mend the cause, then `readmodel repair-queue "
            "requeue`.",
        )
    if stats.open >= limit:
        return check(
            Health.PROBLEM,
            f"{found}: the queue is full (READMODEL_REPAIR_QUEUE_LIMIT), and takes no more.",
            "`readmodel repair-queue work` works it off; `readmodel rebuild-readmodel --type all --all` is quicker.",
        )
    if stats.due and not stats.repairs_per_minute and stats.oldest_pending_seconds > _WAITS_LONG_SECONDS:
        hint = "Is Dagster's daemon up and `repair_queue_sensor` on? `readmodel repair-queue work` does it without."
        return check(Health.WARNING, f"{found}, and nobody works them off.", hint)
    if stats.open > warning:
        found += f", more than READMODEL_REPAIR_QUEUE_WARNING ({warning:,})"
        return check(Health.WARNING, f"{found}.", "`readmodel repair-queue stats` tells how it goes.")
    return check(Health.OK, f"{found}; no dead letter.")


def judge_findings(
    found: Mapping[str, Mapping[str, int]], verified_at: Mapping[str, datetime | None], now: datetime
) -> Check:
    """What the last verifications found and is open, by read model and outcome; when each was verified last."""
    check = partial(Check, "findings")
    wrong = {name: outcomes for name, outcomes in found.items() if outcomes}
    if wrong:
        number = sum(sum(outcomes.values()) for outcomes in wrong.values())
        return check(
            Health.PROBLEM,
            f"{count(number, 'finding is', 'findings are')} open: read models are not what their events say.",
            "`readmodel verify-consistency --type all --all` looks anew; `readmodel rebuild-readmodel --type all "
            "--all` mends all but malformed streams.",
            tuple(f"{name}: {numbers(dict(sorted(outcomes.items())))}" for name, outcomes in wrong.items()),
        )
    again = (
        "`readmodel verify-consistency --type all --all` does; the schedule `nightly_verification` does it by itself."
    )
    never = [name for name, moment in verified_at.items() if moment is None]
    if never:
        return check(Health.WARNING, f"Nobody verified {', '.join(never)} so far.", again)
    oldest = min((moment for moment in verified_at.values() if moment), default=now)
    ago = max(0.0, (now - oldest).total_seconds())
    told = f"None is open; the last verification was {span(ago)} ago."
    if ago > _VERIFIED_LONG_AGO_SECONDS:
        return check(Health.WARNING, told, again)
    return check(Health.OK, told)


def judge_leases(leases: Sequence[TakenLease], now: datetime, gone: Callable[[str], bool] = is_gone) -> Check:
    """Whether somebody who holds a lease is dead: it ran out and was not given back, or its process is gone."""
    told = []
    for lease in leases:
        ago = (now - lease.until).total_seconds()
        if ago >= 0:
            told.append(f"{_on(lease)}: {lease.holder} did not give it back; it ran out {span(ago)} ago")
        elif gone(lease.holder):
            gone_from = f"{_on(lease)}: {lease.holder} is no process of this machine any more"
            told.append(f"{gone_from}; it runs out in {span(-ago)}")
    if not told:
        working = "; ".join(f"{_on(lease)} by {lease.holder}" for lease in leases[:_MANY])
        return Check("leases", Health.OK, f"Held: {working}." if leases else "Nobody is at work.")
    more = (f"and {len(told) - _MANY} more",) if len(told) > _MANY else ()
    return Check(
        "leases",
        Health.WARNING,
        f"{count(len(told), 'stale lease')}: whoever held it died at work.",
        "Nothing is locked once it ran out: the next rebuild or worker takes it over. See in that process's log why "
        "it died (killed for its memory, most often).",
        (*told[:_MANY], *more),
    )


def _on(lease: TakenLease) -> str:
    return lease.on or f"repairs of {lease.number:,} aggregates"


def judge_rebuilds(
    unfinished: Sequence[RebuildRecord],
    held: Collection[str],
    leftovers: Collection[str],
    now: datetime,
    valid_days: float,
) -> Check:
    """Whether an unfinished rebuild waits for somebody, and whether shadows are left that nobody goes on with.

    `held` are the live collections that a rebuild holds a lease on: whoever does is at work.
    """
    states, told, hints, at_work = [Health.OK], [], [], 0
    for record in unfinished:
        waits = not set(held) & set(record.read_models)
        names, stands = ", ".join(record.names), ", and nobody is at work" if waits else ""
        told.append(f"{record.id} of {names}: {record.state}, begun {span(record.age_seconds(now))} ago{stands}")
        if waits:
            # Read models that are swapped in and others that are not: nobody else may begin before it is ended.
            states.append(Health.PROBLEM if record.state is RebuildState.SWAPPING else Health.WARNING)
            hints.append(_next(record, record.age_seconds(now) > valid_days * 86_400))
        else:
            at_work += 1
    if leftovers:
        states.append(Health.WARNING)
        told += [f"{name} is left of a rebuild that nobody goes on with" for name in sorted(leftovers)]
        hints.append("The next rebuild of that read model drops what is left.")
    if not told:
        return Check("rebuilds", Health.OK, "None is unfinished.")
    found = f"{count(len(unfinished), 'unfinished rebuild')}, {at_work} of them at work."
    return Check("rebuilds", worst(states), found, " ".join(dict.fromkeys(hints)), tuple(told))


def _next(record: RebuildRecord, too_old: bool) -> str:
    if too_old and record.state is not RebuildState.SWAPPING:
        return f"It is too old to be resumed: `readmodel rebuilds abort {record.id}`."
    strategy = " --strategy shadow" if record.in_shadow else ""
    name = record.names[0] if len(record.names) == 1 else "all"
    resume = f"`readmodel rebuild-readmodel --type {name} --all{strategy} --resume` goes on"
    if record.state is RebuildState.SWAPPING:
        return f"{resume}; it must be ended before another one begins."
    refused = record.state is RebuildState.REFUSED
    why = f"`readmodel rebuilds show {record.id}` says why it was refused; " if refused else ""
    return f"{why}{resume}, `readmodel rebuilds abort {record.id}` gives it up."
