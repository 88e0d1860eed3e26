"""Prints a summary: one JSON document, or a table of counts, the first findings and the next command."""

from collections.abc import Iterator
from typing import Any

from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.field_changes import in_words
from readmodel_pipelines.reconcile.finding import Finding
from readmodel_pipelines.reconcile.outages import in_words as cause_in_words
from readmodel_pipelines.reconcile.outages import sentence
from readmodel_pipelines.reconcile.outcome import Counts
from readmodel_pipelines.reconcile.shortened import how_long, part_of
from readmodel_pipelines.reconcile.summary import Summary, Verb
from readmodel_pipelines.wording import count, cut, cut_at_difference, one_line, span

SHOWN_FINDINGS = 20
_LONGEST_VALUE = 60
_ALWAYS_SHOWN = ("checked", "same")
_TITLES = {"verify": "Verification", "dry_run": "Dry run, nothing written", "rebuild": "Rebuild"}
_PREDICTIONS = {"inserted": "to insert", "replaced": "to replace", "deleted": "to delete"}
# A verification shows the expected value, then the stored one. A rebuild shows the stored value, then the new one.
_SIDES = {"verify": ("expected", "actual"), "dry_run": ("actual", "expected"), "rebuild": ("actual", "expected")}
_LEGENDS = {
    "verify": "expected value → stored value",
    "dry_run": "stored value → new value",
    "rebuild": "previous value → new value",
}
_NOT_DONE = {
    RebuildState.PAUSED: "The rebuild is not finished; run the same command with --resume.",
    RebuildState.BUILDING: "This slice is finished; other slices are not.",
    RebuildState.REFUSED: "The rebuild is not finished. The warning gives the reason and the remedy.",
}


def human_lines(
    summary: Summary, aggregate_id: str | None = None, *, shown_findings: int = SHOWN_FINDINGS
) -> Iterator[str]:
    """The summary as lines, ending with whether all is well and what to run next."""
    covers = f" of {summary.scope.coverage}" if summary.scope.coverage else ""
    yield f"{_TITLES[summary.verb]}{covers}: {summary.events:,} events read in {summary.seconds:,.2f} s"
    yield ""
    yield from _table(summary)
    if changed := in_words(summary.changes, _LONGEST_VALUE):
        yield ""
        yield from changed
    yield from _causes(summary)
    yield from _findings(summary, shown_findings, summary.verb)
    for warning in summary.warnings:
        yield ""
        yield f"Warning: {warning}"
    yield from _what_became(summary)
    yield ""
    yield _closing(summary, aggregate_id)


def counts_and_findings(summary: Summary) -> Iterator[str]:
    """The table of counts and the first findings of a verification that ends other work, if any."""
    if summary.findings:
        yield ""
        yield from _table(summary)
        yield from _findings(summary, SHOWN_FINDINGS, "verify")
        yield ""


def _what_became(summary: Summary) -> Iterator[str]:
    """The results of a verification besides findings, and the rebuilds."""
    lines = []
    scope = summary.scope
    for rebuild in summary.rebuilds:
        caught_up = f", {count(rebuild.caught_up, 'document')} updated in the catch-up" if rebuild.caught_up else ""
        of = f" of {' and '.join(rebuild.read_models)}" if len(summary.rebuilds) > 1 else ""
        if rebuild.id:
            lines.append(f"Rebuild {rebuild.id}{of} ({rebuild.strategy}) is {rebuild.state}{caught_up}.")
            if rebuild.strategy == "shadow" and rebuild.state is RebuildState.DONE:
                lines.append(
                    f"`readmodel rebuilds rollback {rebuild.id}` restores the documents from before, if "
                    "READMODEL_KEEP_COPY is on."
                )
    if closed := sum(summary.closed.values()):
        lines.append(f"{count(closed, 'earlier finding')} closed.")
    if summary.read_order:
        lines.append(summary.read_order)
    if scope.queued is not None:
        lines.append(
            f"{count(scope.queued, 'repair')} queued; {scope.pending_already:,} were already pending: `readmodel "
            "repair-queue stats`."
        )
    lines += [f"Report written: {file}" for file in scope.reports or ()]
    if lines:
        yield ""
        yield from lines


def _table(summary: Summary) -> Iterator[str]:
    columns = {name: counts.as_dict() for name, counts in summary.read_models.items()}
    rows = [
        row
        for row in next(iter(columns.values()), {})
        if row in _ALWAYS_SHOWN or any(counts[row] for counts in columns.values())
    ]
    labels = {row: _PREDICTIONS.get(row, row) if summary.verb == "dry_run" else row for row in rows}
    label_width = max(map(len, labels.values()), default=0)
    widths = {name: max(len(name), 10) for name in columns}
    yield " " * label_width + "".join(f"  {name:>{widths[name]}}" for name in columns)
    for row in rows:
        yield f"{labels[row]:<{label_width}}" + "".join(
            f"  {counts[row]:>{widths[name]},}" for name, counts in columns.items()
        )


