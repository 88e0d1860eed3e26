"""Made-up values as the application writes them: ids, titles, people, times.

Everything comes from one seeded generator: the same seed gives the same values on every machine, no clock is read.
A time is drawn as its text and as the BSON date of that text, so that the two never disagree: the date is the text
cut to milliseconds towards the past. BSON dates are `bson.DatetimeMS`, the form in which the project reads them, so
that sample events can be folded as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from operator import itemgetter
from random import Random
from typing import Any, TypeVar

from bson import DatetimeMS, ObjectId

T = TypeVar("T")

BASE_TIME = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
"""The moment around which the sample application was in use."""

ODD_TIMES = (
    "1969-12-31T23:59:59.9999Z",
    "1969-12-31T23:59:59.999999999Z",
    "1960-02-29T12:30:00.000999999Z",
    "1970-01-01T04:59:59.0005+05:00",
    "0001-01-01T00:00:00.0019Z",
    "1583-10-15T00:00:00.9999996-00:30",
    "2000-02-29T23:59:59.9995+05:00",
    "2026-05-31T23:59:59.9999995+05:45",
    "2027-01-01T00:00:00.123999999Z",
    "2028-02-29T00:00:00-09:30",
    "2262-04-11T23:47:16.854775808Z",
    "9999-12-31T23:59:59.999999999Z",
)
"""Times that a careless reader gets wrong: before 1970, near year 1 and 9999, other days elsewhere, long fractions."""

ODD_TITLES = (
    "",
    "nul \0 in",
    "e\u0301 NFD",
    "\u00e9 NFC",
    "バグ修正 🐛",
    "Обновить документацию",
    "👩\u200d👩\u200d👧 family plan",
    "مرحبا شكرا",
    "quotes \"'\\ and <b>&</b>",
    "$dollar.dotted",
    " padded ",
    "line\nbreak",
)

_WORDS = (
    *("login", "search", "export", "import", "token", "budget", "sprint", "parser", "audit", "mobile", "dark", "cache"),
    *("page", "users", "timeout", "deploy", "review", "index", "refresh", "plan", "link", "sort", "slow", "crash"),
)
_OFFSETS = (
    (("Z", 0),) * 24 + (("+05:00", 300),) * 4 + (("-03:30", -210), ("+05:45", 345), ("-08:00", -480), ("+14:00", 840))
)
_FRACTION_DIGITS = (9,) * 18 + (8, 8, 8, 7, 6, 6, 5, 4, 3, 3, 2, 1, 0, 0)
_UNITS = tuple(10 ** (9 - digits) for digits in range(10))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BASE_NS = int(BASE_TIME.timestamp()) * 1_000_000_000
_DAY_NS = 86_400_000_000_000
_ORDERS_PER_LENGTH = 32
_MOST_FIELDS = 20


def _orders() -> list[list[itemgetter[Any]]]:
    # Picking a ready-made order is several times faster than shuffling each document.
    rng = Random(0)
    return [[itemgetter(*rng.sample(range(n), n)) for _ in range(_ORDERS_PER_LENGTH)] for n in range(2, _MOST_FIELDS)]


_ORDERS = [[], [], *_orders()]


def uuid_of(bits: int) -> str:
    """The version 4 UUID of 128 bits: lower case, with hyphens."""
    digits = f"{bits:032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


class Values:
    """One seeded source of values. Two sources differ when their seed or their `purpose` differs."""

    __slots__ = ("_bits", "_due_days", "_object_id_count", "_object_id_machine", "_pool", "random")

    def __init__(self, seed: int, purpose: str) -> None:
        rng = Random(f"{purpose}:{seed}")
        self.random = rng.random
        self._bits = rng.getrandbits
        self._object_id_machine = rng.randbytes(5)
        self._object_id_count = rng.getrandbits(24)
        self._pool = tuple(self.uuid() for _ in range(64))
        today = BASE_TIME.toordinal()
        self._due_days = tuple(
            f"{date.fromordinal(today + rng.randrange(-400, 800)).isoformat()}T00:00:00Z" for _ in range(256)
        )

    def pick(self, choices: Sequence[T]) -> T:
        """One of the choices, each as likely as the others."""
        return choices[int(self.random() * len(choices))]

    def chance(self, probability: float) -> bool:
        """True in that share of the calls."""
        return self.random() < probability

    def uuid(self) -> str:
        """A new one."""
        return uuid_of(self._bits(128))

    def ascending_uuid(self, index: int, count: int) -> str:
        """The UUID of number `index` of `count`: unique, and greater than those before it."""
        width = (1 << 48) // count
        return uuid_of((index * width + int(self.random() * width)) << 80 | self._bits(80))

    def object_id(self, ns: int) -> ObjectId:
        """A new ObjectId of that moment (nanoseconds since 1970)."""
        self._object_id_count = (self._object_id_count + 1) & 0xFFFFFF
        seconds = (ns // 1_000_000_000).to_bytes(4, "big")
        return ObjectId(seconds + self._object_id_machine + self._object_id_count.to_bytes(3, "big"))

    def user(self) -> str:
        """The id of one of the application's 64 users."""
        return self._pool[self._bits(6)]

    def title(self) -> str:
        """A title: mostly a few words, sometimes one of `ODD_TITLES`."""
        if self.chance(0.15):
            return self.pick(ODD_TITLES)
        return f"{self.pick(_WORDS)} {self.pick(_WORDS)} {self.pick(_WORDS)}"

    def start_ns(self) -> int:
        """A moment within 90 days after `BASE_TIME`, in nanoseconds since 1970."""
        return _BASE_NS + int(self.random() * 90 * _DAY_NS)

    def instant(self, ns: int) -> tuple[str, DatetimeMS]:
        """That moment (nanoseconds since 1970) in 0 to 9 fraction digits and some zone, and the same as a BSON date."""
        bits = self._bits(14)
        digits = _FRACTION_DIGITS[bits & 31]
        zone, minutes = _OFFSETS[bits >> 5 & 31]
        seconds, fraction = divmod(ns, 1_000_000_000)
        if bits >> 10 == 0:
            # The last nanosecond of a millisecond: rounding it would give the next one.
            fraction = fraction // 1_000_000 * 1_000_000 + 999_999
        unit = _UNITS[digits]
        fraction //= unit
        text = (_EPOCH + timedelta(0, seconds + minutes * 60)).isoformat()[:19]
        moment = DatetimeMS(seconds * 1000 + fraction * unit // 1_000_000)
        return (f"{text}.{fraction:0{digits}d}{zone}" if digits else text + zone), moment

    def due_date(self) -> str:
        """The text of a due date: a midnight, any moment in any zone, or one of `ODD_TIMES`."""
        draw = self.random()
        if draw < 0.6:
            return self._due_days[self._bits(8)]
        if draw < 0.9:
            return self.instant(_BASE_NS + int((self.random() - 0.3) * 1000 * _DAY_NS))[0]
        return self.pick(ODD_TIMES)

    def shuffled(self, document: dict[str, Any]) -> dict[str, Any]:
        """The document with its fields in random order, as Go's maps give it."""
        if len(document) < 2:
            return document
        order = _ORDERS[len(document)][self._bits(5)]
        return dict(order(list(document.items())))
