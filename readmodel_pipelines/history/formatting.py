"""Formats a history: its events and its end as plain JSON types, and as lines for people."""

from collections.abc import Iterator
from typing import Any

from bson.json_util import CANONICAL_JSON_OPTIONS

from readmodel_pipelines.history.history import History, StoredState
from readmodel_pipelines.history.steps import Step
from readmodel_pipelines.reconcile.compare import ABSENT
from readmodel_pipelines.reconcile.extended_json import json_text, json_value
from readmodel_pipelines.reconcile.outcome import Outcome
from readmodel_pipelines.reconcile.shortened import how_long, in_json, in_text, shortened_pairs
from readmodel_pipelines.wording import count, cut, cut_at_difference, one_line

_LONGEST = 60
_FEW = 3
"""Up to this many changed elements of a list are shown one by one."""


def step_as_json(step: Step) -> dict[str, Any]:
    """One item of `events`."""
    return {
        "version": step.version,
        "event_type": in_json(step.event["event_type"]),
        "occurred_at": occurred_at(step.event.get("occurred_at")),
        "changed": {
            name: {field: _pair(*pair) for field, pair in shortened_pairs(changes).items()}
            for name, changes in step.changed.items()
        },
    }


def end_as_json(history: History) -> dict[str, Any]:
    """The part of the document after the events."""
    models = history.read_models
    told: dict[str, Any] = {
        "blame": {
            name: {field: {"version": by.version, "event_type": by.event_type} for field, by in item.blame.items()}
            for name, item in models.items()
        },
        "stored": {name: _stored(item) for name, item in models.items()},
        "at": {"version": history.version, "occurred_at": occurred_at(history.occurred_at)},
        "documents": {name: json_value(item.document) for name, item in models.items()},
        "last_version": history.last_version,
    }
    if why := history.malformed:
        about = {"reason": str(why.reason), "detail": why.detail}
        told["malformed"] = {**about, "version": in_json(why.version), "event_id": in_json(why.event_id)}
    return told


def occurred_at(value: Any) -> str | None:
    """The time of an event as text; None if it has none."""
    return None if value is None else json_text(value)


def lines_of_step(step: Step, *, several: bool) -> Iterator[str]:
    """A line for the event and one for each changed field; with `several` read models each is named."""
    yield f"{step.version:>6}  {occurred_at(step.event.get('occurred_at')) or '-':<24}  {step.event['event_type']}"
    for name, changes in step.changed.items():
        of = f"{name}  " if several else ""
        if name in step.removed:
            yield f"        {of}the document is removed"
            continue
        came = all(before is ABSENT for before, _ in changes.values())
        for field, (before, after) in changes.items():
            # A version that counts the events adds no information.
            if field != "version" or after != step.version:
                yield f"        {of}{field}: {value_in_words(after) if came else change_in_words(before, after)}"


def lines_of_end(history: History, what: str, *, whole: bool) -> Iterator[str]:
    """The reason of an early end, the document with the last change of each field, and the stored one's state."""
    if history.malformed is not None:
        yield ""
        yield from malformed_in_words(history)
    several = len(history.read_models) > 1
    for name, item in history.read_models.items():
        yield ""
        yield f"{name} at version {history.version}:" if several or not whole else f"At version {history.version}:"
        yield from _document_with_blame(item)
    yield ""
    yield from stored_in_words(history, what)


def malformed_in_words(history: History) -> Iterator[str]:
    """For a malformed stream: its first offending event."""
    if (why := history.malformed) is not None:
        at = "" if why.version is None else f" at version {json_text(why.version)}"
        event = "" if why.event_id is None else f", event {json_text(why.event_id)}"
        yield f"The history ends here, because the stream is malformed{at}{event}: {why.reason}: {why.detail}."
        yield "Later events are not read. The document stays as it is until its events are corrected."


def stored_in_words(history: History, what: str) -> Iterator[str]:
    """The version that each stored document equals, its differences, and the command that repairs `what`."""
    for name, item in history.read_models.items():
        yield f"Stored in {name}: {_stored_in_words(item, history)}"
        fields = item.finding.as_json()["fields"] if item.finding else {}
        for field, pair in fields.items():
            yield f"        {field}: stored {_told(pair['actual'])}, expected {_told(pair['expected'])}"
    if any(item.outcome not in (Outcome.SAME, Outcome.MALFORMED) for item in history.read_models.values()):
        yield f"`readmodel rebuild-readmodel {what}` repairs it (--dry-run shows the changes)."


