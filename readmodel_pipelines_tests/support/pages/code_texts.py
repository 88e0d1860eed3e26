"""The texts in the package's code: public docstrings, messages, and Dagster's descriptions.

Read from the syntax trees, so that no module is imported. A placeholder of an f-string counts as one word of code.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import readmodel_pipelines

PACKAGE = Path(readmodel_pipelines.__file__).parent
DAGSTER = PACKAGE / "orchestration"

_FEWEST_WORDS = 4
"""Shorter strings are keys, commands or column names."""
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def docstrings() -> Iterator[str]:
    """Docstrings of public modules, classes, functions and methods, without those that Dagster shows."""
    for path, tree in _trees():
        for node in _public(tree):
            docstring = ast.get_docstring(node)
            if docstring and not _is_shown_by_dagster(path, node):
                yield docstring


def messages() -> Iterator[str]:
    """String literals of a sentence's length outside `orchestration`: errors, hints, warnings, summaries, help."""
    for path, tree in _trees():
        if DAGSTER not in path.parents:
            yield from _literals(tree)


def dagster_texts() -> Iterator[str]:
    """Descriptions and messages of `orchestration`, with the docstrings of its jobs, ops, assets and checks."""
    for path, tree in _trees():
        if DAGSTER in path.parents:
            yield from _literals(tree)
            shown = (node for node in _public(tree) if _is_shown_by_dagster(path, node))
            yield from (docstring for node in shown if (docstring := ast.get_docstring(node)))


def _trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def _public(node: ast.AST) -> Iterator[_Documented]:
    if isinstance(node, _Documented):
        yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            yield from _public(child)


def _is_shown_by_dagster(path: Path, node: _Documented) -> bool:
    return DAGSTER in path.parents and isinstance(node, ast.FunctionDef) and bool(node.decorator_list)


def _literals(tree: ast.Module) -> Iterator[str]:
    # Docstrings, those of attributes included, and the parts of an f-string, which is taken whole.
    passed = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            passed |= {id(part) for part in ast.walk(node) if part is not node}
    for node in ast.walk(tree):
        if id(node) in passed:
            continue
        match node:
            case ast.Constant(value=str(text)):
                pass
            case ast.JoinedStr(values=parts):
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "`code`" for part in parts)
            case _:
                continue
        if len(re.findall(r"[\w'-]+", text)) >= _FEWEST_WORDS and "$" not in text:
            yield inspect.cleandoc(text)
