"""`leases …`: lists the held leases, and frees the lease of a dead holder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from readmodel_pipelines.cli.terminal.asking import make_sure
from readmodel_pipelines.cli.terminal.command import command, opened
from readmodel_pipelines.cli.terminal.help import group
from readmodel_pipelines.cli.terminal.options import Yes
from readmodel_pipelines.cli.terminal.voice import voice
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.wording import count, moment

_MOST_LISTED = 100_000
_WIDEST = 80
_LIST = "`readmodel leases list` shows the held leases."

app = group(
    "leases",
    "List leases, and free the lease of a dead holder.\n\nA rebuild holds one on each of its read models, a repair one "
    "on each aggregate. They expire by themselves.",
)


@command(app, "list", "List the held leases: holder and expiry.")
def list_leases(
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=_MOST_LISTED, help="Maximum number of leases.")] = 50,
) -> None:
    """List the held leases with holder, beginning and expiry. Writes nothing."""
    from readmodel_pipelines.bookkeeping.held_leases import each_taken
    from readmodel_pipelines.reconcile.extended_json import json_value

    with opened("read_only") as (database, _):
        found = each_taken(database, limit + 1)
    shown, more = found[:limit], len(found) > limit
    voice.result({"verb": "list", "leases": [json_value(item) for item in shown], "more": more}, _table(shown, more))


@command(app, "break", "Free the lease of a dead holder.")
def break_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, from `readmodel leases list`.")],
    yes: Yes = False,
) -> None:
    """Free the lease of a dead holder, so that others need not wait for its expiry.

    Changes nothing else. If the holder is alive after all, it notices the loss and ends.
    """
    from readmodel_pipelines.bookkeeping.held_leases import taken
    from readmodel_pipelines.bookkeeping.leases import break_lease
    from readmodel_pipelines.wording import storable

    with opened("rebuild") as (database, _):
        lease = taken(database, storable(name))
        if lease is None:
            raise UsageError(f"Nobody holds a lease {name!r}.", hint=_LIST)
        holder = str(lease.get("holder"))
        kept = f"{holder} may be alive, so {name} was not freed."
        make_sure(f"Free {name}, held by {holder}? Its holder must be dead.", yes=yes, kept=kept, if_so="if it is dead")
        broken = break_lease(database, lease["_id"])
    told = f"{name} is free." if broken else f"{name} was already free."
    voice.result({"verb": "break", "lease": name, "holder": holder, "broken": broken}, [told])


def _table(found: Sequence[Mapping[str, Any]], more: bool) -> Iterator[str]:
    if not found:
        yield "No lease is held."
        return
    width = min(_WIDEST, max(len(str(item["_id"])) for item in found))
    yield f"{'lease':<{width}}  {'since (UTC)':<19}  {'until (UTC)':<19}  holder"
    for item in found:
        since, until = (moment(item.get(name))[:19] for name in ("acquired_at", "expires_at"))
        yield f"{item['_id']:<{width}}  {since:<19}  {until:<19}  {item.get('holder')}{_but(item)}"
    yield "… and more; --limit shows them." if more else f"{count(len(found), 'lease')}."


def _but(item: Mapping[str, Any]) -> str:
    if item["over"]:
        return "  (expired: free)"
    return "  (expires later than its duration allows: the server's clock was ahead)" if item["too_far"] else ""
