"""`findings …`: lists open findings, and rules that ignore known ones until a date."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from readmodel_pipelines.cli.terminal.command import command, opened
from readmodel_pipelines.cli.terminal.help import group
from readmodel_pipelines.cli.terminal.options import ReadModelName
from readmodel_pipelines.cli.terminal.voice import voice
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.wording import count, cut, moment

if TYPE_CHECKING:
    from readmodel_pipelines.bookkeeping.ignored import Rule
    from readmodel_pipelines.settings import Settings

_MOST_LISTED = 10_000
_LONGEST = 120

app = group(
    "findings",
    "List open findings; ignore known ones until a date.\n\n`verify-consistency --all` opens and closes findings.",
)


@command(app, "list", "List open findings, and rules of ignored ones.")
def list_findings(
    read_model: ReadModelName = "all",
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, max=_MOST_LISTED, help="Maximum number of findings of a read model.")
    ] = 50,
) -> None:
    """List open findings, the oldest first, and the rules of ignored ones. Writes nothing."""
    from readmodel_pipelines.bookkeeping.ignored import Ignored
    from readmodel_pipelines.bookkeeping.verifications import Findings
    from readmodel_pipelines.reconcile.extended_json import json_value

    found: list[dict[str, Any]] = []
    more = False
    with opened("read_only") as (database, settings):
        for name in _read_models(settings, read_model):
            these = Findings(database).listed(name, limit + 1)
            more = more or len(these) > limit
            found += these[:limit]
        rules = Ignored(database).listed()
    document = {
        "verb": "list",
        "findings": [json_value(item) for item in found],
        "more": more,
        "ignored": [rule.as_json() | {"in_force": in_force} for rule, in_force in rules],
    }
    voice.result(document, _lines(found, more, rules))


@command(app, "ignore", "Ignore an aggregate or a field until a date.")
def ignore(
    read_model: ReadModelName,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Reason, shown with the rule.")],
    until: Annotated[str, typer.Option(metavar="DATE", help="End of the rule, such as 2026-12-31, midnight UTC.")],
    aggregate_id: Annotated[
        str | None, typer.Option("--id", metavar="UUID", help="Only this aggregate.", show_default=False)
    ] = None,
    field: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only documents in which this field alone differs.", show_default=False),
    ] = None,
) -> None:
    """Ignore findings of an aggregate, of a field, or of a field of an aggregate, until a date.

    Verifications count ignored findings apart. They are no discrepancies, are not remembered, and queue no repair. A
    malformed stream is never ignored. A rebuild ignores no finding.
    """
    from readmodel_pipelines.bookkeeping.ignored import Ignored

    end = _end(until)
    with opened("verify") as (database, settings):
        names = _read_models(settings, read_model, field)
        made = [Ignored(database).add(name, _as_events_have_it(aggregate_id), field, reason, end) for name in names]
    lines = [f"{_told(rule)} is ignored until {moment(rule.until)}: rule {rule.id}." for rule in made]
    voice.result({"verb": "ignore", "ignored": [rule.as_json() for rule in made]}, lines)


@command(app, "unignore", "Remove a rule before its end.")
def unignore(
    rule_id: Annotated[str, typer.Argument(metavar="RULE", help="Its id, from `readmodel findings list`.")],
) -> None:
    """Remove a rule before its end. The next verification reports its findings again."""
    from readmodel_pipelines.bookkeeping.ignored import Ignored

    with opened("verify") as (database, _):
        Ignored(database).remove(rule_id)
    voice.result({"verb": "unignore", "rule": rule_id}, [f"Rule {rule_id} is removed."])


def _read_models(settings: Settings, name: str, field: str | None = None) -> list[str]:
    """The read models named by `--type`; only those that own the `field`, if one is given.

    Raises:
        UsageError: there is no such read model, or none of them owns that field.
    """
    from readmodel_pipelines.projections.names import ALL
    from readmodel_pipelines.projections.registry import choose_projections

    chosen = choose_projections(settings, [] if name == ALL else [name])
    of_field = [item.read_model for item in chosen if field is None or field in item.owned]
    if not of_field:
        owned = sorted({owned for item in chosen for owned in item.owned})
        raise UsageError(
            f"No projection owns a field {cut(str(field), _LONGEST)!r}.", hint=f"Fields: {', '.join(owned)}."
        )
    return of_field


def _as_events_have_it(aggregate_id: str | None) -> str | None:
    """A UUID in lower case; any other text unchanged, because findings can have such ids."""
    from readmodel_pipelines.events.ids import UUID

    lowered = aggregate_id.strip().lower() if aggregate_id is not None else ""
    return lowered if UUID.fullmatch(lowered) else aggregate_id


def _end(text: str) -> datetime:
    """The end of a rule, as it is stored."""
    try:
        end = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{cut(text, _LONGEST)!r} is no date.", hint="Give a date like 2026-12-31.") from None
    return (end if end.tzinfo is None else end.astimezone(UTC)).replace(tzinfo=None)


def _told(rule: Rule) -> str:
    parts = [
        f"the field {rule.field}" if rule.field else "",
        f"aggregate {rule.aggregate_id}" if rule.aggregate_id else "",
    ]
    return f"{rule.read_model}: {' of '.join(filter(None, parts))}"


def _lines(found: Sequence[Mapping[str, Any]], more: bool, rules: Sequence[tuple[Rule, bool]]) -> Iterator[str]:
    for item in found:
        fields = ", ".join(map(str, item.get("fields") or ()))
        why = f" ({item['cause']})" if item.get("cause") else f" ({item['reason']})" if item.get("reason") else ""
        yield (
            f"{item['read_model']}  {cut(str(item['aggregate_id']), _LONGEST)}  {item['outcome']}{why}"
            f"{f': {cut(fields, _LONGEST)}' if fields else ''}, first seen {moment(item.get('first_seen'))}"
        )
    yield "… and more; --limit shows them." if more else f"{count(len(found), 'open finding')}."
    if found:
        yield (
            "`readmodel verify-consistency --type all --all --since last` compares these again, and closes those that "
            "were repaired."
        )
    for rule, in_force in rules:
        ends = f"until {moment(rule.until)}" if in_force else f"no longer, since {moment(rule.until)}"
        yield f"ignored  {rule.id}  {_told(rule)}, {ends}: {rule.reason}"
