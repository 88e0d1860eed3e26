"""Full rebuilds from the command line: what there is, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import typer

from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds, range_of
from readmodel_pipelines.cli.voice import plain, voice
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.rebuild import abort, roll_back
from readmodel_pipelines.reconcile.extended_json import json_value
from readmodel_pipelines.settings import load_settings

_TOKENS = ("token", "live_tokens", "copy_token")


def show_all() -> None:
    """The latest, a line each."""
    with open_database(load_settings(), "read_only") as database:
        rebuilds = Rebuilds(database)
        found = [_shown(item, rebuilds) for item in rebuilds.listed()]
    voice.result({"verb": "list", "rebuilds": [json_value(item) for item in found]}, _table(found))


def show_one(rebuild_id: str) -> None:
    """All that is known of one."""
    with open_database(load_settings(), "read_only") as database:
        rebuilds = Rebuilds(database)
        record = rebuilds.get(rebuild_id)
        shown = _shown(record, rebuilds)
        ranges = list(rebuilds.ranges(record))
    document = {"verb": "show", "rebuild": json_value({**shown, "of_ranges": ranges})}
    voice.result(document, _details(shown, ranges))


def give_up(rebuild_id: str) -> None:
    """Abort one and say so."""
    settings = load_settings()
    with open_database(settings, "rebuild") as database:
        record = abort(database, settings, rebuild_id)
    document = {"verb": "abort", "rebuild": record["_id"], "state": record["state"]}
    voice.result(document, [f"Rebuild {record['_id']} is {record['state']}."])


def put_back(rebuild_id: str, *, yes: bool) -> None:
    """Roll one back and say so."""
    settings = load_settings()
    if not yes and not voice.as_json:
        typer.confirm(f"Put back what was before rebuild {rebuild_id}, in place of what it made?", abort=True)
    with open_database(settings, "shadow") as database:
        summary = roll_back(database, settings, rebuild_id)
    done = f"Rebuild {rebuild_id} is rolled back; {summary.rebuild.caught_up:,} documents caught up since."
    voice.result(summary.as_json(), [done, *(f"Warning: {plain(item)}" for item in summary.warnings)])


def _shown(record: Mapping[str, Any], rebuilds: Rebuilds) -> dict[str, Any]:
    done = sum(1 for _ in rebuilds.ranges(record, done=True))
    return {name: value for name, value in record.items() if name not in _TOKENS} | {"ranges_done": done}


def _table(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not found:
        yield "There was no full rebuild yet."
        return
    yield f"{'rebuild':<12}  {'state':<11}  {'strategy':<8}  {'begun (UTC)':<19}  {'ranges':>9}  read models"
    for item in found:
        ranges = f"{item['ranges_done']}/{item['ranges']}"
        begun = f"{item['started_at']:%Y-%m-%d %H:%M:%S}"
        models = ", ".join(plain(name) for name in item["read_models"])
        yield f"{item['_id']:<12}  {item['state']:<11}  {item['strategy']:<8}  {begun:<19}  {ranges:>9}  {models}"


def _details(shown: Mapping[str, Any], ranges: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for name, value in shown.items():
        if name not in ("kind", "counts"):
            yield f"{name.strip('_').replace('_', ' '):<16} {plain(str(value))}"
    for name, counts in (shown.get("counts") or {}).items():
        yield f"{name:<16} {', '.join(f'{number:,} {kind}' for kind, number in counts.items() if number)}"
    for item in ranges:
        left = "done" if item["done"] else f"left: {range_of(item).rest}"
        yield f"range {item['number']:<4} slice {item['slice']:<4} {item['events']:>12,} events  {plain(left)}"
