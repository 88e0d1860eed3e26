"""The parts of the pages that are made from the code, so that they cannot be wrong.

`python -m` this module writes them. A part stands between `<!-- from the code: NAME -->` and `<!-- end of NAME -->`. A
test compares every one of them.
"""

import ast
import importlib
import inspect
import pkgutil
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import yaml
from typer.main import get_command

import readmodel_pipelines
from readmodel_pipelines import _MODULES
from readmodel_pipelines.cli import main
from readmodel_pipelines.cli.terminal.help import ENDING, HEADINGS
from readmodel_pipelines.cli.terminal.voice import voice_options
from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.metrics.catalogue import METRICS
from readmodel_pipelines.mongo import names
from readmodel_pipelines.mongo.rights import ROLES, Role, privileges
from readmodel_pipelines.mongo.wanted_indexes import Index, wanted_indexes
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.pages.blocks import ROOT, name_of
from readmodel_pipelines_tests.support.pages.settings_table import settings_table

_DOCS = ROOT / "readmodel_pipelines" / "docs"
_PART = re.compile(r"<!-- from the code: (.+?) -->\n.*?<!-- end of \1 -->\n", re.DOTALL)
_POOLS = {"shadow": "shadows", "before": "copies"}
_WRITES = {"insert", "update", "remove"}
_DEFINES = {"createIndex", "dropIndex", "collMod", "dropCollection"}
_DAY = 24 * 60 * 60
_CALLED: Mapping[str, Sequence[str]] = {
    "ReadModelProjector": ("process_event", "rebuild_one", "rebuild_all", "verify_consistency", "verify_all"),
    "Summary": ("as_json",),
    "EventRepository": ("save",),
    "RepairQueue": ("add", "add_many", "requeue", "purge", "stats"),
    "RepairWorker": ("work",),
}
"""The methods that an application calls; the others of these classes are for this project's own packages."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a page; `make` gives its text, which ends with a line break."""

    page: Path
    name: str
    make: Callable[[], str]


def in_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _code(items: Iterable[str]) -> str:
    return ", ".join(f"`{item}`" for item in items)


# Errors


def _all_modules() -> Iterator[ModuleType]:
    for module in pkgutil.walk_packages(readmodel_pipelines.__path__, "readmodel_pipelines."):
        # Those are Dagster's, and a command line has no other errors for them.
        if not re.match(r"readmodel_pipelines\.(orchestration|definitions|docs)", module.name):
            yield importlib.import_module(module.name)


def all_errors() -> list[type[ReadModelError]]:
    """Every error of this project that a person can meet, by its code; the root is met as `error`."""
    list(_all_modules())
    found: list[type[ReadModelError]] = [ReadModelError]
    for kind in found:
        found += [item for item in kind.__subclasses__() if item not in found]
    ours = [item for item in found if item.__module__.startswith("readmodel_pipelines.")]
    return sorted({item.code: item for item in reversed(ours)}.values(), key=lambda item: item.code)


def _exit_codes() -> str:
    errors = defaultdict(list)
    for kind in all_errors():
        errors[str(kind.exit_code)].append(kind.code)
    rows = [(code, meaning, _code(errors[code])) for code, meaning in ENDING["Exit codes"]]
    return in_table(("exit code", "meaning", "error codes"), rows)


def _error_codes() -> str:
    rows = [(f"`{kind.code}`", str(kind.exit_code), _first_paragraph(kind.__doc__)) for kind in all_errors()]
    return in_table(("error code", "exit code", "meaning"), rows)


def _first_paragraph(text: str | None) -> str:
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())


# Commands


def _commands() -> str:
    voices = {option.name for option in voice_options()} | {"help"}
    sections: dict[str, list[str]] = {heading: [] for heading in HEADINGS}
    group: Any = get_command(main.app)
    for name, command in group.commands.items():
        below = getattr(command, "commands", {"": command})
        sections[command.rich_help_panel] += [
            _command(f"{name} {word}".rstrip(), item, voices) for word, item in below.items()
        ]
    return "\n".join(f"## {heading}\n\n" + "\n".join(texts) for heading, texts in sections.items())


def _command(name: str, command: Any, voices: Iterable[str]) -> str:
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", inspect.cleandoc(command.help or ""))]
    rows = [_option(item) for item in command.params if item.name not in voices]
    table = "\n" + in_table(("option", "default", "meaning"), rows) if rows else ""
    return f"### readmodel {name}\n\n" + "\n\n".join(paragraphs) + f"\n{table}"


def _option(option: Any) -> tuple[str, str, str]:
    named = option.opts[0] if option.param_type_name == "option" else ""
    takes = "" if getattr(option, "is_flag", False) else option.metavar or _takes(option)
    default = "required" if option.required else "" if option.default in (None, False) else f"`{option.default}`"
    return f"`{' '.join(filter(None, (named, takes)))}`", default, option.help or ""


def _takes(option: Any) -> str:
    if choices := get_args(option.type_descriptor.annotation):
        return "|".join(map(str, choices))
    numbers = (option.min, option.max) if option.min is not None else ()
    return " to ".join(f"{number:,}" for number in numbers) or "TEXT"


# Metrics and alerts


def _metrics() -> str:
    rows = [(f"`{item.name}`", _code(item.labels), item.meaning) for item in METRICS.values()]
    return in_table(("metric", "labels", "meaning"), rows)


def _alerts() -> str:
    text = (ROOT / "readmodel_pipelines" / "metrics" / "alerts.yaml").read_text(encoding="utf-8")
    rows = []
    for rule in (rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]):
        page, _, section = rule["annotations"]["runbook"].removeprefix("docs/").partition("#")
        where = f"{'' if page == 'monitoring.md' else page}#{section}"
        runbook = f"[{section.replace('-', ' ')}]({where})"
        rows.append((f"`{rule['alert']}`", rule["labels"]["severity"], rule["for"], runbook))
    return in_table(("alert", "severity", "after", "runbook"), rows)


