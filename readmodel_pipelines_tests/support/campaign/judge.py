"""What is wrong in a read model, and what it holds when it was mended: the second implementation's word on documents.

As the oracle it imports nothing of the package. It is given what a read model holds, byte by byte, and what its
streams want, and looks at everything at once, which only a small read model allows.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from readmodel_pipelines_tests.support.oracle import Expected
from readmodel_pipelines_tests.support.stored_values import NULL, Value, elements

CHAT_FIELDS = (
    *("chat_id", "workspace_id", "type", "title", "is_public", "created_by", "created_at", "participants"),
    *("status", "priority", "assigned_to", "due_date", "severity"),
)
TASK_FIELDS = (
    *("task_id", "chat_id", "title", "entity_type", "status", "priority", "severity", "assigned_to", "due_date"),
    *("created_by", "created_at", "version", "attachments"),
)
OWNED = {"chats_read_model": CHAT_FIELDS, "tasks_read_model": TASK_FIELDS}
KEYS = {"chats_read_model": "chat_id", "tasks_read_model": "task_id"}
Unique = Mapping[str, Sequence[str]]
UNIQUE: Unique = {"chats_read_model": ("chat_id",), "tasks_read_model": ("task_id", "chat_id")}
"""The fields that an index keeps unique, as a rule."""

MISSING, DIFFERENT, UNEXPECTED, ORPHAN, MALFORMED = "missing", "different", "unexpected", "orphan", "malformed"


@dataclass(frozen=True)
class Stored:
    """A document of a read model."""

    read_model: str
    raw: bytes

    @cached_property
    def _elements(self) -> list[tuple[str, Value, bytes]]:
        return elements(self.raw)

    @cached_property
    def id(self) -> bytes:
        """`_id`, byte by byte."""
        return next(raw for name, _, raw in self._elements if name == "_id")

    @cached_property
    def owned(self) -> dict[str, Value]:
        """The fields of this project; one that stands twice has a type that no other value has."""
        owned = [(name, value) for name, value, _ in self._elements if name in OWNED[self.read_model]]
        often = Counter(name for name, _ in owned)
        return {name: value if often[name] == 1 else Value("twice", None) for name, value in owned}

    @cached_property
    def foreign(self) -> list[bytes]:
        """The fields that are not, byte by byte."""
        return [raw for name, _, raw in self._elements if name not in (*OWNED[self.read_model], "_id")]

    @property
    def key(self) -> Value:
        """The key; one that is not there counts as null."""
        return self.owned.get(KEYS[self.read_model], NULL)

    def holds(self, name: str) -> set[str]:
        """The texts that a unique index on this field has of it."""
        return {item.value for item in indexed(self.owned, name) if item.kind == "string"}


def indexed(document: Mapping[str, Value], name: str) -> set[Value]:
    """What an index on this field has of a document; a symbol is the same as a string to it."""
    value = document.get(name, NULL)
    items = value.value if value.kind == "array" else [value]
    return {Value("string", item.value) if item.kind == "symbol" else item for item in items}


@dataclass(frozen=True)
class Finding:
    """What a verification has to say of one document, or of one that is not there; `write` is what mends it."""

    read_model: str
    key: Value
    outcome: str
    fields: frozenset[str] = frozenset()
    stored: Stored | None = None
    wanted: Mapping[str, Value] | None = None
    reason: str = ""
    event_id: Value | None = None

    @property
    def write(self) -> str:
        names = {MISSING: "inserted", DIFFERENT: "replaced", UNEXPECTED: "deleted", ORPHAN: "deleted"}
        return names.get(self.outcome, "")


def findings(read_model: str, documents: Iterable[Stored], streams: Mapping[Value, Expected]) -> list[Finding]:
    """All that is wrong; `streams` says by id what each stream wants in this read model.

    Of several documents with one key, which come in order of their `_id`, the first is the one.
    """
    found = [
        Finding(read_model, key, MALFORMED, reason=wanted.reason, event_id=wanted.event_id)
        for key, wanted in streams.items()
        if wanted.reason
    ]
    there: set[Value] = set()
    for stored in documents:
        another = stored.key in there
        there.add(stored.key)
        wanted = streams.get(stored.key)
        if wanted is None:
            found.append(Finding(read_model, stored.key, ORPHAN, stored=stored))
        elif wanted.document is None or another:
            found += [] if wanted.reason else [Finding(read_model, stored.key, UNEXPECTED, stored=stored)]
        elif stored.owned != wanted.document:
            fields = _differing(wanted.document, stored.owned)
            found.append(Finding(read_model, stored.key, DIFFERENT, fields, stored, wanted.document))
    missing = [(key, item.document) for key, item in streams.items() if item.document and key not in there]
    return found + [Finding(read_model, key, MISSING, wanted=document) for key, document in missing]


def _differing(wanted: Mapping[str, Value], owned: Mapping[str, Value]) -> frozenset[str]:
    return frozenset(name for name in (*wanted, *owned) if wanted.get(name) != owned.get(name))


def blocked(documents: Sequence[Stored], found: Collection[Finding], unique: Unique) -> set[int]:
    """Which of the findings cannot be mended, by `id()`: a document that stays holds a unique key that they want.

    One that goes, or gets a key of its own, gives up the one that it holds; one that is blocked itself does not.
    """
    changing = {item.stored.id: item for item in found if item.stored is not None}
    holders: dict[tuple[str, str], list[Stored]] = defaultdict(list)
    for stored in documents:
        for name in unique[stored.read_model]:
            for held in stored.holds(name):
                holders[name, held].append(stored)
    stuck: set[int] = set()
    while True:
        more = {
            id(item)
            for item in found
            if item.wanted is not None and id(item) not in stuck
            for name in unique[item.read_model]
            for holder in holders[name, str(item.wanted[name].value)]
            if item.stored is None or holder.id != item.stored.id
            if holder.id not in changing or id(changing[holder.id]) in stuck
        }
        if not more:
            return stuck
        stuck |= more


def _in_the_way(wrong: Iterable[Finding], done: Iterable[Finding], unique: Unique) -> list[Finding]:
    """Those of the wrong documents that hold a unique key which a finding in `done` wants."""
    wanting = {(name, item.wanted[name].value) for item in done if item.wanted for name in unique[item.read_model]}
    return [
        item
        for item in wrong
        if item.stored is not None
        if any((name, held) in wanting for name in unique[item.read_model] for held in item.stored.holds(name))
    ]


@dataclass(frozen=True)
class Judgement:
    """What a read model that was mended holds: by `_id` what was there before, and what is new by key."""

    kept: Mapping[bytes, tuple[Stored, Mapping[str, Value]]]
    new: Mapping[Value, Mapping[str, Value]]
    counts: Mapping[str, int]

    def fits_a_shadow(self, read_model: str) -> bool:
        """Whether a new collection can have its unique indexes: none is blocked, and none that stays is a duplicate."""
        documents = [*(owned for _, owned in self.kept.values()), *self.new.values()]
        held = [Counter(texts for item in documents for texts in indexed(item, name)) for name in UNIQUE[read_model]]
        return not self.counts["failed"] and all(number == 1 for each in held for number in each.values())


def mended(
    documents: Sequence[Stored],
    found: Sequence[Finding],
    asked: Collection[Value] | None = None,
    unique: Unique = UNIQUE,
) -> Judgement:
    """After everything, or the aggregates `asked` for, was mended."""
    stuck = blocked(documents, found, unique)
    left = [item for item in found if item.write and id(item) not in stuck]
    done: list[Finding] = []
    more = [item for item in left if asked is None or item.key in asked]
    while more:
        done += more
        left = [item for item in left if item not in more]
        more = _in_the_way(left, more, unique)
    gone = {item.stored.id for item in done if item.stored is not None and item.wanted is None}
    changed = {item.stored.id: item.wanted for item in done if item.stored is not None and item.wanted is not None}
    kept = {item.id: (item, changed.get(item.id, item.owned)) for item in documents if item.id not in gone}
    new = {item.key: item.wanted for item in done if item.stored is None and item.wanted is not None}
    counts = Counter(item.write for item in done)
    return Judgement(kept, new, {**counts, "failed": len(stuck)})
