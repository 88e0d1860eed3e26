"""Loads documents from gzipped Extended JSON, one per line, into the collections of the settings.

Documents are inserted in batches, so a file may be larger than memory. A document that exists already (same `_id` or
unique key) is left unchanged and counted, so an interrupted load can be run again.
"""

import gzip
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import bson
from bson import json_util
from bson.codec_options import DatetimeConversion
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from readmodel_pipelines.errors import ReadModelError, UsageError
from readmodel_pipelines.mongo.driver import DUPLICATE_KEY, BulkWriteError, Collection, Database
from readmodel_pipelines.mongo.failures import raise_servers_own
from readmodel_pipelines.mongo.indexes import ensure_indexes
from readmodel_pipelines.mongo.names import collection_of
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.settings import Settings

SUFFIX = ".jsonl.gz"

# Dates as milliseconds, because year 1 with an offset is outside Python's range but inside BSON's.
_EXTENDED_JSON = json_util.JSONOptions(
    json_mode=json_util.JSONMode.CANONICAL, datetime_conversion=DatetimeConversion.DATETIME_MS
)
_BATCH_DOCUMENTS = 1_000
_BATCH_BYTES = 16 * 2**20
_LARGEST_DOCUMENT = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Loaded:
    """Counts of one file's documents: inserted and already present, so far or in total."""

    file: str
    collection: str
    inserted: int
    present: int
    whole: bool = False

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {name: value for name, value in asdict(self).items() if name != "whole"}


def loadable_files(folder: Path, settings: Settings) -> tuple[dict[Path, str], list[str]]:
    """The files of a folder to load, in order, with their collections; and the names of all other files.

    Raises:
        UsageError: the folder does not exist, or holds no file to load.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.", hint="Give a folder that holds events.jsonl.gz.")
    targets = {
        f"events{SUFFIX}": settings.events_collection,
        **{f"{item.read_model}{SUFFIX}": collection_of(settings, item) for item in projections_for(settings)},
        f"repair_queue{SUFFIX}": settings.repair_queue_collection,
    }
    paths = {folder / name: collection for name, collection in targets.items() if (folder / name).is_file()}
    if not paths:
        raise UsageError(f"{folder} holds no file to load.", hint=f"It must hold one of {', '.join(targets)}.")
    return paths, sorted({path.name for path in folder.glob(f"*{SUFFIX}")} - targets.keys())


def load_files(database: Database, settings: Settings, paths: Mapping[Path, str]) -> Iterator[Loaded]:
    """Create the indexes, then load the files one after the other; yields the counts after each batch and at each
    file's end.

    Raises:
        UsageError: a file cannot be read, or a line holds no document. Earlier lines may be loaded.
        ReadModelError: MongoDB refuses a document, or an index cannot be created.
    """
    ensure_indexes(database, settings)
    for path, collection in paths.items():
        inserted = present = 0
        for batch in _batches(path):
            there = _insert(Collection(database, collection), batch, path)
            inserted += len(batch) - there
            present += there
            yield Loaded(path.name, collection, inserted, present)
        yield Loaded(path.name, collection, inserted, present, whole=True)


def _insert(collection: Collection, batch: list[RawBSONDocument], path: Path) -> int:
    """Insert the documents that do not exist yet; returns their number."""
    try:
        collection.insert_many(batch, ordered=False)
    except BulkWriteError as error:
        refused = error.details["writeErrors"]
        raise_servers_own(refused, error.details["writeConcernErrors"])
        other = next((item for item in refused if item["code"] != DUPLICATE_KEY), None)
        if other is not None:
            raise ReadModelError(
                f"{path.name}: MongoDB refused a document for {collection.full_name}: {other['errmsg'][:300]}",
                hint="Correct it and load again; documents that exist already are left unchanged.",
            ) from None
        return len(refused)
    return 0


def _batches(path: Path) -> Iterator[list[RawBSONDocument]]:
    batch: list[RawBSONDocument] = []
    size = 0
    for document in _documents(path):
        batch.append(document)
        size += len(document.raw)
        if len(batch) == _BATCH_DOCUMENTS or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _documents(path: Path) -> Iterator[RawBSONDocument]:
    number = 0
    try:
        with gzip.open(path) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _document(line, path, number)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(
            f"{path} cannot be read from line {number + 1} on: {error}.",
            hint="Replace it by a complete gzip file, and load again.",
        ) from None


def _document(line: bytes, path: Path, number: int) -> RawBSONDocument:
    # Encoded here, because the driver would not say which line holds a value that BSON cannot store.
    try:
        document = json_util.loads(line.decode(), json_options=_EXTENDED_JSON)
        if not isinstance(document, dict):
            raise TypeError(f"it is a {type(document).__name__}, not a document")
        encoded = bson.encode(document)
        if len(encoded) > _LARGEST_DOCUMENT:
            raise ValueError(f"{len(encoded):,} bytes exceed the maximum size of a document")
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, BSONError) as error:
        raise UsageError(
            f"{path}, line {number} holds no valid document: {str(error)[:200]}.",
            hint="Each line must be one document in Extended JSON. Correct the line and load again.",
        ) from None
    return RawBSONDocument(encoded)
