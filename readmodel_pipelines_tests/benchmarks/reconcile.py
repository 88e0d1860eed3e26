"""How near rebuild and verify come to what the machine can do, as ratios measured in one run. `make bench-more`.

The limit of a rebuild is draining the sorted events raw and writing the same documents raw; that of a verify is
draining events and read models raw. Each figure is the best of some rounds, taken in turn, so that a noisy machine
disturbs both sides alike. One worker; embedded server; all indexes; majority write concern on both sides.
"""

import argparse
from collections.abc import Iterable, Iterator
from itertools import count, cycle, groupby, islice
from operator import itemgetter
from random import Random
from struct import pack
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument
from pymongo.cursor import CursorType

from readmodel_pipelines.demo.sample_data import chat_events, long_stream
from readmodel_pipelines.demo.sample_stream import BASE_TIME, uuid_of
from readmodel_pipelines.events.stream import Malformed, fold_streams
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.driver import CODEC
from readmodel_pipelines.mongo.indexes import ensure_indexes
from readmodel_pipelines.projections.chat import CHAT_FOLD
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.registry import built_in
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.benchmarks.measuring import Best, bench_server, in_a_process, rebuilt
from readmodel_pipelines_tests.support.scene import Mongo

PROJECTIONS = built_in("chat")
ORDER = [("aggregate_id", 1), ("version", 1)]
_OPEN_STREAMS = 3_000
_DIFFERENT_CHATS = 5_000
_ID_AT = len(b"size\x07_id\x00")
"""Where the value of `_id` begins in an encoded event."""
_FIRST_SECOND = int(BASE_TIME.timestamp())
_EVENTS_A_SECOND = 100


