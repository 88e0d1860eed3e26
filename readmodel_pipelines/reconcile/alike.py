"""Events of one stream that are alike: if one of them was lost, it is unknown which one."""

from collections.abc import Collection, Mapping
from typing import Any

from readmodel_pipelines.events.stream import Fold
from readmodel_pipelines.events.values import Event
from readmodel_pipelines.reconcile.past import FieldPast, Past


class Alike:
    """Compares events by the values that the fold reads from them; `past` comes from a finished walk."""

    def __init__(self, fold: Fold[Any], past: Past, fields: Mapping[str, FieldPast]) -> None:
        self._fold = fold
        self._past = past
        self._fields = fields

    def just_like(self, event: Event, but: Collection[int]) -> list[Event]:
        """Other events of the same type with the same values for the fold."""
        return [
            other
            for other in self._past.recent.get(event["event_type"], ())
            if int(other["version"]) not in but and self._read(other) == self._read(event)
        ]

    def about_the_same(self, event: Event) -> list[Event]:
        """Other events that may have reverted the effect of this one on a list.

        Events of another type count only if they come later, because earlier ones cannot hide that it was applied.
        """
        of_lists = {kind for item in self._fields.values() if isinstance(item.value, list) for kind in item.types}
        kind, read, texts = event["event_type"], self._read(event), self._texts(event)
        return [
            other
            for other in self._past.of_types(of_lists if kind in of_lists else ())
            if other is not event
            and (
                self._read(other) == read
                if other["event_type"] == kind
                else other["version"] > event["version"] and texts & self._texts(other)
            )
        ]

    def _read(self, event: Event) -> list[Any]:
        """The values that the fold reads from an event; none if its type is unknown."""
        known = self._fold.events.get(event["event_type"])
        return [event["data"].get(name) for name in known.fields] if known else []

    def _texts(self, event: Event) -> set[str]:
        return {value for value in self._read(event) if type(value) is str and value}
