"""The table of docs/settings.md, made from the settings themselves; `from_code.py` puts it into the page."""

import ast
import inspect
from collections.abc import Iterator
from typing import Any

from pydantic import SecretStr

from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.numbers import ends_of, numbers_in

_HEAD = "| variable | default | range | meaning |\n|---|---|---|---|\n"
# What the machine decides has no value to show.
_DEFAULTS = {"workers": "the cores, at most 4", "data_dir": "the user's data folder"}
_MORE = {
    "projections": "extending.md",
    "slices": "scaling_out.md",
    "causes_limit": "verifying.md#why",
    "alert_webhook": "monitoring.md#without-prometheus",
}


def settings_table() -> str:
    """The head, then a row for each setting, in the order of the class."""
    said = dict(meanings())
    return _HEAD + "".join(_row(name, field, said[name]) for name, field in Settings.model_fields.items())


def meanings() -> Iterator[tuple[str, str]]:
    """The name of each setting, and its docstring in one line."""
    (declared,) = ast.parse(inspect.getsource(Settings)).body
    assert isinstance(declared, ast.ClassDef)
    for field, docstring in zip(declared.body, declared.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(docstring, ast.Expr):
            assert isinstance(field.target, ast.Name)
            yield field.target.id, " ".join(str(ast.literal_eval(docstring.value)).split())


def _row(name: str, field: Any, meaning: str) -> str:
    limits = " to ".join(map(str, ends_of(field))) + " " if numbers_in(field.annotation) else ""
    more = f" [More]({_MORE[name]})." if name in _MORE else ""
    return f"| `READMODEL_{name.upper()}` | {_default(name, field)} | {limits}| {meaning}{more} |\n"


def _default(name: str, field: Any) -> str:
    if name in _DEFAULTS:
        return _DEFAULTS[name]
    value = field.default
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return f"`{value}`" if value not in (None, (), frozenset()) else "none"
