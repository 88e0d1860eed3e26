"""`status`: one screen of read models, findings, the queue, held leases, and the last rebuilds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

from readmodel_pipelines.cli.rebuilds import HOW_TO_GO_ON
from readmodel_pipelines.cli.terminal.command import command, opened
from readmodel_pipelines.cli.terminal.help import LOOK
from readmodel_pipelines.cli.terminal.voice import voice
from readmodel_pipelines.rebuild_state import UNFINISHED
from readmodel_pipelines.wording import count, moment, numbers, span

if TYPE_CHECKING:
    from readmodel_pipelines.doctor.overview import Overview

app = typer.Typer()


@command(app, "status", "Show findings, queue and rebuilds on one screen.", heading=LOOK)
def status() -> None:
    """Show read models, open findings, the repair queue, leases and the last rebuilds on one screen.

    Compares nothing and writes nothing. `readmodel verify-consistency --type all --all` compares; `readmodel doctor`
    judges.
    """
    from readmodel_pipelines.doctor.overview import look_at

    with opened("read_only") as (database, settings):
        found = look_at(database, settings)
    voice.result(_document(found), _lines(found))


def _document(found: Overview) -> dict[str, Any]:
    from readmodel_pipelines.reconcile.extended_json import json_value

    return {
        "verb": "status",
        "database": found.database,
        "events": found.events,
        "read_models": {
            name: {
                "documents": item.documents,
                "open": dict(item.open),
                "verified_at": _time(item.verified_at),
                "coverage": item.coverage,
                "checked": item.checked,
                "discrepancies": item.discrepancies,
            }
            for name, item in found.read_models.items()
        },
        "ignored": found.ignored,
        "queue": found.queue.as_json(),
        "leases": [
            {"on": item.on, "holder": item.holder, "until": _time(item.until), "number": item.number}
            for item in found.leases
        ],
        "rebuilds": [
            {name: json_value(record.get(name)) for name in ("_id", "state", "strategy", "read_models", "started_at")}
            for record in found.rebuilds
        ],
    }


def _time(value: datetime | None) -> str | None:
    return None if value is None else f"{value.isoformat()}Z"


def _lines(found: Overview) -> Iterator[str]:
    yield f"{found.database}: about {found.events:,} events"
    if not found.events:
        yield "Is a name mistyped? `readmodel doctor --verbose` shows the settings."
    yield ""
    width = max(map(len, found.read_models), default=0)
    for name, item in found.read_models.items():
        opened_now = f"{numbers(dict(sorted(item.open.items())))} open" if any(item.open.values()) else "nothing open"
        verified = "never verified"
        if item.verified_at is not None:
            ago = span(max(0.0, (found.now - item.verified_at).total_seconds()))
            verified = f"verified {ago} ago ({item.coverage}: {item.checked:,} compared, {item.discrepancies:,} wrong)"
        yield f"{name:<{width}}  {item.documents:>10,} documents  {opened_now}; {verified}"
    if found.ignored:
        yield f"{count(found.ignored, 'rule')} for ignored findings: `readmodel findings list`."
    yield ""
    yield from _queue(found)
    for lease in found.leases:
        yield f"at work: {lease.on or f'repairs of {lease.number:,} aggregates'} by {lease.holder}"
    yield ""
    for record in found.rebuilds:
        models = record.get("read_models")
        names = ", ".join(map(str, models)) if isinstance(models, list) else "?"
        yield f"rebuild {record['_id']}  {record.get('state')}  begun {moment(record.get('started_at'))}  {names}"
    if any(record.get("state") in UNFINISHED for record in found.rebuilds):
        yield HOW_TO_GO_ON
    if not found.rebuilds:
        yield "There is no full rebuild yet."


def _queue(found: Overview) -> Iterator[str]:
    stats = found.queue
    oldest = f", the oldest for {span(stats.oldest_pending_seconds)}" if stats.pending else ""
    dead = (
        f"; {count(stats.failed, 'dead letter')} ({stats.reasons_in_words()})" if stats.failed else "; no dead letter"
    )
    yield f"repair queue: {stats.pending:,} pending, {stats.processing:,} in work, {stats.due:,} due{oldest}{dead}"
