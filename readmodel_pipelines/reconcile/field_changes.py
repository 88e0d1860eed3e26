"""What a dry run would change, field by field: in the documents that are stored, and by a new projection alone.

A few numbers and examples for each field, however many documents there are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bson.json_util import CANONICAL_JSON_OPTIONS

from readmodel_pipelines.errors import FAULTS
from readmodel_pipelines.projections.projection import Document, Projection
from readmodel_pipelines.reconcile.compare import differing_fields
from readmodel_pipelines.reconcile.shortened import in_json, in_text, shortened
from readmodel_pipelines.wording import cut_where_they_part

EXAMPLES = 3
"""Of each field, those that were met first."""


@dataclass(frozen=True, slots=True)
class Example:
    """One document in which a field changes; long values are `Shortened`."""

    aggregate_id: Any
    before: Any
    after: Any

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types; values that differ by BSON type alone in the canonical form."""
        before, after = in_json(self.before), in_json(self.after)
        if before == after:
            before, after = (in_json(value, CANONICAL_JSON_OPTIONS) for value in (self.before, self.after))
        return {"aggregate_id": in_json(self.aggregate_id), "before": before, "after": after}


@dataclass(slots=True)
class ByField:
    """How many documents change, and in which fields how many, with examples."""

    documents: int = 0
    fields: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[Example]] = field(default_factory=dict)

    def count(self, aggregate_id: Any, before: Document, after: Document) -> None:
        """Count a document that may change; what is only in one of both has changed, `_id` is not looked at."""
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
    """Of one read model: `stored` counts against what is there, `projected` against what the projection made before.

    `made_with` is the schema version that the read model was last rebuilt with, None where that is not on record.
    `projected` is None of a projection that does not say what it made before: it has no `earlier`.
    """

    schema_version: int = 1
    made_with: int | None = None
    stored: ByField = field(default_factory=ByField)
    projected: ByField | None = None

    @property
    def is_of_another_schema(self) -> bool:
        """Whether the read model is known to be made with another schema version."""
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
        """The projection, with each document that it makes compared with what it made before: once an aggregate.

        Aggregates come in order; one that is looked at again comes at once.
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
                    # It is of the past, and decides nothing.
                    return made
                if before is not None or made is not None:
                    projected.count(aggregate_id, before or {}, made or {})
            return made

        return replace(projection, document=document)


def in_words(changes: Mapping[str, FieldChanges], longest: int) -> list[str]:
    """For each read model in which something changes a heading, and a line for each field with an example."""
    lines: list[str] = []
    for name, change in changes.items():
        made_with = f" (made with schema version {change.made_with}, the projection is of {change.schema_version})"
        about = made_with if change.is_of_another_schema else ""
        if change.stored.fields:
            lines += [f"{name}{about}: a rebuild changes, by field:", *_lines(change.stored, longest)]
        if change.projected is not None:
            what = f"{name}: of that, by the change of the projection alone"
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
        before, after = cut_where_they_part(in_text(told["before"]), in_text(told["after"]), longest)
        lines.append(f"    {name:<{width}}  {number:>{digits},}  such as {told['aggregate_id']}: {before} → {after}")
    return lines
