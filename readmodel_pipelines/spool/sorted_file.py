"""A file of documents in the order of their keys, larger than memory: sorted runs, merged while they are read.

Documents come in any order and are held until a run is full. Then the run is sorted, compressed and appended in blocks.
A reader of a range merges that part of every run, one block of each at a time. So both sides hold only a few MiB, with
any number of documents, in total or of one id. Equal keys keep their order.
"""

import os
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import bson
from bson.errors import BSONError

from readmodel_pipelines.events.ids import byte_order
from readmodel_pipelines.reconcile.ranges import IdRange
from readmodel_pipelines.spool.folder import SpoolLost

Key = tuple[bytes, Any]
"""The bytes of the id, and the order of documents with the same id."""

Document = dict[str, Any]

RUN_BYTES = 16 * 1024 * 1024
"""Bytes of documents in a run; a writer holds less than twice as many, including keys."""
_READ_BYTES = 4 * 1024 * 1024
_LARGEST_BLOCK, _SMALLEST_BLOCK = 64 * 1024, 4 * 1024
_INDEXED_BYTES = 64 * 1024
_LENGTH = 4


@dataclass(frozen=True, slots=True)
class Run:
    """The positions of the blocks of a run, followed by the index of their first ids, with its size in bytes."""

    start: int
    end: int
    index_bytes: int


@dataclass(frozen=True, slots=True)
class SortedFile:
    """A finished file; another process can read it as well."""

    path: Path
    runs: tuple[Run, ...]
    documents: int

    def read(
        self, within: IdRange, decode: Callable[[bytes], Sequence[Document]], key_of: Callable[[Document], Key]
    ) -> Iterator[list[Document]]:
        """The documents of a range in order, some at a time.

        Raises:
            SpoolLost: the file is not as it was written.
        """
        lower = b"" if within.lower is None else byte_order(within.lower)
        upper = None if within.upper is None else byte_order(within.upper)
        with _as_it_was_written(self.path):
            yield from self._read(lower, upper, decode, key_of)

    def _read(
        self,
        lower: bytes,
        upper: bytes | None,
        decode: Callable[[bytes], Sequence[Document]],
        key_of: Callable[[Document], Key],
    ) -> Iterator[list[Document]]:
        file = os.open(self.path, os.O_RDONLY)
        try:
            heads = [_Head(_blocks(file, run, lower), decode, key_of, lower) for run in self.runs]
            for keys, documents in _merged(heads):
                if upper is not None and keys[-1][0] >= upper:
                    # `(upper,)` sorts before every key of that id.
                    if rest := documents[: bisect_left(keys, (upper,))]:
                        yield rest
                    return
                yield documents
        finally:
            os.close(file)


@contextmanager
def _as_it_was_written(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error, BSONError) as error:
        raise SpoolLost(
            f"The spool {path.parent} was removed or changed while it was read: {error}.",
            hint="Keep whatever tidies up folders from it, or name another one in READMODEL_SPOOL_DIR. Run it again.",
        ) from None


class SortedFileWriter:
    """Writes a sorted file with about `expected` bytes of documents, which only this user can read."""

    def __init__(self, path: Path, about_bytes: int, run_bytes: int = RUN_BYTES) -> None:
        self._path = path
        self._file = os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")
        self._run_bytes = run_bytes
        # A reader holds one block of every run.
        share = _READ_BYTES * run_bytes // max(1, about_bytes)
        self._block_bytes = min(_LARGEST_BLOCK, max(_SMALLEST_BLOCK, share))
        self._restart()

    def restart(self) -> None:
        """Discard everything written, because the source is read again from its beginning."""
        self._file.seek(0)
        self._file.truncate()
        self._restart()

    def _restart(self) -> None:
        self._runs: list[Run] = []
        self._documents = 0
        self._entries: list[tuple[Key, bytes]] = []
        self._held = 0

    def add(self, entries: Sequence[tuple[Key, bytes]], size: int) -> None:
        """Add documents with their keys and their total number of bytes."""
        self._entries += entries
        self._documents += len(entries)
        self._held += size
        if self._held >= self._run_bytes:
            self._write_run()

    def finish(self) -> SortedFile:
        """Finish the file; all documents are added."""
        self._write_run()
        self.close()
        return SortedFile(self._path, tuple(self._runs), self._documents)

    def close(self) -> None:
        """Close the file, finished or not."""
        self._file.close()

    def _write_run(self) -> None:
        if not self._entries:
            return
        self._entries.sort(key=itemgetter(0))
        start, indexed = self._file.tell(), -_INDEXED_BYTES
        ids: list[bytes] = []
        places: list[int] = []
        block: list[bytes] = []
        size = written = 0
        for key, raw in chain(self._entries, [((b"", None), b"")]):
            if block and (size >= self._block_bytes or not raw):
                packed = zlib.compress(b"".join(block), 1)
                self._file.write(len(packed).to_bytes(_LENGTH, "little") + packed)
                written += size
                block, size = [], 0
            if raw and not block and written - indexed >= _INDEXED_BYTES:
                ids.append(key[0])
                places.append(self._file.tell())
                indexed = written
            block.append(raw)
            size += len(raw)
        index = bson.encode({"ids": ids, "places": places})
        self._runs.append(Run(start, self._file.tell(), len(index)))
        self._file.write(index)
        self._entries, self._held = [], 0