def main() -> None:
    """Run the benchmarks that are asked for and print each figure as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chats", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="also peak memory at 100,000 and 1,000,000 events")
    arguments = parser.parse_args()
    with bench_server() as settings:
        speed(settings, arguments.chats, arguments.rounds)
        if arguments.memory:
            memory(settings)


def speed(settings: Settings, chats: int, rounds: int) -> None:
    """Rebuild into empty read models, verify, and the loop of one aggregate at a time."""
    with open_database(settings) as database:
        fill(database, settings, appended(chats))
        projector = ReadModelProjector(database, settings)
        documents = projected(database, settings)
        best = Best()
        timed = best.timed
        for _ in range(rounds):
            timed("drain events", lambda: drain(database, "events", ORDER))
            timed("drain models", lambda: [drain(database, p.read_model, [(p.key, 1)]) for p in PROJECTIONS])
            timed("verify", projector.verify_all)
            empty(database, settings)
            timed("write raw", lambda: write_raw(database, documents))
            empty(database, settings)
            timed("rebuild empty", projector.rebuild_all)
        empty(database, settings)
        timed("one at a time", lambda: _one_at_a_time(database))
        events = database.events.estimated_document_count()
    limit = best["drain events"] + best["write raw"]
    drained = best["drain events"] + best["drain models"]
    for name, seconds in best.items():
        print(f"{name:18} {seconds:7.3f} s   {events / seconds:10,.0f} events/s")
    ratios = (
        ("rebuild into empty read models", best["rebuild empty"] / limit, "x limit, at most 2.5"),
        ("verify", best["verify"] / drained, "x raw drain, at most 4"),
        ("faster than one at a time", best["one at a time"] / best["rebuild empty"], "x, at least 8"),
    )
    for what, ratio, target in ratios:
        print(f"{what:32} {ratio:6.2f} {target}")


def memory(settings: Settings) -> None:
    """Peak memory of a rebuild process at 100,000 and 1,000,000 events, and of one stream of 200,000."""
    sizes = {"bench_5000": chat_events(5_000), "bench_50000": chat_events(50_000), "bench_long": long_stream(200_000)}
    peaks = []
    for name, events in sizes.items():
        scaled = settings.model_copy(update={"database": name, "workers": 1})
        with open_database(scaled) as database:
            fill(database, scaled, events)
        found = in_a_process(rebuilt, scaled)
        peaks.append(found["peak_mib"])
        print(f"{name:11} {found['events']:9,} events: peak memory {peaks[-1]:.1f} MiB, {found['seconds']:.2f} s")
    print(f"peak memory grows by {100 * (peaks[1] / peaks[0] - 1):.1f} %   (less than 10)")


def fill(database: Mongo, settings: Settings, events: Iterable[dict[str, Any] | RawBSONDocument]) -> None:
    """Load events with the indexes of the application, made at the end: random ids fill an index far more slowly."""
    stream = iter(events)
    while batch := list(islice(stream, 5_000)):
        database.events.insert_many(batch, ordered=False)
    ensure_indexes(database, settings)


def appended(chats: int) -> Iterator[RawBSONDocument]:
    """The events of that many chats as an application appends them: many streams grow at once, and ids have no order.

    So a read by the index fetches each event from another place. Of streams in the order of their ids, which the
    generator makes, it would read the collection from its beginning to its end.
    """
    choice, numbers, rest = Random(0), count(), _streams(chats)
    growing = list(islice(rest, _OPEN_STREAMS))
    while growing:
        place = choice.randrange(len(growing))
        event = growing[place].pop()
        if not growing[place]:
            growing[place] = growing[-1]
            growing[-1:] = islice(rest, 1)
        number = next(numbers)
        # Ids that are made when an event is appended ascend.
        made = pack(">IQ", _FIRST_SECOND + number // _EVENTS_A_SECOND, number)
        yield RawBSONDocument(event[:_ID_AT] + made + event[_ID_AT + len(made) :])


def _streams(chats: int) -> Iterator[list[bytes]]:
    """Encoded streams, the last event first.

    An event takes longer to make than to store. So not all are made: the chats come again under other ids.
    """
    ids = Random(1)
    made = groupby(chat_events(min(chats, _DIFFERENT_CHATS)), key=itemgetter("aggregate_id"))
    streams = [(aggregate_id.encode(), [bson.encode(event) for event in stream][::-1]) for aggregate_id, stream in made]
    for aggregate_id, stream in islice(cycle(streams), chats):
        other = uuid_of(ids.getrandbits(128)).encode()
        yield [event.replace(aggregate_id, other) for event in stream]


def drain(database: Mongo, name: str, order: list[tuple[str, int]]) -> int:
    """Read everything in order, decode nothing; gives the number of bytes."""
    cursor = database[name].find_raw_batches({}, sort=order, batch_size=2_000, cursor_type=CursorType.EXHAUST)
    return sum(len(batch) for batch in cursor)


def projected(database: Mongo, settings: Settings) -> dict[Projection, list[dict[str, Any]]]:
    """Rebuild; gives the documents by projection, without `_id`."""
    ReadModelProjector(database, settings).rebuild_all()
    return {
        item: list(database.get_collection(item.read_model, codec_options=CODEC).find({}, {"_id": 0}))
        for item in PROJECTIONS
    }


def empty(database: Mongo, settings: Settings) -> None:
    """Read models without documents, with their indexes."""
    for projection in PROJECTIONS:
        database[projection.read_model].drop()
    ensure_indexes(database, settings)


def write_raw(database: Mongo, documents: dict[Projection, list[dict[str, Any]]]) -> None:
    """Insert these documents by read model."""
    for projection, items in documents.items():
        database[projection.read_model].insert_many([dict(item) for item in items], ordered=False)


def _one_at_a_time(database: Mongo) -> None:
    for aggregate_id in database.events.distinct("aggregate_id"):
        events = database.get_collection("events", codec_options=CODEC).find({"aggregate_id": aggregate_id}, sort=ORDER)
        (stream,) = fold_streams(events, CHAT_FOLD)
        if isinstance(stream.result, Malformed):
            raise TypeError(stream.result)
        for projection in PROJECTIONS:
            document = projection.document(aggregate_id, stream.result)
            if document is not None:
                database[projection.read_model].replace_one({projection.key: aggregate_id}, document, upsert=True)


if __name__ == "__main__":
    main()
