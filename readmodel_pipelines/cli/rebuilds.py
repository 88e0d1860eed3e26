"""`rebuilds …`: look at full rebuilds, give one up, put back what was before one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from readmodel_pipelines.cli.terminal.command import command, opened
from readmodel_pipelines.cli.terminal.help import group
from readmodel_pipelines.cli.terminal.options import Yes
from readmodel_pipelines.cli.terminal.voice import voice
from readmodel_pipelines.wording import moment, numbers

if TYPE_CHECKING:
    from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds

_TOKENS = ("token", "live_tokens", "copy_token")

app = group(
    "rebuilds",
    "Look at full rebuilds, give one up, put back what was before one.\n\n`rebuild-readmodel --all` makes them.",
)

_RebuildId = Annotated[str, typer.Argument(metavar="REBUILD", help="Its id, from `readmodel rebuilds list`.")]


@command(app, "list", "List the latest rebuilds: how far, since when.")
def list_rebuilds() -> None:
    """List the latest rebuilds: how far, since when, and which are unfinished. Writes nothing."""
    from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
    from readmodel_pipelines.reconcile.extended_json import json_value

    with opened("read_only") as (database, _):
        rebuilds = Rebuilds(database)
        found = [_shown(item, rebuilds) for item in rebuilds.listed()]
    voice.result({"verb": "list", "rebuilds": [json_value(item) for item in found]}, _table(found))


@command(app, "show", "Show one rebuild with its ranges.")
def show(rebuild_id: _RebuildId) -> None:
    """Show one rebuild with its ranges. Writes nothing."""
    from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
    from readmodel_pipelines.reconcile.extended_json import json_value

    with opened("read_only") as (database, _):
        rebuilds = Rebuilds(database)
        shown = _shown(rebuilds.stored(rebuild_id), rebuilds)
        ranges = list(rebuilds.stored_ranges(rebuild_id))
    document = {"verb": "show", "rebuild": json_value({**shown, "of_ranges": ranges})}
    voice.result(document, _details(shown, ranges))


@command(app, "abort", "Give up an unfinished rebuild.")
def abort(rebuild_id: _RebuildId) -> None:
    """Give up an unfinished rebuild.

    Drops its shadow; what it wrote in place stays, for it is right. Locks the read models meanwhile: refused while the
    rebuild is at work.
    """
    from readmodel_pipelines.rebuild import abort

    with opened("rebuild") as (database, settings):
        record = abort(database, settings, rebuild_id)
    document = {"verb": "abort", "rebuild": record.id, "state": record.state.value}
    voice.result(document, [f"Rebuild {record.id} is {record.state}."])


@command(app, "rollback", "Put back what was before a rebuild in a shadow.")
def rollback(rebuild_id: _RebuildId, yes: Yes = False) -> bool:
    """Put back what the read models were before a rebuild in a shadow, then catch up with the events since then.

    One rename for each read model, and locks them meanwhile. What others wrote into fields that the projection does not
    own since the rebuild is lost. Then everything is verified, and what the copy has wrong is told: the exit code is 1.
    """
    from readmodel_pipelines.cli.terminal.summary import what_was_found
    from readmodel_pipelines.rebuild import roll_back

    if not yes and not voice.as_json:
        typer.confirm(f"Put back what was before rebuild {rebuild_id}, in place of what it made?", abort=True)
    with opened("shadow") as (database, settings):
        summary = roll_back(database, settings, rebuild_id)
    done = f"Rebuild {rebuild_id} is rolled back; {summary.rebuild.caught_up:,} documents caught up since."
    warnings = (f"Warning: {item}" for item in summary.warnings)
    voice.result(summary.as_json(), [done, *what_was_found(summary), *warnings])
    return summary.ok


def _shown(record: Mapping[str, Any], rebuilds: Rebuilds) -> dict[str, Any]:
    done = sum(1 for _ in rebuilds.stored_ranges(record["_id"], done=True))
    return {name: value for name, value in record.items() if name not in _TOKENS} | {"ranges_done": done}


def _table(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not found:
        yield "There was no full rebuild yet."
        return
    yield f"{'rebuild':<12}  {'state':<11}  {'strategy':<8}  {'begun (UTC)':<19}  {'ranges':>9}  read models"
    for item in found:
        # Another version, or somebody else, may have put anything there.
        rebuild, state, strategy = (str(item.get(name, "?")) for name in ("_id", "state", "strategy"))
        ranges = f"{item['ranges_done']}/{item.get('ranges', '?')}"
        begun = moment(item.get("started_at"))[:19]
        models = item.get("read_models")
        names = ", ".join(map(str, models)) if isinstance(models, list) else "?"
        yield f"{rebuild:<12}  {state:<11}  {strategy:<8}  {begun:<19}  {ranges:>9}  {names}"


def _details(shown: Mapping[str, Any], ranges: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    from readmodel_pipelines.bookkeeping.rebuilds import range_of

    for name, value in shown.items():
        if name not in ("kind", "counts"):
            yield f"{name.strip('_').replace('_', ' '):<16} {value}"
    for name, counts in (shown.get("counts") or {}).items():
        yield f"{name:<16} {numbers(counts)}"
    for item in ranges:
        left = "done" if item["done"] else f"left: {range_of(item).rest}"
        yield f"range {item['number']:<4} slice {item['slice']:<4} {item['events']:>12,} events  {left}"