def _blocks(file: int, run: Run, lower: bytes) -> Iterator[bytes]:
    """The blocks of a run that can contain an id or later ones."""
    index = bson.decode(_part(file, run.index_bytes, run.end))
    # The documents of the block's first id may begin in the block before.
    before = max(0, bisect_left(index["ids"], lower) - 1)
    at = index["places"][before]
    del index
    while at < run.end:
        length = int.from_bytes(_part(file, _LENGTH, at), "little")
        yield zlib.decompress(_part(file, length, at + _LENGTH))
        at += _LENGTH + length


def _part(file: int, length: int, at: int) -> bytes:
    part = os.pread(file, length, at)
    if len(part) < length:
        raise EOFError("it is shorter than it was")
    return part


class _Head:
    """The part of a run that is read and not returned yet."""

    def __init__(
        self,
        blocks: Iterator[bytes],
        decode: Callable[[bytes], Sequence[Document]],
        key_of: Callable[[Document], Key],
        lower: bytes,
    ) -> None:
        self._blocks = blocks
        self._decode = decode
        self._key_of = key_of
        self.keys: list[Key] = []
        self.documents: Sequence[Document] = ()
        self.at = 0
        while self.read_on() and (self.keys[-1][0] < lower):
            self.at = len(self.keys)
        self.at = bisect_left(self.keys, (lower,))

    def read_on(self) -> bool:
        """Whether documents are left; reads the next block if this one is exhausted."""
        if self.at == len(self.keys):
            raw = next(self._blocks, b"")
            self.documents = self._decode(raw) if raw else ()
            self.keys, self.at = list(map(self._key_of, self.documents)), 0
        return bool(self.keys)

    def take(self, end: int) -> tuple[list[Key], Sequence[Document]]:
        """Return the documents before a place."""
        start, self.at = self.at, end
        return self.keys[start:end], self.documents[start:end]


def _merged(heads: Sequence[_Head]) -> Iterator[tuple[list[Key], list[Document]]]:
    """Keys and documents of all runs in order, in batches."""
    while heads := [head for head in heads if head.read_on()]:
        # No later key in any run is smaller.
        bound = min(head.keys[-1] for head in heads)
        parts = [head.take(bisect_left(head.keys, bound, head.at)) for head in heads]
        if not any(keys for keys, _ in parts):
            # Equal keys in the order of their runs, in any number of blocks.
            first = next(head for head in heads if head.keys[head.at] == bound)
            equal = next((at for at in range(first.at, len(first.keys)) if first.keys[at] != bound), len(first.keys))
            parts = [first.take(equal)]
        yield _in_order([part for part in parts if part[0]])


def _in_order(parts: Sequence[tuple[list[Key], Sequence[Document]]]) -> tuple[list[Key], list[Document]]:
    if len(parts) == 1:
        return parts[0][0], list(parts[0][1])
    keys = list(chain.from_iterable(keys for keys, _ in parts))
    documents = list(chain.from_iterable(documents for _, documents in parts))
    # Stable, and fast on parts that are already sorted.
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return [keys[at] for at in order], [documents[at] for at in order]
