"""The changes that a dry run predicts, by field: against the stored documents, and by a new projection alone.

It keeps a few numbers and examples per field, however many documents there are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bson.json_util import CANONICAL_JSON_OPTIONS

from readmodel_pipelines.errors import FAULTS
from readmodel_pipelines.projections.projection import Document, Projection
from readmodel_pipelines.reconcile.compare import differing_fields
from readmodel_pipelines.reconcile.shortened import in_json, in_text, shortened
from readmodel_pipelines.wording import cut_at_difference

EXAMPLES = 3
"""Maximum number of examples per field; the first are kept."""


@dataclass(frozen=True, slots=True)
class Example:
    """One document in which a field changes; long values are `Shortened`."""

    aggregate_id: Any
    before: Any
    after: Any

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types; values that differ only in BSON type in the canonical form."""
        before, after = in_json(self.before), in_json(self.after)
        if before == after:
            before, after = (in_json(value, CANONICAL_JSON_OPTIONS) for value in (self.before, self.after))
        return {"aggregate_id": in_json(self.aggregate_id), "before": before, "after": after}


@dataclass(slots=True)
class ByField:
    """The number of documents that change, in total and by field, with examples."""

    documents: int = 0
    fields: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[Example]] = field(default_factory=dict)

    def count(self, aggregate_id: Any, before: Document, after: Document) -> None:
        """Count a document that may change; a field of only one side has changed, and `_id` is ignored."""
        changed = differing_fields(after, before)
        self.documents += bool(changed)
        for name, (new, old) in changed.items():
            self.fields[name] = self.fields.get(name, 0) + 1
            examples = self.examples.setdefault(name, [])
            if len(examples) < EXAMPLES:
                examples.append(Example(shortened(aggregate_id), shortened(old), shortened(new)))

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types, the field that changes in most documents first."""
        return {
            "documents": self.documents,
            "fields": {
                name: {"documents": number, "examples": [item.as_json() for item in self.examples[name]]}
                for name, number in self.largest_first()
            },
        }

    def largest_first(self) -> list[tuple[str, int]]:
        """Fields with the number of documents in which they change."""
        return sorted(self.fields.items(), key=lambda item: (-item[1], item[0]))


@dataclass(slots=True)
class FieldChanges:
    """Of one read model: `stored` counts changes of stored documents, `projected` those against the previous
    projection.

    `made_with` is the schema version of the last rebuild, None if unknown. `projected` is None if the projection has no
    `earlier`.
    """

    schema_version: int = 1
    made_with: int | None = None
    stored: ByField = field(default_factory=ByField)
    projected: ByField | None = None

    @property
    def is_of_another_schema(self) -> bool:
        """Whether the read model was certainly made with another schema version."""
        return self.made_with not in (None, self.schema_version)

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "schema_version": self.schema_version,
            "made_with": self.made_with,
            "stored": self.stored.as_json(),
            "projected": None if self.projected is None else self.projected.as_json(),
        }

    def watching(self, projection: Projection) -> Projection:
        """The projection; each document that it makes is compared with that of `earlier`, once per aggregate.

        Aggregates come in order; a recheck of one follows immediately.
        """
        make, earlier = projection.document, projection.earlier
        if earlier is None:
            return projection
        projected = self.projected = ByField()
        last: str | None = None

        def document(aggregate_id: str, state: Any) -> Document | None:
            nonlocal last
            made = make(aggregate_id, state)
            if aggregate_id != last:
                last = aggregate_id
                try:
                    before = earlier(aggregate_id, state)
                except FAULTS:
                    # The previous document decides nothing.
                    return made
                if before is not None or made is not None:
                    projected.count(aggregate_id, before or {}, made or {})
            return made

        return replace(projection, document=document)


def in_words(changes: Mapping[str, FieldChanges], longest: int) -> list[str]:
    """For each read model with changes, a heading and one line per field with an example."""
    lines: list[str] = []
    for name, change in changes.items():
        made_with = f" (made with schema version {change.made_with}, the projection has {change.schema_version})"
        about = made_with if change.is_of_another_schema else ""
        if change.stored.fields:
            lines += [f"{name}{about}: a rebuild changes these fields:", *_lines(change.stored, longest)]
        if change.projected is not None:
            what = f"{name}: changes caused by the projection alone"
            lines += (
                [f"{what}:", *_lines(change.projected, longest)] if change.projected.fields else [f"{what}: nothing."]
            )
    return lines


def _lines(changed: ByField, longest: int) -> list[str]:
    rows = changed.largest_first()
    width, digits = max(len(name) for name, _ in rows), len(f"{rows[0][1]:,}")
    lines = []
    for name, number in rows:
        example = changed.examples[name][0]
        told = example.as_json()
        before, after = cut_at_difference(in_text(told["before"]), in_text(told["after"]), longest)
        lines.append(f"    {name:<{width}}  {number:>{digits},}  e.g. {told['aggregate_id']}: {before} → {after}")
    return lines