# Rights and collections


def _actions(role: Role) -> Mapping[str, set[str]]:
    """The actions of a role by collection; the pools of names are one each."""
    actions: dict[str, set[str]] = defaultdict(set)
    for item in privileges(role, Settings()):
        where = item["resource"].get("collection", "the server")
        actions[_without_pool(where) or "the database"].update(item["actions"])
    return actions


def _without_pool(collection: str) -> str:
    found = re.match(r"readmodel_(shadow|before)\d?_", collection)
    return _POOLS[found[1]] if found else collection


def _roles() -> str:
    rows = [
        (f"`{role.name}`", role.purpose[0].upper() + role.purpose[1:], _where(role, _WRITES), _where(role, _DEFINES))
        for role in ROLES
    ]
    return in_table(("role", "purpose", "writes documents of", "creates, changes or drops"), rows)


def _where(role: Role, actions: Collection[str]) -> str:
    places = sorted(place for place, allowed in _actions(role).items() if allowed & set(actions))
    return ", ".join(f"`{place}`" if place not in _POOLS.values() else place for place in places)


def _held() -> Mapping[str, str]:
    """What each collection holds, by its name."""
    return {str(getattr(names, name)): text for name, text in _assigned(names).items() if name.isupper()}


def _assigned(module: ModuleType) -> Mapping[str, str]:
    """The docstrings of what a module assigns, by name."""
    texts = {}
    for field, text in pairwise(ast.parse(inspect.getsource(module)).body):
        target = field.targets[0] if isinstance(field, ast.Assign) else getattr(field, "target", None)
        if isinstance(target, ast.Name) and isinstance(text, ast.Expr):
            texts[target.id] = _first_paragraph(ast.literal_eval(text.value))
    return texts


def _collections() -> str:
    held = _held()
    writing = {role.name: _actions(role) for role in ROLES if role.name not in ("dagster", "load")}
    rows = []
    for name in names.OURS:
        writers = [role for role, actions in writing.items() if actions.get(name, set()) & set(_WRITES)]
        rows.append((f"`{name}`", held[name], _code(writers)))
    return in_table(("collection", "content", "written by the roles"), rows)


def _indexes() -> str:
    rows = [
        (f"`{collection}`", f"`{{{', '.join(f'{name}: {way}' for name, way in index.key)}}}`", _about(index))
        for collection, indexes in wanted_indexes(Settings()).items()
        for index in indexes
    ]
    return in_table(("collection", "index", "options"), rows)


def _about(index: Index) -> str:
    only = ", ".join(f"`{name}: {value}`" for name, value in (index.only or {}).items())
    parts = (
        "unique" if index.unique else "",
        f"only {only}" if only else "",
        f"documents expire; days: {index.expire_seconds // _DAY}" if index.expire_seconds else "",
    )
    return "; ".join(filter(None, parts))


# The Python API


def _python_api() -> str:
    rows = [row for name in _MODULES if not _is_error(getattr(readmodel_pipelines, name)) for row in _named(name)]
    return in_table(("name", "meaning"), rows)


def _is_error(given: object) -> bool:
    return isinstance(given, type) and issubclass(given, ReadModelError)


def _named(name: str) -> Iterator[tuple[str, str]]:
    """Its row, and one for each public method of a class that an application calls."""
    given = getattr(readmodel_pipelines, name)
    if not isinstance(given, type) and not inspect.isfunction(given):
        yield f"`{name}`", _assigned(importlib.import_module(f"readmodel_pipelines.{_MODULES[name]}"))[name]
        return
    yield f"`{name}{_taken(given) if inspect.isfunction(given) else ''}`", _first_paragraph(given.__doc__)
    for method in _CALLED.get(name, ()):
        function = getattr(given, method)
        yield f"`{name}.{method}{_taken(function)}`", _first_paragraph(function.__doc__)


def _taken(function: Callable[..., Any]) -> str:
    """The names of the parameters: how an annotation is written differs from one Python to the next."""
    parameters = [
        parameter.replace(annotation=parameter.empty, default=parameter.empty)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name != "self"
    ]
    return str(inspect.Signature(parameters))


PARTS = (
    Part(_DOCS / "settings.md", "settings", settings_table),
    Part(_DOCS / "command_line.md", "exit codes", _exit_codes),
    Part(_DOCS / "command_line.md", "error codes", _error_codes),
    Part(_DOCS / "commands.md", "commands", _commands),
    Part(_DOCS / "monitoring.md", "metrics", _metrics),
    Part(_DOCS / "monitoring.md", "alerts", _alerts),
    Part(_DOCS / "rights.md", "roles", _roles),
    Part(_DOCS / "python_api.md", "python api", _python_api),
    Part(_DOCS / "collections.md", "collections", _collections),
    Part(_DOCS / "collections.md", "indexes", _indexes),
)


def made_anew(page: Path) -> str:
    """The text of a page with its parts made anew."""
    made = {part.name: part.make for part in PARTS if part.page == page}
    text = page.read_text(encoding="utf-8")
    assert [found[1] for found in _PART.finditer(text)] == list(made), f"{name_of(page)}: has {list(made)}, in order"
    return _PART.sub(
        lambda found: f"<!-- from the code: {found[1]} -->\n{made[found[1]]()}<!-- end of {found[1]} -->\n", text
    )


def pages_with_parts() -> list[Path]:
    """The pages that have a part which is made from the code."""
    return list(dict.fromkeys(part.page for part in PARTS))


if __name__ == "__main__":
    for of_code in pages_with_parts():
        of_code.write_text(made_anew(of_code), encoding="utf-8")