def _causes(summary: Summary) -> Iterator[str]:
    """The causes, one sentence per read model."""
    said = {name: sentence(summary.outages, name) for name in summary.read_models} if summary.verb == "verify" else {}
    if any(said.values()):
        yield ""
        yield from (f"{name}: {one_line(words)}" for name, words in said.items() if words)


def _findings(summary: Summary, most: int, shown_as: Verb) -> Iterator[str]:
    shown = summary.first_findings(most)
    if not shown:
        return
    yield ""
    sides = _SIDES[shown_as]
    if any(finding.fields for finding in shown):
        yield f"Fields are shown as {_LEGENDS[shown_as]}:"
    for finding in shown:
        yield from _finding_lines(finding, sides)
    found = sum(counts.discrepancies for counts in summary.read_models.values())
    if found > len(shown):
        where = "--json or --report FILE has" if summary.verb == "verify" else "--json has"
        capped = f" the first {len(summary.findings):,} (--max-findings)" if found > len(summary.findings) else " them"
        yield f"… and {found - len(shown):,} more; {where}{capped}."


def _finding_lines(finding: Finding, sides: tuple[str, str]) -> Iterator[str]:
    shown = finding.as_json()
    aggregate_id = shown["aggregate_id"]
    name = aggregate_id if isinstance(aggregate_id, str) else cut(_text(aggregate_id), _LONGEST_VALUE)
    reason = f" ({shown['reason']})" if shown["reason"] else ""
    detail = f": {shown['detail']}" if shown.get("detail") else ""
    ago = finding.age_seconds
    age = "" if ago is None else f", first seen {f'{span(ago)} ago' if ago >= 60 else 'just now'}"
    yield f"{finding.read_model}  {name}  {shown['outcome']}{reason}{detail}{age}"
    if finding.cause is not None:
        yield f"    why: {one_line(cause_in_words(finding.cause))}"
    for field, pair in shown["fields"].items():
        values = cut_at_difference(_text(pair[sides[0]]), _text(pair[sides[1]]), _LONGEST_VALUE)
        told = (value + how_long(pair[side]) for value, side in zip(values, sides, strict=True))
        yield f"    {field}: {' → '.join(told)}"


def _text(value: Any) -> str:
    return "(absent)" if value == {"$absent": True} else part_of(value)


def _closing(summary: Summary, aggregate_id: str | None) -> str:
    what = f"--type {summary.aggregate_type} " + (f"--id {aggregate_id}" if aggregate_id else "--all")
    total = Counts()
    for counts in summary.read_models.values():
        total.add(counts)
    written = total.written
    match summary.verb:
        case "verify":
            return _closing_of_verify(summary, total, what)
        case "dry_run":
            if summary.ok and not written:
                return "All is well: a rebuild would write nothing."
            deleting = f", {total.deleted:,} of them deletions" if total.deleted else ""
            would = (
                f"A rebuild would write {count(written, 'document')}{deleting}: `readmodel rebuild-readmodel {what}`."
            )
            return would if summary.ok else f"{would} {_not_done(total)}"
        case "rebuild":
            if summary.rebuild.state in _NOT_DONE:
                return _NOT_DONE[summary.rebuild.state]
            done = f"{count(written, 'document')} written."
            if not summary.ok:
                return f"{done} {_not_done(total)}"
            closes = "" if aggregate_id else " and closes its findings"
            if not written:
                return "All is well: no document had to be written."
            return f"All is well: {done} `readmodel verify-consistency {what}` verifies the result{closes}."


def _closing_of_verify(summary: Summary, total: Counts, what: str) -> str:
    ignored = summary.ignored.total()
    told = (
        f" {count(ignored, 'more is', 'more are')} ignored; `readmodel findings list` shows the rules."
        if ignored
        else ""
    )
    return f"{_found_or_not(summary, total, what)}{told}"


def _found_or_not(summary: Summary, total: Counts, what: str) -> str:
    if not total.discrepancies:
        said = "All is well" if summary.looked_at_all else "No discrepancy was found"
        return f"{said}: {summary.agreement}."
    found = f"{count(total.discrepancies, 'discrepancy', 'discrepancies')} found."
    mends = total.discrepancies - total.malformed
    deletions = total.unexpected + total.orphan
    of_them = f", {deletions:,} of them by deleting a document" if deletions else ""
    mending = (
        f"`readmodel rebuild-readmodel {what}` repairs {mends:,}{of_them} (--dry-run shows the changes)."
        if mends
        else ""
    )
    return " ".join(filter(None, (found, mending, _mistrusted(total))))


def _not_done(total: Counts) -> str:
    failed = f"{count(total.failed, 'aggregate')} could not be rebuilt; the findings and warnings give the reasons."
    return " ".join(filter(None, (_mistrusted(total), failed if total.failed else "")))


def _mistrusted(total: Counts) -> str:
    streams = count(total.malformed, "malformed stream")
    said = f"{streams}: their documents are left unchanged. Correct their events first."
    return said if total.malformed else ""
