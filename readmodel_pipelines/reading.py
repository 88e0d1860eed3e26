"""How a full pass reads its collections: in the order of the index, or from spools made before it begins.

A spool has all documents of a span of ids, so that its ranges can be done in turn or in parallel, also by worker
processes. Rechecks, and reads by id, always use the server.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from readmodel_pipelines.events.ids import byte_order
from readmodel_pipelines.events.together import together
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.patience import tell
from readmodel_pipelines.mongo.read_model import ReadModelCollection
from readmodel_pipelines.mongo.read_order import Reading, reading_of, sizes_of
from readmodel_pipelines.mongo.spooling import NO_SPOOLS, Spools, spool
from readmodel_pipelines.mongo.store import NO_SHADOWS, Shadows, Store
from readmodel_pipelines.reconcile.collector import calm_collector
from readmodel_pipelines.reconcile.ranges import EVERYTHING, IdRange
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.wording import one_line


@contextmanager
def spooled(
    store: Store,
    within: IdRange = EVERYTHING,
    *,
    share: float = 1.0,
    events: int | None = None,
    shadows: Shadows = NO_SHADOWS,
    read: Callable[[int], object] = lambda _: None,
    said: Callable[[Reading], object] = lambda _: None,
) -> Iterator[Spools]:
    """The spools of a full pass over a span with this share of the events; none to read by the index.

    Pass the approximate total number of events if it is known. `read` is called with the number of events or documents
    read, per batch, and may raise to end it.

    Raises:
        NoRoomToSpool: a setting demands a spool, and there is no room for it.
    """
    reading = reading_of(store.events, store.settings, share, events)
    if reading.order == "index":
        said(reading)
        yield NO_SPOOLS
        return
    # Only a pass over many events needs this import.
    from readmodel_pipelines.spool.folder import NoRoomToSpool, room_or_refused, spool_folder

    parent, needed = spool_dir(store.settings), int(share * reading.needed_bytes)
    with ExitStack() as held:
        try:
            folder = held.enter_context(spool_folder(parent, needed))
            said(reading)
            tell(f"Events are read {reading.how}. The comparison starts when the spool is complete.")
            with room_or_refused(parent), calm_collector():
                spools = _made(store, within, folder, int(share * reading.bytes), shadows, read)
        except NoRoomToSpool as error:
            if not reading.chosen:
                raise
            # It may have been there when that began, and others took it.
            held.close()
            spools = NO_SPOOLS
            said(Reading("index", f"{reading.why}, but {one_line(error.message).rstrip('.')}", chosen=True))
        if spools:
            reached(Moment.SPOOLED)
        yield spools


def spool_dir(settings: Settings) -> Path:
    """The folder of spools."""
    return settings.spool_dir or settings.data_dir / "spool"


def _made(
    store: Store, within: IdRange, folder: Path, about_bytes: int, shadows: Shadows, read: Callable[[int], object]
) -> Spools:
    from readmodel_pipelines.spool.sorted_file import SortedFileWriter

    fold = together(list(dict.fromkeys(item.fold for item in store.projections)))
    # Read models first, so that no document of a pass is newer than the events it is compared with.
    models = {}
    for item in store.projections:
        place = store.place(item, shadows)
        query = ReadModelCollection(place, item).query(within=within)
        # One that grew has a few runs more; without a size it is taken for as large as the events.
        of_model, _ = sizes_of(place) or (about_bytes, 0)
        with closing(SortedFileWriter(folder / f"of.{item.read_model}", of_model)) as writer:
            models[item.read_model] = spool(place, query, writer, of_events=False)
    query = EventStore(store.events).query(fold, within=within)
    with closing(SortedFileWriter(folder / "events", about_bytes)) as writer:
        return Spools(spool(store.events, query, writer, of_events=True, read=read), models)


def span_of(ranges: Sequence[IdRange]) -> IdRange:
    """The smallest range that holds all of these."""
    lowers = [item.lower for item in ranges]
    uppers = [item.upper for item in ranges]
    lower = None if None in lowers else min(filter(None, lowers), key=byte_order, default=None)
    upper = None if None in uppers else max(filter(None, uppers), key=byte_order, default=None)
    return IdRange(lower, upper)
