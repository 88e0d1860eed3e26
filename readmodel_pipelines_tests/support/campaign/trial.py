"""A trial: one seed's streams and damage in a database, and how what verbs say and leave is held against `judge`.

A disagreement says the seed, the verb, the stream and both values; `replay` plays it again, and makes it smaller.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Any

import bson
import pymongo.collection
from bson.raw_bson import RawBSONDocument

from readmodel_pipelines.events.ids import is_aggregate_id, is_plain
from readmodel_pipelines.mongo.driver import duplicates_allowed
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support import oracle, stored_values
from readmodel_pipelines_tests.support.campaign import judge
from readmodel_pipelines_tests.support.campaign.damages import Damages
from readmodel_pipelines_tests.support.campaign.judge import KEYS, Finding, Judgement, Stored
from readmodel_pipelines_tests.support.grammar import Grammar, Stream
from readmodel_pipelines_tests.support.oracle import Expected
from readmodel_pipelines_tests.support.scene import RAW, Mongo
from readmodel_pipelines_tests.support.stored_values import Value

Document = Mapping[str, Value]
Streams = Mapping[tuple[str, Value], Sequence[Document]]
"""Events in order, by the stream's type and id."""

Broken = Mapping[str, Sequence[Stored]]
"""Documents by read model, in order of their `_id`."""

SIMPLE = {"locale": "simple"}
COUNTS = ("inserted", "replaced", "deleted", "failed")


class Disagreement(AssertionError):
    """This project says one thing and the second implementation another."""


