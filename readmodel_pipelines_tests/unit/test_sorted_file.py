"""A sorted file gives what was put into it, in order, whatever range is asked for."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bson
import pytest

from readmodel_pipelines.reconcile.ranges import EVERYTHING, IdRange
from readmodel_pipelines.spool.folder import SpoolLost
from readmodel_pipelines.spool.sorted_file import Key, SortedFile, SortedFileWriter

Document = dict[str, Any]
RUN_BYTES = 2_000


def key_of(document: Document) -> Key:
    return document["id"].encode(), document["version"]


def written(path: Path, documents: list[Document], about_bytes: int = 10_000) -> SortedFile:
    writer = SortedFileWriter(path / "sorted", about_bytes, RUN_BYTES)
    for document in documents:
        raw = bson.encode(document)
        writer.add([(key_of(document), raw)], len(raw))
    return writer.finish()


def read(file: SortedFile, within: IdRange = EVERYTHING) -> list[Document]:
    return [document for some in file.read(within, bson.decode_all, key_of) for document in some]


def streams(number: int, longest: int = 30) -> list[Document]:
    draw = random.Random(number)
    return [
        {"id": f"{stream:04}", "version": version, "text": "x" * draw.randrange(200)}
        for stream in range(number)
        for version in range(draw.randrange(1, longest))
    ]


@pytest.mark.parametrize("number", [0, 1, 7, 60])
def test_documents_come_in_order_of_their_keys(tmp_path: Path, number: int) -> None:
    wanted = streams(number)
    given = random.Random(number).sample(wanted, len(wanted))
    file = written(tmp_path, given)
    assert read(file) == wanted
    assert file.documents == len(wanted)


@pytest.mark.parametrize(
    "within", [IdRange(None, "0007"), IdRange("0007", "0031"), IdRange("00075", "0031x"), IdRange("0059"), IdRange("z")]
)
def test_a_range_has_the_streams_that_lie_in_it_and_no_others(tmp_path: Path, within: IdRange) -> None:
    wanted = streams(60)
    given = random.Random(1).sample(wanted, len(wanted))
    lower, upper = within.lower or "", within.upper or "~"
    assert read(written(tmp_path, given), within) == [item for item in wanted if lower <= item["id"] < upper]


def test_a_stream_much_longer_than_a_run_is_one_stream(tmp_path: Path) -> None:
    wanted = [{"id": "a", "version": 0, "text": ""}, *({"id": "b", "version": n, "text": "y"} for n in range(2_000))]
    file = written(tmp_path, random.Random(2).sample(wanted, len(wanted)))
    assert len(file.runs) > 10
    assert read(file, IdRange("b")) == wanted[1:]


def test_what_has_one_key_comes_as_it_came(tmp_path: Path) -> None:
    same = [{"id": "a", "version": 1, "text": f"{number:03}"} for number in range(400)]
    others = [{"id": "b", "version": number, "text": ""} for number in range(100)]
    given = [item for pair in zip(same[:100], others, strict=True) for item in pair] + same[100:]
    assert read(written(tmp_path, given)) == same + others


def test_a_file_is_this_user_s_alone(tmp_path: Path) -> None:
    assert written(tmp_path, streams(3)).path.stat().st_mode & 0o777 == 0o600


def test_what_was_written_before_it_began_anew_is_gone(tmp_path: Path) -> None:
    writer = SortedFileWriter(tmp_path / "sorted", 10_000, RUN_BYTES)
    for document in streams(20):
        writer.add([(key_of(document), bson.encode(document))], 100)
    writer.restart()
    last = {"id": "a", "version": 1, "text": ""}
    writer.add([(key_of(last), bson.encode(last))], 100)
    assert read(writer.finish()) == [last]


@pytest.mark.parametrize(
    "change",
    [
        Path.unlink,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-10]),
        lambda path: path.write_bytes(path.read_bytes()[:-10] + bytes(10)),
        lambda path: path.write_bytes(bytes(10) + path.read_bytes()[10:]),
    ],
    ids=["gone", "empty", "shorter", "another end", "another beginning"],
)
def test_a_file_that_somebody_changed_is_told_as_lost(tmp_path: Path, change: Callable[[Path], object]) -> None:
    file = written(tmp_path, streams(7))
    change(file.path)
    with pytest.raises(SpoolLost):
        read(file)
