"""Every number that a person may give has a range that is said; what lies beyond is refused before anything is done.

The tables are the program's own: a new knob without a range fails here.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import typer

from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.rebuild.request import Slice
from readmodel_pipelines.settings import MOST_SLICES, Settings, load_settings
from readmodel_pipelines.verification.coverage import Bucket
from readmodel_pipelines_tests.support.numbers import ends_of, numbers_in
from readmodel_pipelines_tests.support.pages.blocks import ROOT
from readmodel_pipelines_tests.support.verbs.command_line import COMMANDS

MISTYPED = (
    *("inf", "-inf", "nan", "NaN", "1e30", "-1e30", "1e-320", "1e400", str(10**30), "9" * 5_000, "-1", "-0.5", "0"),
    *("0x10", "٣", "½", "1,5", "1 000", "1_000", " 5 ", "five", "5s", "True", "--1", "", " ", "\0", "\udcff"),
)
FRACTIONS: dict[str, tuple[Callable[[str], Any], int]] = {
    "--slice": (Slice.parse, MOST_SLICES),
    "--bucket": (Bucket.parse, 999_999),
}
"""Options that take two numbers, as K/N."""
NEEDED = {"--type": "chat", "--id": "an id", "--status": "failed", "REBUILD": "an id", "FOLDER": "."}

_UsageError: Any = typer.BadParameter.__bases__[0]


def given(take: Callable[[], Any]) -> tuple[Any, str]:
    """What is made of a value, or with which words it is refused, as a usage error."""
    try:
        return take(), ""
    except UsageError as refused:
        return None, refused.message
    except _UsageError as refused:
        return None, str(refused.format_message()) if refused.exit_code == 2 else ""


def taken_by(command: Any, option: str, typed: list[str]) -> Any:
    return command.make_context("command", typed).params[option]


KNOBS = {name: field for name, field in Settings.model_fields.items() if numbers_in(field.annotation)}


def options() -> Iterator[Any]:
    for words, command in COMMANDS.items():
        for parameter in command.params:
            annotation = parameter.type_descriptor.annotation
            if numbers_in(annotation):
                yield pytest.param(words, parameter, id=" ".join((*words, parameter.opts[0])))


@pytest.mark.parametrize("name", KNOBS)
def test_a_setting_has_a_range_that_its_page_says(name: str) -> None:
    lowest, highest = ends_of(KNOBS[name])
    page = (ROOT / "readmodel_pipelines" / "docs" / "settings.md").read_text(encoding="utf-8")
    (said,) = re.findall(rf"^\| `READMODEL_{name.upper()}` \| [^|]+ \| ([^|]+) \|", page, flags=re.MULTILINE)
    assert said == f"{lowest} to {highest}"


@pytest.mark.parametrize("mistyped", [text for text in MISTYPED if "\0" not in text])
def test_a_setting_beyond_its_range_is_refused_in_words(monkeypatch: pytest.MonkeyPatch, mistyped: str) -> None:
    for name in KNOBS:
        monkeypatch.setenv(f"READMODEL_{name.upper()}", mistyped)
    _, said = given(load_settings)
    refused = {name for name in KNOBS if f"READMODEL_{name.upper()}: " in said}
    for name in refused:
        monkeypatch.delenv(f"READMODEL_{name.upper()}")
    settings = load_settings()
    for name in KNOBS.keys() - refused:
        lowest, highest = ends_of(KNOBS[name])
        taken = getattr(settings, name)
        assert taken is None or lowest <= taken <= highest, name


@pytest.mark.parametrize(("words", "option"), list(options()))
def test_an_option_has_a_range_that_its_help_says_and_takes_nothing_beyond(words: tuple[str, ...], option: Any) -> None:
    command = COMMANDS[words]
    assert option.min is not None, "no lowest"
    assert option.max is not None, "no highest"
    help_text = command.get_help(command.context_class(command, info_name=words[-1]))
    assert f"{option.min}<=x<={option.max}" in re.sub(r"\s+", "", help_text)
    needed = [
        part
        for item in command.params
        if item.required
        for part in ((item.opts[0], NEEDED[item.opts[0]]) if item.opts[0] in NEEDED else (NEEDED[item.make_metavar()],))
    ]
    for mistyped in MISTYPED:
        typed = [*needed, option.opts[0], mistyped]
        taken, refused = given(partial(taken_by, command, option.name, typed))
        assert refused or option.min <= taken <= option.max, mistyped
        assert not refused or option.opts[0] in refused


@pytest.mark.parametrize("option", FRACTIONS)
def test_a_part_of_a_whole_is_two_numbers_in_their_range(option: str) -> None:
    parse, most = FRACTIONS[option]
    assert (parse(" 3 / 16 ").number, parse(f"1/{most}").of) == (3, most)
    for wrong in (*MISTYPED, *(f"1/{text}" for text in MISTYPED), *(f"{text}/7" for text in MISTYPED)):
        if wrong in ("1/ 5 ", " 5 /7"):
            continue
        with pytest.raises(UsageError) as refused:
            parse(wrong)
        assert f"{most}" in refused.value.hint.replace(",", "")
        assert len(refused.value.message) < 200
    for wrong in ("0/7", "8/7", "1/0", f"1/{most + 1}", "1/100000000000000", "1", "1/2/3"):
        with pytest.raises(UsageError):
            parse(wrong)


def test_every_option_that_takes_a_part_is_known_here() -> None:
    found = {item.opts[0] for command in COMMANDS.values() for item in command.params if item.metavar == "K/N"}
    assert found == set(FRACTIONS)
