"""Key conflicts: documents that cannot be written because another document holds one of their unique keys.

Every holder is compared. A holder that will be deleted or gets another key releases the key, and any other keeps it.
Changes whose keys can be released are written in one transaction. The others are blocked, and so are changes that wait
for them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.events.stream import Reason
from readmodel_pipelines.projections.projection import Document
from readmodel_pipelines.reconcile.compare import same_value
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict, Why
from readmodel_pipelines.reconcile.recheck import Recheck


@dataclass(frozen=True, slots=True)
class Holder:
    """A document that holds the key of another change: its key, the fields of the index, whether it keeps the key."""

    key: Any
    index: tuple[str, ...]
    keeps: bool = False


@dataclass(slots=True)
class Tangle:
    """Changes that wait for one another: those that can be written together, and the holders that block the others.

    They are `tied` if any of them waits for another one; otherwise each can be written alone.
    """

    movable: list[Verdict] = field(default_factory=list)
    blocked: dict[Any, Holder] = field(default_factory=dict)
    tied: bool = False


def blocked_by(holders: Mapping[Any, Iterable[Any]], movable: Iterable[Any]) -> dict[Any, Any]:
    """The `movable` keys that cannot be written, each with the holder that blocks it.

    `holders` maps a key to the keys of the documents that hold its unique values. A holder that is not movable keeps
    its key, and so does a blocked one. A cycle of movable ones can be written.
    """
    free = set(movable)
    waiting: dict[Any, list[Any]] = {}
    blocked: dict[Any, Any] = {}
    for key, of_key in holders.items():
        for holder in of_key if key in free else ():
            waiting.setdefault(holder, []).append(key)
    staying = [holder for holder in waiting if holder not in free]
    while staying:
        holder = staying.pop()
        for key in waiting.get(holder, ()):
            if key not in blocked:
                blocked[key] = holder
                staying.append(key)
    return blocked


def untangle(
    again: Recheck, stuck: Sequence[Verdict], *, deleting: bool = True, taken: Mapping[bytes, Verdict] | None = None
) -> Tangle:
    """Follow the holders of the keys of the `stuck` changes, until no new one is found.

    Without `deleting`, an unwanted document stays and keeps its key. `taken` are claims of changes that will certainly
    be written.
    """
    changes = {node_of(change): change for change in stuck}
    asked_for = set(changes)
    looked_at = set(changes)
    held: dict[str, dict[str, Holder]] = {}
    frontier = list(stuck)
    while frontier:
        unknown: list[Document] = []
        for change, document, index in again.lane.model.holders(frontier):
            node = repr(document["_id"])
            held.setdefault(node_of(change), {})[node] = Holder(document.get(again.lane.projection.key), tuple(index))
            if node not in looked_at:
                looked_at.add(node)
                unknown.append(document)
        freeing = _free_up(again, unknown) if unknown else []
        frontier = [item for item in freeing if (deleting or item.expected) and node_of(item) not in changes]
        changes |= {node_of(change): change for change in frontier}
        looked_at |= changes.keys()
    for waiting, of_it in held.items():
        for node in [node for node in of_it if node in changes]:
            if keeps(changes[node], changes[waiting], of_it[node].index):
                # With its own name, because its holder may still move.
                of_it[f"{node} keeps it"] = replace(of_it.pop(node), keeps=True)
    blocked = blocked_by(held, changes)
    if rivals := _rivals(again, [change for node, change in changes.items() if node not in blocked], taken or {}):
        for waiting, of_it in rivals.items():
            held.setdefault(waiting, {}).update(of_it)
        blocked = blocked_by(held, changes)
    return Tangle(
        movable=[change for node, change in changes.items() if node not in blocked],
        blocked={changes[node].aggregate_id: held[node][by] for node, by in blocked.items() if node in asked_for},
        tied=not held.keys() <= blocked.keys(),
    )


def _rivals(again: Recheck, changes: Sequence[Verdict], taken: Mapping[bytes, Verdict]) -> dict[str, dict[str, Holder]]:
    """Of changes that claim the same key of a foreign index, the later ones, each with the first."""
    # A batch is written in this order: inserts before replacements.
    wanting = sorted((item for item in changes if item.expected is not None), key=lambda item: item.actual is not None)
    firsts = dict(taken)
    rivals: dict[str, dict[str, Holder]] = {}
    for change, claims in zip(wanting, again.lane.model.claims(wanting), strict=True):
        before = [(index, firsts[claim]) for index, claim in claims if claim in firsts]
        lost_to = [(index, first) for index, first in before if node_of(first) != node_of(change)]
        if not lost_to:
            firsts |= {claim: change for _, claim in claims}
        for index, first in lost_to:
            holder = Holder(first.aggregate_id, tuple(index), keeps=True)
            rivals.setdefault(node_of(change), {})[f"{node_of(first)} wants it"] = holder
    return rivals


def keeps(holder: Verdict, wanting: Verdict, index: Sequence[str]) -> bool:
    """Whether a holder that is changed itself will keep the same value, by its own events."""
    ours, theirs = wanting.expected or {}, holder.expected or {}
    if holder.expected is None or holder.aggregate_id == wanting.aggregate_id:
        return False
    return all(same_value(ours.get(name), theirs.get(name)) for name in index)


def node_of(change: Verdict) -> str:
    """The name of a change is the document that it changes; without unique indexes two can have one key."""
    return f"new {change.aggregate_id}" if change.actual is None else repr(change.actual["_id"])


def _free_up(again: Recheck, documents: Sequence[Document]) -> list[Verdict]:
    """The changes that correct these documents, including deletions; none for those that stay."""
    key = again.lane.projection.key
    plain = [document[key] for document in documents if is_plain(document.get(key))]
    odd = [document for document in documents if not is_plain(document.get(key))]
    verdicts = [*again.knowing_claims_of(plain).verdicts(plain), *again.odd_orphans(odd)]
    return [verdict for verdict in verdicts if verdict.outcome is not Outcome.MALFORMED]


def why_blocked(again: Recheck, key: Any, holder: Holder) -> tuple[str, str]:
    """Reason and detail. If a correct document holds the key by its own events, both streams are malformed."""
    index = f"of the unique index on {', '.join(holder.index)}"
    plain = is_plain(holder.key)
    shown = holder.key if plain else repr(holder.key)
    if holder.keeps or (plain and not again.knowing_claims_of([holder.key]).verdicts([holder.key])):
        return Reason.KEY_CONFLICT, f"{key} and {shown} claim the same key {index}"
    return Why.KEY_HELD, f"its key {index} is held by the document of {shown}, which this run may not change"
