"""The page of a report: the template beside this file, filled with data. It opens offline and asks nobody anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

_DATA = "/*DATA*/"


def page(
    summary: Mapping[str, Any],
    findings: Sequence[Mapping[str, Any]],
    total: int,
    fields: Mapping[tuple[str, str], int],
    history: Sequence[Mapping[str, Any]],
) -> str:
    """The HTML text. `findings` are the first of `total`; `fields` counts differing fields by read model and name."""
    data = {
        "summary": {name: value for name, value in summary.items() if name != "findings"},
        "findings": findings,
        "total": total,
        "fields": [[model, field, number] for (model, field), number in sorted(fields.items(), key=_most_first)],
        "history": history,
    }
    template = files("readmodel_pipelines.reports").joinpath("page.html").read_text("utf-8")
    before, after = template.split(_DATA)
    return before + _for_a_script(data) + after


def _most_first(item: tuple[tuple[str, str], int]) -> tuple[int, tuple[str, str]]:
    return -item[1], item[0]


def _for_a_script(data: object) -> str:
    """As JSON that no reader of HTML or script can mistake: what production data holds may be hostile."""
    text = json.dumps(data)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
