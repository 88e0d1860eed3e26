"""The order in which a full pass reads the events: by the index, or in natural order, spooled and sorted here.

By the index each event is fetched from its place. That is faster while the events fit into the server's cache. Beyond
that nearly each is a read of the server's disk, and natural order reads its files once.
"""

from dataclasses import dataclass

from readmodel_pipelines.mongo.driver import Collection, Document, OperationFailure
from readmodel_pipelines.settings import ReadOrder, Settings

MANY_EVENTS = 200_000
"""Fewer events fit into the smallest possible cache, so the server is not even asked."""
_FILLED = 0.8
"""The share of its cache that the server fills before it evicts."""
_FEW = 0.05
"""Cost of an event by the index, relative to natural order, when the disk is read."""
_SAMPLED = 100
_LEAN = {"metrics": 0, "tcmalloc": 0, "locks": 0, "opLatencies": 0}


@dataclass(frozen=True, slots=True)
class Reading:
    """The order, its reason as a sentence, and the maximum bytes of the spool."""

    order: ReadOrder
    why: str
    bytes: int = 0
    needed_bytes: int = 0
    chosen: bool = False
    """Whether it follows from the sizes of cache and events, and not from a setting."""

    @property
    def how(self) -> str:
        """The order and its reason."""
        order = "in natural order, through a spool" if self.order == "scan" else "in the order of the index"
        return f"{order}: {self.why}"

    @property
    def said(self) -> str:
        """The order and its reason as a sentence."""
        return f"Events were read {self.how}."


def reading_of(events: Collection, settings: Settings, share: float = 1.0, number: int | None = None) -> Reading:
    """How a full pass over this share of the events reads them; `number` is their approximate total, if known."""
    if settings.read_order == "index":
        return Reading("index", "READMODEL_READ_ORDER is index")
    if settings.read_order == "scan":
        size, stored = sizes_of(events) or (0, 0)
        return Reading("scan", "READMODEL_READ_ORDER is scan", size, stored)
    if share < _FEW:
        return Reading("index", "few of them are left to do")
    if (events.estimated_document_count() if number is None else number) < MANY_EVENTS:
        return Reading("index", f"there are fewer than {MANY_EVENTS:,}")
    sizes, cache = sizes_of(events), _cache_bytes(events)
    if sizes is None or cache is None:
        return Reading("index", "this user may not ask how large the server's cache is", chosen=True)
    size, stored = sizes
    if size <= _FILLED * cache:
        return Reading("index", f"their {_gb(size)} fit into the server's cache of {_gb(cache)}", chosen=True)
    why = f"their {_gb(size)} do not fit into the server's cache of {_gb(cache)}"
    return Reading("scan", why, size, stored, chosen=True)


def sizes_of(collection: Collection) -> tuple[int, int] | None:
    """The bytes of its documents, and those on the disk: a spool takes at most about as many."""
    try:
        said: Document = collection.database.command("collStats", collection.name)
        return int(said["size"]), int(said["storageSize"])
    except (OperationFailure, LookupError):
        # Only some of our roles have this right.
        return _estimated(collection)


def _estimated(collection: Collection) -> tuple[int, int] | None:
    """The same, estimated from some random documents."""
    average = {"$group": {"_id": None, "bytes": {"$avg": {"$bsonSize": "$$ROOT"}}}}
    try:
        found = list(collection.aggregate([{"$sample": {"size": _SAMPLED}}, average]))
        size = int(found[0]["bytes"] * collection.estimated_document_count())
        return size, size // 2
    except (OperationFailure, LookupError):
        return None


def _cache_bytes(collection: Collection) -> int | None:
    """The size of the server's cache in bytes; a mongos has none."""
    try:
        said = collection.database.client.admin.command({"serverStatus": 1, **_LEAN})
        return int(said["wiredTiger"]["cache"]["maximum bytes configured"])
    except (OperationFailure, LookupError):
        return None


def _gb(size: int) -> str:
    return f"{size / 1e9:,.2f} GB"
