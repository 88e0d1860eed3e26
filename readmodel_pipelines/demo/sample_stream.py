"""The parts of sample streams: values as the application writes them, and the envelope around every event.

Everything comes from one seeded generator: the same seed gives the same values on every machine, and no clock is read.
A time is drawn as its text and as the BSON date of that text, so that the two always agree: the date is the text cut to
milliseconds towards the past. BSON dates are `bson.DatetimeMS`, the form in which the project reads them, so that
sample events can be folded directly.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from operator import itemgetter
from random import Random
from typing import Any, Self, TypeVar

from bson import DatetimeMS, ObjectId

from readmodel_pipelines.repair.repository import YEAR_ONE, YEAR_ONE_TEXT

Event = dict[str, Any]
T = TypeVar("T")

BASE_TIME = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
"""The time around which the sample application was in use."""

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
"""Times that simple parsers get wrong: before 1970, near year 1 and 9999, other days in other zones, long fractions."""

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
_WEB_REQUEST = {"ip_address": "10.0.0.1", "user_agent": "Mozilla/5.0"}
_MIME_TYPES = ("application/pdf", "image/png", "image/jpeg", "text/plain; charset=utf-8", "video/mp4")
_ODD_SIZES = (0.0, 1.0, 2147483647.0, 2147483648.0, 4294967297.0, 9007199254740991.0)
_MOST_ATTACHMENTS = 12
_WRITE_DELAYS_MS = (0, 0, 0, 1, 1, 2, 5, 40)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BASE_NS = int(BASE_TIME.timestamp()) * 1_000_000_000
_DAY_NS = 86_400_000_000_000
# By number of fields. Choosing a prepared order is several times faster than shuffling each document.
_rng = Random(0)
_ORDERS = [[itemgetter(*_rng.sample(range(n), n)) for _ in range(32)] if n > 1 else [] for n in range(20)]


def uuid_of(bits: int) -> str:
    """The version 4 UUID of 128 bits: lower case, with hyphens."""
    digits = f"{bits:032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


class Values:
    """One seeded source of values. Two sources differ when their seed or their `purpose` differs."""

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
        """True with this probability."""
        return self.random() < probability

    def uuid(self) -> str:
        """A new UUID."""
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

    def instant(self, ns: int) -> tuple[str, DatetimeMS]:
        """That time (nanoseconds since 1970) with 0 to 9 fraction digits in some zone, and the same as a BSON date."""
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


class Stream:
    """One aggregate and its events, made one by one. A method that makes one returns None if it is impossible now."""

    aggregate_type: str

    def __init__(self, values: Values, aggregate_id: str) -> None:
        self.values = values
        self.aggregate_id = aggregate_id
        self.version = 0
        self.attachments: list[str] = []
        self.assignee: str | None = None
        self.due_date: str | None = None
        self.ns = _BASE_NS + int(values.random() * 90 * _DAY_NS)  # within 90 days

    def some(self, actions: Sequence[Callable[[Self], Event | None]]) -> Event:
        """The result of one of these actions, each equally likely."""
        while True:
            if event := self.values.pick(actions)(self):
                return event

    def attached(self) -> Event | None:
        """The next file, sometimes an existing one; None if there are enough."""
        if self.attachments and self.values.chance(0.15):
            return {"file_id": self.values.pick(self.attachments)}
        if len(self.attachments) >= _MOST_ATTACHMENTS:
            return None
        self.attachments.append(self.values.uuid())
        return {"file_id": self.attachments[-1]}

    def detached(self) -> Event | None:
        """A file that is removed."""
        if not self.attachments:
            return None
        return {"file_id": self.attachments.pop(int(self.values.random() * len(self.attachments)))}

    def a_file(self) -> Event:
        """Name, size (bytes) and MIME type of a file."""
        values = self.values
        size = values.pick(_ODD_SIZES) if values.chance(0.1) else float(int(values.random() * 30_000_000))
        return {"file_name": f"{values.title()}.bin", "file_size": size, "mime_type": values.pick(_MIME_TYPES)}

    def now(self) -> str:
        """The text of a time just before the next event, for the times inside its data."""
        return self.values.instant(self.ns - 300)[0]

    def traced(self, event_type: str, own: Event, user_id: str | None = None) -> Event:
        """The next event, with correlation and causation, and the user when there is one."""
        traces = {"correlation_id": self.values.uuid(), "causation_id": self.values.uuid()}
        if user_id is not None:
            traces = {"user_id": user_id, **traces}
            if self.values.chance(0.02):
                traces |= _WEB_REQUEST
        return self.event(event_type, own, traces)

    def requested(self, event_type: str, own: Event, user_id: str) -> Event:
        """The next event, as a web request writes it: a real timestamp, a user, sometimes the client's address."""
        asked_at = self.values.instant(self.ns - 200)
        traces = {"user_id": user_id, "correlation_id": self.values.uuid()}
        if self.values.chance(0.5):
            traces |= _WEB_REQUEST
        return self.event(event_type, own, traces, asked_at)

    def event(
        self,
        event_type: str,
        own: Event,
        traces: dict[str, str] | None = None,
        asked_at: tuple[str, DatetimeMS] = (YEAR_ONE_TEXT, YEAR_ONE),
    ) -> Event:
        """The next event, in the application's envelope; without traces it has no origin.

        `data` repeats the envelope, in random order, as it comes from JSON: every number a double, every time a string.
        """
        values = self.values
        self.version += 1
        asked_text, asked = asked_at
        repeated_metadata = values.shuffled({"timestamp": asked_text, **(traces or {})})
        occurred_text, occurred_at = values.instant(self.ns)
        event = {
            "_id": values.object_id(self.ns),
            "aggregate_id": self.aggregate_id,
            "aggregate_type": self.aggregate_type,
            "event_type": event_type,
            "version": self.version,
            "data": values.shuffled(
                {
                    "event_type": event_type,
                    "aggregate_id": self.aggregate_id,
                    "aggregate_type": self.aggregate_type,
                    "occurred_at": occurred_text,
                    # Legacy writers left it at 1.
                    "version": 1.0 if self.aggregate_type == "Task" else float(self.version),
                    "metadata": repeated_metadata,
                    **own,
                }
            ),
            "metadata": {"timestamp": asked, **(traces or {"correlation_id": ""})},
            "occurred_at": occurred_at,
            "created_at": DatetimeMS(int(occurred_at) + values.pick(_WRITE_DELAYS_MS)),
        }
        # Sometimes a step back, because the application's clocks differ; only `version` orders a stream.
        self.ns += int(values.random() * 62_000_000_000) - 2_000_000_000
        return event
