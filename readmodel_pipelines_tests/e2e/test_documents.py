"""Every command on the pages that people read does what the page says; `pages/terminal.py` says how they are run."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from readmodel_pipelines.embedded import server as embedded
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.pages.blocks import PAGES, ROOT, Block, blocks_of, name_of
from readmodel_pipelines_tests.support.pages.symptoms import happen, healthy
from readmodel_pipelines_tests.support.pages.terminal import Terminal, marks_of
from readmodel_pipelines_tests.support.processes.warm_program import warm_program

OWN_MONGODB = "mongodb://user:password@host:27017/?replicaSet=rs0&authSource=admin"
"""How the pages write the reader's own connection string; here it is the server of these tests."""


@pytest.fixture(scope="module")
def programs() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="readmodel-docs-") as folder, warm_program(Path(folder)) as found:
        yield found


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Settings, str]]:
    """The embedded server that the commands meet, and its connection string."""
    # Not pytest's own folder: a socket's path ends at 107 characters.
    with tempfile.TemporaryDirectory(prefix="readmodel-docs-") as folder:
        settings = Settings(data_dir=Path(folder), mongod=os.environ.get("READMODEL_MONGOD") or None, grace_seconds=0.2)
        try:
            yield settings, embedded.ensure_running(settings, die_with_parent=True)
        finally:
            embedded.stop(settings)


def run_here(page: Path) -> list[Block]:
    """The commands of a page but for those that another test runs."""
    return [block for block in blocks_of(page, "sh") if not marks_of(block).run_by]


@pytest.mark.parametrize("page", [page for page in PAGES if run_here(page)], ids=name_of)
def test_commands_do_what_pages_say(page: Path, server: tuple[Settings, str], programs: Path, tmp_path: Path) -> None:
    settings, uri = server
    env = {
        "READMODEL_DATA_DIR": str(settings.data_dir),
        "READMODEL_GRACE_SECONDS": str(settings.grace_seconds),
        **({"READMODEL_MONGOD": str(settings.mongod)} if settings.mongod else {}),
    }
    terminal = Terminal(tmp_path, env, {OWN_MONGODB: uri}, programs)
    with open_database(settings) as database:
        healthy(database, settings)
        for block in run_here(page):
            for mark in marks_of(block).before:
                if mark.startswith("given"):
                    terminal.open_anew()
                happen(mark, database, settings)
            terminal.run(block)


def test_what_another_test_is_said_to_run_it_knows_of() -> None:
    for block in (block for page in PAGES for block in blocks_of(page, "sh") if marks_of(block).run_by):
        test = ROOT / "readmodel_pipelines_tests" / marks_of(block).run_by
        assert block.page.name in test.read_text(encoding="utf-8"), f"{block}: {test.name} does not"


def page_with(tmp_path: Path, text: str) -> Block:
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n{text}")
    (block,) = blocks_of(page)
    return block


WRONG_CODE = "<!-- exits 1: so it says -->\n```sh\n{}\n```\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "```sh\necho fine\nls nowhere\necho never\n```\n",
            r"page\.md:4: line 5, `ls nowhere`, ended with 2\n(?s:.*)No such file",
        ),
        *((WRONG_CODE.format(code), "ended with") for code in ("true", "(exit 2)", "false; false")),
        ("<!-- serves 3000 -->\n```sh\necho 3000\n```\n", "ended by itself"),
        ("```sh\nmake coffee\n```\n", "make"),
        ("<!-- exist 1 -->\n```sh\ntrue\n```\n", "nobody knows the mark"),
    ],
)
def test_what_does_not_go_as_the_page_says_is_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        Terminal(tmp_path, {}).run(page_with(tmp_path, text))


def test_what_a_block_exports_holds_for_the_next_one(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, {})
    terminal.run(page_with(tmp_path, "```sh\nexport COLOUR='a \"b\"'\nmkdir there && cd there\n```\n"))
    said = terminal.run(page_with(tmp_path, '<!-- exits 1: no -->\n```sh\nfalse\necho "$COLOUR in ${PWD##*/}"\n```\n'))
    assert said == 'a "b" in there\n'
