"""Checks of data and work: collections, indexes, repair queue, findings, leases, rebuilds."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from readmodel_pipelines.bookkeeping.held_leases import TakenLease
from readmodel_pipelines.bookkeeping.leases import is_gone
from readmodel_pipelines.bookkeeping.queue_stats import QueueStats
from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRecord
from readmodel_pipelines.doctor.check import Check, Health, worst
from readmodel_pipelines.mongo.indexes import Flaw
from readmodel_pipelines.mongo.read_order import Reading
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.spool.folder import free_bytes
from readmodel_pipelines.wording import count, numbers, span

_WAITS_LONG_SECONDS = 300
_VERIFIED_LONG_AGO_SECONDS = 8 * 86_400.0
_MANY = 5
_SHOWN = 8


def judge_reading(reading: Reading, folder: Path) -> Check:
    """How a full pass reads the events, and whether its spool has enough room."""
    found = f"A full pass reads the events {reading.how}."
    free = free_bytes(folder)
    if reading.order == "index" or free >= reading.needed_bytes:
        return Check("reading", Health.OK, found)
    return Check(
        "reading",
        Health.WARNING,
        f"{found} {folder} has {free / 1_000_000_000:,.2f} GB free, and a spool may take "
        f"{reading.needed_bytes / 1_000_000_000:,.2f} GB. Without enough room, each event is a read of the server's "
        "disk.",
        "Set READMODEL_SPOOL_DIR to a folder with more room.",
    )


def judge_collections(
    database: str, events: str, read_models: Sequence[str], sizes: Mapping[str, int], there: Collection[str]
) -> Check:
    """Whether events and read models exist under the names of the settings; `sizes` has those of existing ones."""
    held = ", ".join(f"{name} about {sizes[name]:,}" for name in (events, *read_models) if name in sizes)
    if not sizes.get(events):
        others = sorted(name for name in there if name not in (events, *read_models))
        instead = f" The database has {', '.join(others[:_SHOWN])}." if others else " The database is empty."
        return Check(
            "collections",
            Health.WARNING,
            f"{database}.{events} is empty or does not exist.{instead}",
            "Check READMODEL_DATABASE and READMODEL_EVENTS_COLLECTION.",
        )
    empty = [name for name in read_models if not sizes.get(name)]
    if empty:
        return Check(
            "collections",
            Health.WARNING,
            f"Documents in {database}: {held}. {', '.join(empty)} {'is' if len(empty) == 1 else 'are'} empty.",
            "Check the names in the settings (`readmodel doctor --verbose`). If they are right, `readmodel "
            "rebuild-readmodel --type all --all` makes their documents.",
        )
    return Check("collections", Health.OK, f"Documents in {database}: {held}.")


def judge_indexes(flaws: Sequence[Flaw], there: Collection[str]) -> Check:
    """Whether all indexes exist as required. A missing collection needs none: rebuilds and `ensure-indexes` create
    them.
    """
    counted = [flaw for flaw in flaws if flaw.collection in there]
    if not counted:
        return Check("indexes", Health.OK, "Every existing collection has all its indexes.")
    drop = [
        f"db.getCollection({flaw.collection!r}).dropIndex({flaw.instead!r})" for flaw in counted if flaw.kind == "other"
    ]
    make = "`readmodel ensure-indexes`"
    return Check(
        "indexes",
        # Without a unique index two writers make duplicates. Any other one only makes work slow, and `queries` reports
        # that.
        worst(Health.PROBLEM if flaw.index.unique else Health.WARNING for flaw in counted),
        f"{len(counted)} indexes are missing or wrong.",
        f"Drop the wrong ones ({'; '.join(drop)}), then run {make}." if drop else f"{make} creates them.",
        tuple(_told(flaw) for flaw in counted),
    )


def _told(flaw: Flaw) -> str:
    fields = ", ".join(name for name, _ in flaw.index.key)
    unique = "unique index" if flaw.index.unique else "index"
    match flaw.kind:
        case "missing":
            return f"{flaw.collection}: no {unique} on {fields}"
        case "collation":
            return f"{flaw.collection}: {flaw.instead} on {fields} has a collation, but {unique} must compare bytes"
        case "other":
            return f"{flaw.collection}: {flaw.instead} on {fields} is no suitable {unique}"
        case "expiry":
            return f"{flaw.collection}: {flaw.instead} lets documents expire at another time than in the settings"


def judge_queue(stats: QueueStats, warning: int, limit: int) -> Check:
    """Whether the repair queue is worked off and has no dead letter."""
    check = partial(Check, "repair queue")
    found = f"{count(stats.open, 'open task')}, {stats.due:,} due"
    if stats.pending:
        found += f", the oldest for {span(stats.oldest_pending_seconds)}"
    if stats.failed:
        return check(
            Health.PROBLEM,
            f"{found}; {count(stats.failed, 'dead letter')} ({stats.reasons_in_words()}).",
            "`readmodel repair-queue list --status failed` lists them. Fix the cause, then run `readmodel repair-queue "
            "requeue --all-failed`.",
        )
    if stats.open >= limit:
        return check(
            Health.PROBLEM,
            f"{found}: the queue is full (READMODEL_REPAIR_QUEUE_LIMIT), and accepts no more tasks.",
            "`readmodel repair-queue work` repairs them; `readmodel rebuild-readmodel --type all --all` is faster.",
        )
    if stats.due and not stats.repairs_per_minute and stats.oldest_pending_seconds > _WAITS_LONG_SECONDS:
        hint = (
            "Check that Dagster's daemon runs and `repair_queue_sensor` is on. Or start `readmodel repair-queue work`."
        )
        return check(Health.WARNING, f"{found}, and no worker runs.", hint)
    if stats.open > warning:
        found += f", more than READMODEL_REPAIR_QUEUE_WARNING ({warning:,})"
        return check(Health.WARNING, f"{found}.", "`readmodel repair-queue stats` shows the progress.")
    return check(Health.OK, f"{found}; no dead letter.")


def judge_findings(
    found: Mapping[str, Mapping[str, int]], verified_at: Mapping[str, datetime | None], now: datetime
) -> Check:
    """The open findings of the last verifications, by read model and outcome, and the time of each read model's last
    one.
    """
    check = partial(Check, "findings")
    wrong = {name: outcomes for name, outcomes in found.items() if outcomes}
    if wrong:
        number = sum(sum(outcomes.values()) for outcomes in wrong.values())
        return check(
            Health.PROBLEM,
            f"{count(number, 'finding is', 'findings are')} open: read models differ from their events.",
            "`readmodel verify-consistency --type all --all` lists them. `readmodel rebuild-readmodel --type all "
            "--all` repairs all but malformed streams.",
            tuple(f"{name}: {numbers(dict(sorted(outcomes.items())))}" for name, outcomes in wrong.items()),
        )
    again = (
        "`readmodel verify-consistency --type all --all` verifies everything now. The schedule `nightly_verification` "
        "does it regularly."
    )
    never = [name for name, moment in verified_at.items() if moment is None]
    if never:
        return check(Health.WARNING, f"Never verified: {', '.join(never)}.", again)
    oldest = min((moment for moment in verified_at.values() if moment), default=now)
    ago = max(0.0, (now - oldest).total_seconds())
    told = f"No finding is open; the last verification was {span(ago)} ago."
    if ago > _VERIFIED_LONG_AGO_SECONDS:
        return check(Health.WARNING, told, again)
    return check(Health.OK, told)


_MUST_GO_ON = (RebuildState.SWAPPING, RebuildState.ROLLING_BACK)


def judge_leases(leases: Sequence[TakenLease], now: datetime, gone: Callable[[str], bool] = is_gone) -> Check:
    """Whether a lease has a dead holder: it expired without a release, or its process has ended.

    Or the server's clock was ahead when it was taken.
    """
    told = []
    for lease in leases:
        ago = (now - lease.until).total_seconds()
        if ago >= 0:
            told.append(f"{_on(lease)}: {lease.holder} did not release it; it expired {span(ago)} ago")
        elif gone(lease.holder):
            gone_from = f"{_on(lease)}: {lease.holder} has ended on this machine"
            told.append(f"{gone_from}; it is locked for {span(-ago)}")
        elif lease.too_far:
            told.append(
                f"{_on(lease)}: locked by {lease.holder} for {span(-ago)}, longer than a lease lasts, because the "
                "server's clock was ahead"
            )
    if not told:
        working = "; ".join(f"{_on(lease)} by {lease.holder} until {lease.until:%H:%M:%S}" for lease in leases[:_MANY])
        return Check("leases", Health.OK, f"Held: {working}." if leases else "No lease is held.")
    more = (f"and {len(told) - _MANY} more",) if len(told) > _MANY else ()
    return Check(
        "leases",
        Health.WARNING,
        f"{count(len(told), 'stale lease')}: the holder died, or the clock was wrong.",
        "The next rebuild or worker takes over an expired lease. To free one now, find its name with `readmodel "
        "leases list` and run `readmodel leases break NAME`. The log of that process shows why it died.",
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
    """Whether an unfinished rebuild has no worker, and whether shadows of abandoned rebuilds are left.

    `held` are the live collections with a lease of a rebuild; its holder is at work.
    """
    states, told, hints, at_work = [Health.OK], [], [], 0
    for record in unfinished:
        waits = not set(held) & set(record.read_models)
        names, stands = ", ".join(record.names), ", without a worker" if waits else ""
        told.append(f"{record.id} of {names}: {record.state}, begun {span(record.age_seconds(now))} ago{stands}")
        if waits:
            # Some read models are cut over and others not; no other rebuild may begin before this one is finished.
            states.append(Health.PROBLEM if record.state in _MUST_GO_ON else Health.WARNING)
            hints.append(_next(record, record.age_seconds(now) > valid_days * 86_400))
        else:
            at_work += 1
    if leftovers:
        states.append(Health.WARNING)
        told += [f"{name} is left from an abandoned rebuild" for name in sorted(leftovers)]
        hints.append("The next rebuild of that read model drops it.")
    if not told:
        return Check("rebuilds", Health.OK, "No rebuild is unfinished.")
    found = f"{count(len(unfinished), 'unfinished rebuild')}, {at_work} of them at work."
    return Check("rebuilds", worst(states), found, " ".join(dict.fromkeys(hints)), tuple(told))


def _next(record: RebuildRecord, too_old: bool) -> str:
    if record.state is RebuildState.ROLLING_BACK:
        return f"`readmodel rebuilds rollback {record.id}` continues it. Until then, restored documents may be stale."
    if too_old and record.state is not RebuildState.SWAPPING:
        return f"It is too old to be resumed: `readmodel rebuilds abort {record.id}`."
    strategy = " --strategy shadow" if record.in_shadow else ""
    name = record.names[0] if len(record.names) == 1 else "all"
    resume = f"`readmodel rebuild-readmodel --type {name} --all{strategy} --resume` continues it"
    if record.state is RebuildState.SWAPPING:
        return (
            f"{resume}. Complete it, or abort it (`readmodel rebuilds abort {record.id}`), before another one begins."
        )
    refused = record.state is RebuildState.REFUSED
    why = f"`readmodel rebuilds show {record.id}` shows why it was refused; " if refused else ""
    return f"{why}{resume}, `readmodel rebuilds abort {record.id}` aborts it."