def rows_of_step(step: Step, longest: int) -> Iterator[dict[str, Any]]:
    """A row for each field that the event changed; one row if it changed none."""
    about = {
        "version": step.version,
        "occurred_at": occurred_at(step.event.get("occurred_at")) or "",
        "event_type": one_line(cut(str(step.event["event_type"]), longest)),
    }
    changed = [(name, field, pair) for name, changes in step.changed.items() for field, pair in changes.items()]
    if not changed:
        yield {**about, "read_model": "", "field": "", "before": "", "after": ""}
    for name, field, pair in changed:
        before, after = cut_at_difference(_whole_text(pair[0]), _whole_text(pair[1]), longest)
        yield {**about, "read_model": name, "field": field, "before": one_line(before), "after": one_line(after)}


def change_in_words(before: Any, after: Any) -> str:
    """The change of one field: added and removed elements of a list, else before and after."""
    if type(before) is list and type(after) is list:
        went, came = _parted(before, after)
        if 0 < len(went) + len(came) <= _FEW:
            parts = [("-", item) for item in went] + [("+", item) for item in came]
            return ", ".join(f"{sign} {value_in_words(item)}" for sign, item in parts)
    pair = shortened_pairs({"": (before, after)})[""]
    told = [in_json(value) for value in pair]
    if told[0] == told[1]:
        told = [in_json(value, CANONICAL_JSON_OPTIONS) for value in pair]
    texts = cut_at_difference(in_text(told[0]), in_text(told[1]), _LONGEST)
    return " → ".join(text + how_long(value) for text, value in zip(texts, told, strict=True))


def value_in_words(value: Any) -> str:
    """One value, shortened."""
    return cut(_whole_text(value), _LONGEST)


def _document_with_blame(item: StoredState) -> Iterator[str]:
    document = item.document or {}
    names = list(dict.fromkeys((*document, *item.blame)))
    if not names or not (document or item.blame):
        yield "        there is no document"
        return
    if item.document is None:
        yield "        the document was removed"
    width = max(map(len, names))
    for name in names:
        by = item.blame.get(name)
        since = f"  (version {by.version:,}, {by.event_type})" if by else ""
        value = value_in_words(document.get(name, ABSENT)) if item.document is not None else ""
        yield f"        {name:<{width}}  {value}{since}"


def _stored_in_words(item: StoredState, history: History) -> str:
    at, last = item.at_version, history.last_version
    match item.outcome:
        case Outcome.SAME:
            return "matches the events." if item.finding is None else "several documents, of which the first is right."
        case Outcome.MALFORMED:
            reason = "" if item.finding is None else f" ({item.finding.reason})"
            if at is None:
                return f"equals no version of the stream before its first malformed event{reason}."
            return f"equals version {at:,} of the stream, before its first malformed event{reason}."
        case Outcome.ORPHAN:
            return "a document without any event."
        case _:
            pass
    if at is None:
        return f"{item.outcome}, and equals no version of the stream."
    if at == last:
        return f"{item.outcome}, although it equals the last version of the stream."
    moment = f"it equals version {at:,} of the stream" if at else "it equals the state before the first event"
    return f"{item.outcome}: {moment}. It lacks {count(last - at, 'event')}, from version {at + 1:,} on."


def _stored(item: StoredState) -> dict[str, Any]:
    told: dict[str, Any] = {"outcome": item.outcome.value, "at_version": item.at_version}
    if item.finding is not None:
        of_finding = item.finding.as_json()
        told |= {name: of_finding[name] for name in ("reason", "detail", "fields") if of_finding.get(name)}
    return told


def _pair(before: Any, after: Any) -> dict[str, Any]:
    pair = {"before": in_json(before), "after": in_json(after)}
    if pair["before"] == pair["after"]:
        # They differ only in BSON type, which only the canonical form shows.
        options = CANONICAL_JSON_OPTIONS
        pair = {"before": in_json(before, options), "after": in_json(after, options)}
    return pair


def _parted(before: list[Any], after: list[Any]) -> tuple[list[Any], list[Any]]:
    """The removed and the added elements, between the common beginning and end."""
    start, end, most = 0, 0, min(len(before), len(after))
    while start < most and before[start] == after[start]:
        start += 1
    while end < most - start and before[-1 - end] == after[-1 - end]:
        end += 1
    return before[start : len(before) - end], after[start : len(after) - end]


def _whole_text(value: Any) -> str:
    return _told(in_json(shortened_pairs({"": (value, ABSENT)})[""][0]))


def _told(told: Any) -> str:
    return in_text(told) + how_long(told)
