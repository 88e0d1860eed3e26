"""Damage by a grammar: what may lie in a read model, from right documents to those that nobody should have written.

It imports nothing of the package, writes BSON byte by byte, and breaks the same documents for the same seed. What is
wrong then it does not say: `judge` finds that out by itself.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from uuid import UUID

from readmodel_pipelines_tests.support.campaign.judge import KEYS, OWNED
from readmodel_pipelines_tests.support.grammar import ODD, Fields, encoded, odd_key, string
from readmodel_pipelines_tests.support.oracle import Expected
from readmodel_pipelines_tests.support.stored_values import NULL, Value

Earlier = Callable[[Value], Mapping[str, Value] | None]
"""A document as it was at some earlier version of its stream, of which there may be none."""

FOREIGN: Sequence[tuple[str, Value]] = (
    ("not_ours", Value("document", [("deep", Value("array", [NULL, Value("document", [("kept", string("yes"))])]))])),
    ("not_ours", Value("symbol", "s")), ("none", Value("undefined", None)), ("", string("no name")),
    ("$odd", Value("long", 5)), ("text", Value("broken string", b"\xff\xfe")), ("Title", string("another case")),
    ("z.dot", Value("decimal", bytes(14) + b"\x40\x30")),
)  # fmt: skip


class Damages:
    """Breaks the documents of one read model; `share` of those that are right stay so."""

    def __init__(self, seed: object, share: float = 0.3) -> None:
        self._seed = seed
        self._share = share

    def of(self, read_model: str, streams: Mapping[Value, Expected], earlier: Earlier) -> Iterator[bytes]:
        """Documents of that read model, given what each stream wants; two may claim one unique key."""
        right = {key: item.document for key, item in streams.items() if item.document is not None}
        some = list(right.values())
        for key, wanted in streams.items():
            # What befalls one stream does not depend on which others there are, so that a trial can be made smaller.
            one = _Document(random.Random(f"{self._seed} {read_model} {key}"), read_model, some)
            if wanted.document is not None and not one.is_(self._share):
                yield from one.broken(key, wanted.document, earlier)
            elif wanted.document is not None:
                yield one.stored([*wanted.document.items()])
                if one.is_(0.05):
                    yield from one.broken(key, wanted.document, earlier)
            elif some and one.is_(0.5):
                yield from one.unwanted(key, earlier)
            if some and one.is_(0.05):
                yield one.orphan()


class _Document:
    """One document to be broken, by chance."""

    def __init__(self, chance: random.Random, read_model: str, some: Sequence[Mapping[str, Value]]) -> None:
        self._chance = chance
        self._key = KEYS[read_model]
        self._owned = OWNED[read_model]
        self._some = some

    def is_(self, share: float) -> bool:
        return self._chance.random() < share

    def stored(self, owned: Fields) -> bytes:
        """The document with an `_id`, foreign fields, and its fields in some order."""
        choose = self._chance.choice
        made = Value("objectId", self._chance.randbytes(12).hex())
        fields = owned + [choose(FOREIGN) for _ in range(choose((0, 1, 1, 2)))]
        self._chance.shuffle(fields)
        return encoded([("_id", odd_key(self._chance, as_id=True) if self.is_(0.1) else made), *fields])

    def broken(self, key: Value, wanted: Mapping[str, Value], earlier: Earlier) -> Iterator[bytes]:
        """What is there instead of the document that ought to be there."""
        match self._chance.randrange(10):
            case 0:
                return
            case 1:
                stale = earlier(key)
                if stale is not None:
                    yield self.stored([*stale.items()])
            case 2:
                # It is another document then, and this one may be there besides.
                yield self.stored(self._changed(wanted, self._key, self._wrong_key(key)))
                if self.is_(0.3):
                    yield self.stored([*wanted.items()])
            case 3 if self._key != "chat_id":
                taken = self._chance.choice(self._some)["chat_id"]
                yield self.stored(self._changed(wanted, "chat_id", taken))
            case _:
                fields = [*wanted.items()]
                for _ in range(self._chance.choice((1, 1, 1, 2, 3))):
                    fields = self._field(fields)
                yield self.stored(fields)

    def unwanted(self, key: Value, earlier: Earlier) -> Iterator[bytes]:
        """A document of a stream that wants none, or cannot be trusted."""
        like = earlier(key) or self._chance.choice(self._some)
        fields = self._changed(like, self._key, key)
        if self._key != "chat_id" and self.is_(0.7):
            own = key if key.kind == "string" else string(self._uuid())
            fields = [(name, own if name == "chat_id" else value) for name, value in fields]
        yield self.stored(self._field(fields) if self.is_(0.3) else fields)

    def orphan(self) -> bytes:
        """A document that no stream knows."""
        fields = self._changed(self._chance.choice(self._some), self._key, self._wrong_key(NULL))
        if self._key != "chat_id" and self.is_(0.8):
            fields = [(name, string(self._uuid()) if name == "chat_id" else value) for name, value in fields]
        return self.stored([field for field in fields if field[0] != self._key] if self.is_(0.1) else fields)

    def _changed(self, document: Mapping[str, Value], name: str, value: Value) -> Fields:
        return [*{**document, name: value}.items()]

    def _wrong_key(self, key: Value) -> Value:
        plain = self._uuid()
        choices = [string(plain), string(plain.upper()), string("~draft " + plain), odd_key(self._chance)]
        choices += [Value("symbol", key.value)] if key.kind == "string" else []
        return self._chance.choice(choices)

    def _uuid(self) -> str:
        return str(UUID(int=self._chance.getrandbits(128), version=4))

    def _field(self, fields: Fields) -> Fields:
        """One field changed, of another type, gone, doubled, or there where none ought to be; never the key."""
        choose = self._chance.choice
        name = choose([name for name in self._owned if name != self._key])
        others = [field for field in fields if field[0] != name]
        (old, *_) = [value for found, value in fields if found == name] or [Value("missing", None)]
        match self._chance.randrange(6):
            case 0:
                return others
            case 1 if old.kind != "missing" and name != "chat_id":
                return [*others, *self._chance.sample([(name, old), (name, choose(ODD))], 2)]
            case 2 if name != "chat_id":
                return [*others, (name, choose(self._some).get(name, NULL))]
            case 3 if old.kind != "missing":
                return [*others, (name, self._near(old))]
        odd = odd_key(self._chance) if name == "chat_id" else choose(ODD)
        return [*others, (name, odd)]

    def _near(self, value: Value) -> Value:
        """Almost that value: what a careless writer makes of it."""
        kind, held = value
        match kind:
            case "string":
                texts = [f"{held} ", held.upper(), held[:-1]]
                return self._chance.choice([*map(string, texts), Value("symbol", held)])
            case "date":
                return Value("date", held + self._chance.choice((-1, 1, 1000)))
            case "int":
                return Value(self._chance.choice(["long", "double"]), held) if self.is_(0.5) else Value("int", held - 1)
            case "long":
                return Value("int", held % 2**31)
            case "bool":
                return Value("int", int(held)) if self.is_(0.5) else Value("bool", not held)
            case "array" if held:
                at = self._chance.randrange(len(held))
                first, last = held[:at], held[at + 1 :]
                match self._chance.randrange(4):
                    case 0:
                        return Value("array", first + last)
                    case 1:
                        return Value("array", held[::-1])
                    case 2:
                        return Value("array", [*held, held[at]])
                return Value("array", [*first, self._near(held[at]), *last])
            case "document" if held and isinstance(held, dict):
                name = self._chance.choice([*held])
                changed = {**held, name: self._near(held[name])}
                return Value("document", changed if self.is_(0.7) else {**held, "more": NULL})
        return Value("array", []) if kind == "null" else NULL
