"""`rebuilds …`: lists full rebuilds, aborts one, or rolls one back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from readmodel_pipelines.cli.terminal.asking import make_sure
from readmodel_pipelines.cli.terminal.command import command, opened
from readmodel_pipelines.cli.terminal.help import group
from readmodel_pipelines.cli.terminal.options import Yes
from readmodel_pipelines.cli.terminal.voice import voice
from readmodel_pipelines.rebuild_state import UNFINISHED, RebuildState
from readmodel_pipelines.wording import count, moment, numbers

if TYPE_CHECKING:
    from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds

HOW_TO_GO_ON = (
    "`readmodel doctor` shows whether the unfinished rebuild has a worker, and the commands that continue and abort it."
)
_TOKENS = ("token", "live_tokens", "copy_token")

app = group("rebuilds", "List, abort and roll back full rebuilds.\n\n`rebuild-readmodel --all` makes them.")

_RebuildId = Annotated[str, typer.Argument(metavar="REBUILD", help="Its id, from `readmodel rebuilds list`.")]


@command(app, "list", "List the latest rebuilds with their progress.")
def list_rebuilds() -> None:
    """List the latest rebuilds with state, progress and age. Writes nothing."""
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


@command(app, "abort", "Abort an unfinished rebuild.")
def abort(rebuild_id: _RebuildId) -> None:
    """Abort an unfinished rebuild.

    Drops its shadow. Documents that it wrote in place are right and stay. Takes the lease of the read models, so it is
    refused while the rebuild works.
    """
    from readmodel_pipelines.rebuild import abort

    with opened("rebuild") as (database, settings):
        record = abort(database, settings, rebuild_id)
    to_do = record.stored.get("to_do", "")
    document = {"verb": "abort", "rebuild": record.id, "state": record.state.value, "to_do": to_do}
    voice.result(document, [f"Rebuild {record.id} is {record.state}. {to_do}".rstrip()])


@command(app, "rollback", "Restore the documents from before a shadow rebuild.")
def rollback(rebuild_id: _RebuildId, yes: Yes = False) -> bool:
    """Restore the documents from before a shadow rebuild, then apply the events since.

    Renames the copy over each read model and holds their leases meanwhile. Foreign fields written since the rebuild are
    lost. Then verifies everything. Documents that are wrong in the copy are reported and queued for repair; the exit
    code is then 1. Continues an interrupted rollback.
    """
    from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
    from readmodel_pipelines.cli.terminal.summary import counts_and_findings
    from readmodel_pipelines.rebuild import roll_back

    with opened("shadow") as (database, settings):
        # A mistyped id is reported before anybody is asked.
        Rebuilds(database).stored(rebuild_id)
        question = f"Replace the current documents by those from before rebuild {rebuild_id}?"
        kept = f"Nothing was rolled back; the documents of rebuild {rebuild_id} stay."
        make_sure(question, yes=yes, kept=kept, if_so="to roll back")
        summary = roll_back(database, settings, rebuild_id)
    updated = count(summary.rebuild.caught_up or 0, "document")
    done = f"Rebuild {rebuild_id} is rolled back. Later events updated {updated}."
    warnings = (f"Warning: {item}" for item in summary.warnings)
    voice.result(summary.as_json(), [done, *counts_and_findings(summary), *warnings])
    return summary.ok


def _shown(record: Mapping[str, Any], rebuilds: Rebuilds) -> dict[str, Any]:
    done = sum(1 for _ in rebuilds.stored_ranges(record["_id"], done=True))
    return {name: value for name, value in record.items() if name not in _TOKENS} | {"ranges_done": done}


def _table(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not found:
        yield "There is no full rebuild yet."
        return
    yield f"{'rebuild':<12}  {'state':<11}  {'strategy':<8}  {'begun (UTC)':<19}  {'ranges':>9}  read models"
    for item in found:
        # Another version or program may have stored any value here.
        rebuild, state, strategy = (str(item.get(name, "?")) for name in ("_id", "state", "strategy"))
        ranges = f"{item['ranges_done']}/{item.get('ranges', '?')}"
        begun = moment(item.get("started_at"))[:19]
        models = item.get("read_models")
        names = ", ".join(map(str, models)) if isinstance(models, list) else "?"
        yield f"{rebuild:<12}  {state:<11}  {strategy:<8}  {begun:<19}  {ranges:>9}  {names}"
    if any(item.get("state") in UNFINISHED for item in found):
        yield ""
        yield HOW_TO_GO_ON


def _in_words(value: Any) -> str:
    """A value of a rebuild's record, as text for people."""
    from readmodel_pipelines.reconcile.extended_json import json_text

    if value is None:
        return "-"
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, list):
        return ", ".join(map(_in_words, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_in_words(item)}" for name, item in value.items()) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else json_text(value)


def _details(shown: Mapping[str, Any], ranges: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    from readmodel_pipelines.bookkeeping.rebuild_record import range_of

    for name, value in shown.items():
        if name not in ("kind", "counts"):
            yield f"{name.strip('_').replace('_', ' '):<16} {_in_words(value)}"
    for name, counts in (shown.get("counts") or {}).items():
        yield f"{name:<16} {numbers(counts)}"
    for item in ranges:
        left = "done" if item["done"] else f"left: {range_of(item).rest}"
        yield f"range {item['number']:<4} slice {item['slice']:<4} {item['events']:>12,} events  {left}"
    if shown.get("state") in UNFINISHED:
        yield ""
        yield HOW_TO_GO_ON
    elif shown.get("copies") and shown.get("state") == RebuildState.DONE:
        yield ""
        yield (
            f"`readmodel rebuilds rollback {shown['_id']}` restores the documents from before, until the next rebuild "
            "of these read models in a shadow."
        )
