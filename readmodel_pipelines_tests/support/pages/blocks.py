"""The pages that people read, taken apart: fenced blocks with the marks before them, headings, links.

A mark is an HTML comment on the lines before a block, invisible to readers: `<!-- exits 1: findings -->`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGES = sorted({ROOT / "README.md", *(ROOT / "readmodel_pipelines").rglob("*.md")})

_FENCE = re.compile(r"^ *(```+|~~~+) *(\w*)")
_MARK = re.compile(r"^ *<!-- (.+?) -->$")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; `line` is that of its first line of code, from 1."""

    page: Path
    line: int
    tag: str
    marks: tuple[str, ...]
    code: str

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name


def blocks_of(page: Path, tag: str | None = None) -> list[Block]:
    return [block for block in _blocks(page) if tag is None or block.tag == tag]


def _blocks(page: Path) -> Iterator[Block]:
    lines = iter(enumerate(_lines(page), start=1))
    marks: list[str] = []
    for number, line in lines:
        if mark := _MARK.match(line):
            marks.append(mark[1])
        elif fence := _FENCE.match(line):
            code = []
            for _, inside in lines:
                if inside.strip() == fence[1]:
                    break
                code.append(inside)
            else:
                raise AssertionError(f"{name_of(page)}:{number}: this block never ends")
            yield Block(page, number + 1, fence[2], tuple(marks), "\n".join(code) + "\n")
            marks = []
        elif line.strip():
            marks = []


def prose_of(page: Path) -> list[tuple[int, str]]:
    """The lines outside of fenced blocks, with their numbers."""
    inside = {
        number for block in blocks_of(page) for number in range(block.line - 1, block.line + block.code.count("\n") + 1)
    }
    return [(number, line) for number, line in enumerate(_lines(page), start=1) if number not in inside]


def links_of(page: Path) -> list[tuple[int, str]]:
    """Where the page points, images included, with the line."""
    return [(number, link) for number, line in prose_of(page) for link in _LINK.findall(line)]


def anchors_of(page: Path) -> set[str]:
    """What a link to a heading of the page may name, as GitHub makes it."""
    anchors: set[str] = set()
    for _, line in prose_of(page):
        if heading := _HEADING.match(line):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).lower()
            base = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
            number = sum(1 for known in anchors if known == base or re.fullmatch(rf"{re.escape(base)}-\d+", known))
            anchors.add(f"{base}-{number}" if number else base)
    return anchors


def _lines(page: Path) -> list[str]:
    return page.read_text(encoding="utf-8").splitlines()
