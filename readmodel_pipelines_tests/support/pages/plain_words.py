"""How plain the texts that people read are: long sentences, and words that make a reader guess.

`python -m` this module prints the figures of help, settings, pages, docstrings, messages and Dagster's texts, and the
longest sentences; with `--riddles` also the sentences that make a reader guess.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from typer.main import get_command

from readmodel_pipelines.cli import main
from readmodel_pipelines_tests.support.pages import code_texts
from readmodel_pipelines_tests.support.pages.blocks import PAGES, name_of, prose_of
from readmodel_pipelines_tests.support.pages.settings_table import meanings

LONG = 30
"""Words of a sentence that nobody wants to read at night."""
RIDDLES = re.compile(r"\b(?:what|who|whom|told|looked at|so (?:many|much|long|often))\b", re.IGNORECASE)

_CODE = re.compile(r"`[^`]*`")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_MARKUP = re.compile(r"^\s*(?:[#>]+|[-*+]|\d+\.)\s+|<!--.*?-->|[*_]{1,2}(?=\S)|(?<=\S)[*_]{1,2}")
_WORD = re.compile(r"[\w'-]+")
_ENDS = re.compile(r"(?<=[.!?:])\s+|\n")
_BEGINS_ANEW = re.compile(r"^\s*(?:#|[-*+] |\d+\. |\||>|<!--|$)")


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one kind of text: its words, its sentences, those that are long, and its riddles."""

    words: int
    sentences: int
    long: tuple[str, ...]
    riddles: tuple[str, ...]

    @property
    def riddles_a_thousand(self) -> float:
        """Riddles in a thousand words."""
        return 1000 * len(self.riddles) / max(1, self.words)


def figures_of(texts: Iterable[str]) -> Figures:
    """Count; code counts as one word."""
    said = [sentence for text in texts for sentence in sentences_of(text)]
    counts = {sentence: len(_WORD.findall(sentence)) for sentence in said}
    return Figures(
        words=sum(counts[sentence] for sentence in said),
        sentences=len(said),
        long=tuple(sorted((item for item in counts if counts[item] > LONG), key=lambda item: -counts[item])),
        riddles=tuple(sentence for sentence in said for _ in RIDDLES.findall(sentence)),
    )


def sentences_of(text: str) -> Iterator[str]:
    """The sentences of a paragraph, an item of a list or a cell of a table."""
    plain = _MARKUP.sub("", _LINK.sub(r"\1", _CODE.sub("code", text)))
    yield from (sentence for part in _ENDS.split(plain) if _WORD.search(sentence := part.strip()))


def help_texts() -> Iterator[str]:
    """What each command says of itself and of its options."""
    groups = [get_command(main.app)]
    for command in groups:
        groups += getattr(command, "commands", {}).values()
        yield from re.split(r"\n\s*\n", command.help or "")
        yield from (help_text for item in command.params if (help_text := getattr(item, "help", None)))


def page_texts() -> Iterator[str]:
    """The paragraphs, items and cells of all pages, without their code."""
    for page in PAGES:
        # Its table is the settings'.
        rows = name_of(page).endswith("docs/settings.md")
        yield from paragraphs_of((line for _, line in prose_of(page)), rows=not rows)


def paragraphs_of(lines: Iterable[str], *, rows: bool = True) -> Iterator[str]:
    """Paragraphs and items, each joined to one line, and the cells of tables unless `rows` is false."""
    paragraph: list[str] = []
    for line in lines:
        if _BEGINS_ANEW.match(line):
            yield " ".join(paragraph)
            paragraph = []
        if line.startswith("|"):
            yield from re.split(r"(?<!\\)\|", line) if rows else ()
        else:
            paragraph.append(line.strip())
    yield " ".join(paragraph)


def joined(texts: Iterable[str]) -> Iterator[str]:
    """The paragraphs of texts that are wrapped."""
    for text in texts:
        yield from paragraphs_of(text.splitlines())


def main_table() -> dict[str, Figures]:
    """The figures of each kind of text."""
    kinds: dict[str, Iterable[str]] = {
        "help": help_texts(),
        "settings": dict(meanings()).values(),
        "pages": page_texts(),
        "docstrings": joined(code_texts.docstrings()),
        "messages": joined(code_texts.messages()),
        "dagster": joined(code_texts.dagster_texts()),
    }
    return {kind: figures_of(texts) for kind, texts in kinds.items()}


if __name__ == "__main__":
    found = main_table()
    for kind, figures in found.items():
        print(
            f"{kind:10} {figures.words:6,} words  {figures.sentences:5,} sentences, {len(figures.long)} of over {LONG}"
            f" words  {figures.riddles_a_thousand:4.1f} riddles in a thousand words"
        )
    for kind, figures in found.items():
        for sentence in figures.long:
            print(f"\n{kind}: {sentence}")
    for kind, figures in found.items() if "--riddles" in sys.argv else ():
        for sentence in dict.fromkeys(figures.riddles):
            print(f"\n{kind}, riddle: {sentence}")