@dataclass
class Trial:
    """One seed's streams in a database of their own, and what the second implementation says of them.

    Tasks of even seeds are made from chats, those of odd ones from task streams. Of every fifth seed the collections
    have a collation, of every fifth no unique index. `only` are the numbers of the streams to take, all without; `slow`
    says of how many streams each event is a step of its own, and `every` how many ids there are for one that is mended
    alone.
    """

    database: Mongo
    settings: Settings
    seed: int
    number: int
    slow: int = 20
    every: int = 1
    only: frozenset[int] | None = None
    streams: list[Stream] = field(init=False)

    def __post_init__(self) -> None:
        share = self.number // 2 if self.legacy else self.number
        made = list(Grammar(self.seed).streams(share, "Chat"))
        made += Grammar(self.seed + 1_000_000).streams(self.number - share, "Task")
        self.streams = [item for place, item in enumerate(made) if self.only is None or place in self.only]
        self.settings = self.settings.model_copy(
            update={
                "task_source": "task" if self.legacy else "chat",
                "allow_malformed": self.allowed,
                "max_delete_share": 1.0,
                "workers": 2,
                "grace_seconds": 0.0,
            }
        )
        if self.seed % 5 == 2:
            for name in (self.settings.events_collection, *KEYS):
                self.database.create_collection(name, collation={"locale": "en", "strength": 2})
        self.events.create_index([("aggregate_id", 1), ("version", 1)], collation=SIMPLE)
        for read_model, names in self.unique.items():
            for name in names:
                self.raw(read_model).create_index(name, unique=True, collation=SIMPLE)

    @property
    def legacy(self) -> bool:
        return self.seed % 2 == 1

    @property
    def allowed(self) -> frozenset[str]:
        """Kinds of malformed streams that are folded here."""
        kinds = ("unknown_event_type", "version_gap")
        return frozenset(name for number, name in enumerate(kinds, 1) if self.seed >> number & 1)

    @property
    def unique(self) -> judge.Unique:
        """The fields that an index keeps unique; of every fifth seed none is."""
        return dict.fromkeys(KEYS, ()) if self.seed % 5 == 3 else judge.UNIQUE

    def mended(
        self, broken: Broken, found: Mapping[str, Sequence[Finding]], asked: Collection[Value] | None = None
    ) -> dict[str, Judgement]:
        """What both read models hold when everything, or what is asked for, is mended."""
        return {name: judge.mended(documents, found[name], asked, self.unique) for name, documents in broken.items()}

    @cached_property
    def events(self) -> pymongo.collection.Collection[Any]:
        return self.raw(self.settings.events_collection)

    def raw(self, name: str) -> pymongo.collection.Collection[Any]:
        return self.database.get_collection(name, codec_options=RAW)

    def projector(self) -> ReadModelProjector:
        return ReadModelProjector(self.database, self.settings, max_findings=100_000)

    # What the second implementation says

    @cached_property
    def by_id(self) -> Streams:
        return by_id(self.streams)

    @cached_property
    def wanted(self) -> dict[str, dict[Value, Expected]]:
        """By read model and stream what there ought to be."""
        return self.wanted_by(self.by_id)

    def wanted_by(self, streams: Streams) -> dict[str, dict[Value, Expected]]:
        """By read model and stream what there ought to be if these are all."""
        return wanted(streams, self.allowed, legacy=self.legacy)

    def wanted_of(self, of: tuple[str, Value], streams: Streams) -> dict[str, Expected]:
        """By read model what one stream wants beside these others."""
        others = streams if of[0] == "Task" else {of: streams[of]}
        others = {key: stored_values.in_order(events) for key, events in others.items()}
        return {name: items[of[1]] for name, items in self.wanted_by(others).items() if of[1] in items}

    def earlier(self, read_model: str) -> Callable[[Value], Document | None]:
        kind = "Task" if self.legacy and read_model == "tasks_read_model" else "Chat"

        def of(key: Value) -> Document | None:
            events = self.by_id[kind, key]
            length = Random(f"{self.seed} {key}").randrange(len(events) + 1)
            return oracle.expected(key, events[:length], kind, self.allowed)[read_model].document if length else None

        return of

    def ids(self, broken: Broken) -> list[Value]:
        """The aggregates that somebody can ask for: of these streams and documents."""
        streams = [key for streams in self.wanted.values() for key in streams]
        documents = [item.key for documents in broken.values() for item in documents]
        return sorted({key for key in streams + documents if _is_plain(key)})

    # The database

    def add_events(self) -> None:
        events = [RawBSONDocument(event) for stream in self.streams for event in stream.events]
        if events:
            self.events.insert_many(events)

    def stored(self, read_model: str) -> list[Stored]:
        return [Stored(read_model, bytes(document.raw)) for document in self.raw(read_model).find().sort("_id")]

    def break_everything(self) -> Broken:
        """Both read models filled and broken; gives what lies there now."""
        for read_model, streams in self.wanted.items():
            made = Damages(self.seed).of(read_model, streams, self.earlier(read_model))
            _insert_what_fits(self.raw(read_model), made)
        return {read_model: self.stored(read_model) for read_model in KEYS}

    def empty(self) -> None:
        """Neither events nor documents."""
        for name in (self.settings.events_collection, *KEYS):
            self.raw(name).delete_many({})

    def owned(self, read_model: str, key: Value) -> Document | None:
        """The document of a key as it is now; None where there is none."""
        found = self.raw(read_model).find_one({KEYS[read_model]: key.value})
        return None if found is None else Stored(read_model, bytes(found.raw)).owned

    def some(self, streams: Sequence[Stream]) -> list[Stream]:
        """A few of these streams, for what takes long: those that can be asked for."""
        kinds = ("Chat", "Task") if self.legacy else ("Chat",)
        named = [item for item in streams if _is_plain(item.aggregate_id) and item.aggregate_type in kinds]
        return named[:: max(1, len(named) // self.slow)]

    def put_back(self, documents: Broken) -> None:
        for read_model, those in documents.items():
            self.raw(read_model).delete_many({})
            if not self.unique[read_model]:
                # A shadow has them.
                self.raw(read_model).drop_indexes()
            _insert_what_fits(self.raw(read_model), [item.raw for item in those])

    # Comparing

    def fail(self, verb: str, what: str, ours: object, theirs: object, key: Value | None = None) -> None:
        streams = [item for item in self.streams if key is not None and item.aggregate_id == key]
        events = [stored_values.document(event) for item in streams for event in item.events]
        shown = "\n  ".join(str(_short(event)) for event in events)
        raise Disagreement(
            f"seed {self.seed}, {self.number} streams, {verb}: {what} {key or ''}\n"
            f"  here:   {ours}\n  second: {theirs}\n  {shown}"
        )

    def same(self, verb: str, what: str, ours: object, theirs: object, key: Value | None = None) -> None:
        if ours != theirs:
            self.fail(verb, what, ours, theirs, key)

    def says(self, verb: str, summary: Summary, found: Sequence[Finding]) -> None:
        """A summary tells of these findings and no others."""
        ours = Counter(map(_told, summary.findings))
        theirs = Counter(map(_judged, found))
        for item in (ours - theirs) + (theirs - ours):
            key = next((one.key for one in found if _judged(one) == item), Value("string", item[-1]))
            second = [_judged(one) for one in found if one.key == key]
            self.fail(verb, f"finding {item}", ours[item], f"{theirs[item]}, of {second}", key)

    def counts(self, verb: str, summary: Summary, judged: Mapping[str, Judgement]) -> None:
        """A summary counts these writes."""
        for read_model, judgement in judged.items():
            counts = summary.read_models[read_model]
            ours = {name: getattr(counts, name) for name in COUNTS}
            failed = [item for item in summary.findings if item.failed and item.read_model == read_model]
            self.same(
                verb, f"counts of {read_model} {failed}", ours, {name: judgement.counts.get(name, 0) for name in COUNTS}
            )

    def holds(self, verb: str, judged: Mapping[str, Judgement], *, to_the_byte: bool = True) -> None:
        """The read models hold what was judged, fields of others and `_id`s included."""
        for read_model, judgement in judged.items():
            there = {item.id: item for item in self.stored(read_model)}
            for item, (before, owned) in judgement.kept.items():
                now = there.pop(item, None)
                if now is None:
                    self.fail(verb, f"{read_model} lost", before.raw, owned, before.key)
                    continue
                if repr(now.owned) != repr(owned):
                    self.same(verb, f"owned fields in {read_model}", _names(now.owned), _names(owned), before.key)
                self.same(
                    verb, f"foreign fields in {read_model}", sorted(now.foreign), sorted(before.foreign), before.key
                )
                if to_the_byte and owned is before.owned:
                    self.same(verb, f"bytes in {read_model}", now.raw, before.raw, before.key)
            new = {item.key: item for item in there.values()}
            for key in (*new, *judgement.new):
                ours = new[key].owned if key in new else None
                self.same(verb, f"new in {read_model}", ours, judgement.new.get(key), key)
                self.same(verb, f"foreign in {read_model}", new[key].foreign, [], key)
            self.same(verb, f"new in {read_model}", len(there), len(judgement.new))


def by_id(streams: Iterable[Stream]) -> Streams:
    """The events of these streams, as they lie in the collection, in order."""
    found: dict[tuple[str, Value], list[Document]] = defaultdict(list)
    for stream in streams:
        events = [stored_values.document(event) for event in stream.events]
        found[stream.aggregate_type, events[0]["aggregate_id"]] += events
    return {key: stored_values.in_order(events) for key, events in found.items()}


def wanted(streams: Streams, allowed: Collection[str], *, legacy: bool) -> dict[str, dict[Value, Expected]]:
    """By read model and stream what there ought to be, claims that others contest included."""
    claimed: dict[object, set[Value]] = defaultdict(set)
    made: dict[str, dict[Value, Expected]] = {read_model: {} for read_model in KEYS}
    for (kind, aggregate_id), events in streams.items():
        if kind == "Chat" or legacy:
            for read_model, expected in oracle.expected(aggregate_id, events, kind, allowed).items():
                if kind == "Task" or read_model == "chats_read_model" or not legacy:
                    made[read_model][aggregate_id] = expected
        for event in events if kind == "Task" else ():
            claim = oracle.claims(event)
            if claim is not None and aggregate_id.kind == "string":
                claimed[claim].add(aggregate_id)
    for claim, contesting in claimed.items() if legacy else ():
        for aggregate_id in contesting if claim is oracle.TWO_KEYS or len(contesting) > 1 else ():
            if not made["tasks_read_model"][aggregate_id].reason:
                made["tasks_read_model"][aggregate_id] = Expected(None, "key_conflict")
    return made


def _is_plain(key: Value) -> bool:
    return key.kind == "string" and is_aggregate_id(key.value)


def _insert_what_fits(collection: pymongo.collection.Collection[Any], documents: Iterable[bytes]) -> None:
    """Documents whose unique key another one has already are left out."""
    made = [RawBSONDocument(raw) for raw in documents]
    if made:
        with duplicates_allowed():
            collection.insert_many(made, ordered=False)


def _told(finding: Any) -> tuple[object, ...]:
    if finding.outcome == judge.MALFORMED:
        # By its event: not each id has a value in Python.
        event = None if finding.reason == "key_conflict" else finding.event_id
        named = str(finding.aggregate_id) if finding.reason == "key_conflict" else ""
        return finding.read_model, "malformed", str(finding.reason), repr(event), named
    named = finding.aggregate_id if is_plain(finding.aggregate_id) and finding.reason != "odd_key" else "odd"
    return finding.read_model, str(finding.outcome), frozenset(finding.fields), named


def _judged(finding: Finding) -> tuple[object, ...]:
    if finding.outcome == judge.MALFORMED:
        contested = finding.reason == "key_conflict"
        event = finding.event_id and bson.ObjectId(finding.event_id.value)
        named = str(finding.key.value) if contested else ""
        return finding.read_model, "malformed", finding.reason, repr(None if contested else event), named
    plain = finding.key.kind == "string"
    return finding.read_model, finding.outcome, finding.fields, finding.key.value if plain else "odd"


def _names(document: Mapping[str, Value]) -> list[tuple[str, Value]]:
    return sorted(document.items(), key=lambda item: item[0])


def _short(event: Document) -> dict[str, object]:
    shown = {name: value.value if value.kind in ("string", "int") else value for name, value in event.items()}
    return {name: value for name, value in shown.items() if name not in ("metadata", "created_at", "_id")}
