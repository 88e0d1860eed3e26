"""The arrows between the rooms point inwards, there is no circle: pyproject.toml has the contracts, and they bite.

That the program keeps them is said by `make lint`; here a made-up package breaks each.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "readmodel_pipelines"
ARROWS = "Arrows point inwards"
CIRCLE = "No circle, of rooms or of files"
DAGSTER = "Only orchestration imports Dagster, so that the command line starts fast"
DRIVER = "Only the rooms that talk to MongoDB import the driver"

Files = dict[str, str]
"""Modules of the made-up package, and what stands in them."""

# One process for all: the linter's own imports cost more than its work.
LINT_EACH = """
import contextlib, importlib, io, json, pathlib, sys
from importlinter.cli import lint_imports

told = []
for files in json.load(sys.stdin):
    before = {file: file.read_text() if file.exists() else None for file in map(pathlib.Path, files)}
    for file, text in files.items():
        pathlib.Path(file).write_text(text)
    importlib.invalidate_caches()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = lint_imports(no_cache=True)
    told.append((code, said.getvalue()))
    for file, text in before.items():
        file.unlink() if text is None else file.write_text(text)
json.dump(told, sys.stdout)
"""


def rooms() -> list[list[str]]:
    """The layers, from top to bottom, each with the rooms that lie side by side."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(item["layers"] for item in contracts if item["name"] == ARROWS)
    return [re.split(r" [|:] ", layer) for layer in layers]


CIRCLING = {"mongo/one": f"import pymongo\nfrom {PACKAGE}.mongo import two\n"}
BROKEN: list[tuple[str, Files]] = [
    (CIRCLE, CIRCLING | {"mongo/two": f"from {PACKAGE}.mongo import one\n"}),
    (DRIVER, {"doctor/one": "from pymongo.collection import Collection\n"}),
    (DRIVER, {"projector/one": "import pymongo\n"}),
    (DAGSTER, {"cli/one": "import dagster\n"}),
    (ARROWS, {"cli/one": f"import {PACKAGE}.orchestration.one\n"}),
    (ARROWS, {"errors/one": f"import {PACKAGE}.events.one\n"}),
    (ARROWS, {"a_room_without_a_place": ""}),
]
UPWARDS = [(below[0], above[0]) for above, below in zip(rooms(), rooms()[1:], strict=False)]
CHANGES: list[Files] = [
    {},
    *(files for _, files in BROKEN),
    {f"{below}/two": f"import {PACKAGE}.{above}.two\n" for below, above in UPWARDS},
]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str]]:
    """What the linter says of a made-up package under the same contracts, with each of the changes.

    It has the same rooms with two files each, and uses every exception.
    """
    house = tmp_path_factory.mktemp("house")
    shutil.copy(ROOT / "pyproject.toml", house)
    made = house / PACKAGE
    for name in ("", *(name for layer in rooms() for name in layer)):
        (made / name).mkdir()
        for file in ("__init__", "one", "two") if name else ("__init__",):
            (made / name / f"{file}.py").touch()
    for name in ("bookkeeping", "cutover", "embedded", "mongo"):
        (made / name / "one.py").write_text("import pymongo\n")
    (made / "orchestration" / "one.py").write_text("import dagster\n")
    for name in ("definitions", "orchestration"):
        (made / name / "__init__.py").write_text("import dagster\n")
    asked = json.dumps([{f"{PACKAGE}/{file}.py": text for file, text in files.items()} for files in CHANGES])
    run = [sys.executable, "-c", LINT_EACH]
    ended = subprocess.run(run, cwd=house, input=asked, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr
    return [(code, said) for code, said in json.loads(ended.stdout)]


def test_a_made_up_house_keeps_them(told: list[tuple[int, str]]) -> None:
    code, said = told[0]
    assert code == 0, said
    assert "4 kept, 0 broken" in said


@pytest.mark.parametrize("number", range(len(BROKEN)), ids=[" ".join(files) for _, files in BROKEN])
def test_what_breaks_a_contract_is_told(told: list[tuple[int, str]], number: int) -> None:
    code, said = told[1 + number]
    assert code == 1, said
    assert re.findall(r"^(.+?) BROKEN", said, re.MULTILINE) == [BROKEN[number][0]]


def test_every_arrow_that_points_outwards_is_told(told: list[tuple[int, str]]) -> None:
    said = " ".join(told[-1][1].split())
    for below, above in UPWARDS:
        assert f"{PACKAGE}.{below} is not allowed to import {PACKAGE}.{above}:" in said
