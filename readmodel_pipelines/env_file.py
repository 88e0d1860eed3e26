"""The file `.env` in the current folder: its READMODEL_* variables, as `dg dev` reads them.

The environment takes precedence, so that a shell can override a value for one command. In Dagster the file takes
precedence; the doctor reports variables with two values.
"""

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

_PREFIX = "READMODEL_"
NAME = ".env"


def settings_of(folder: Path) -> dict[str, str]:
    """The variables of a folder's file that are settings; none if the file cannot be read."""
    file = folder / NAME
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    if _PREFIX not in text:
        return {}
    from io import StringIO

    from dotenv import dotenv_values

    found = dotenv_values(stream=StringIO(text))
    return {name: value for name, value in found.items() if name.startswith(_PREFIX) and value is not None}


def take_in(environment: MutableMapping[str, str], folder: Path) -> None:
    """Add the variables of the file that the environment lacks."""
    for name, value in settings_of(folder).items():
        environment.setdefault(name, value)


def contradicted(environment: Mapping[str, str], folder: Path) -> list[str]:
    """The variables with different values in file and environment, by name."""
    return sorted(
        name for name, value in settings_of(folder).items() if environment.get(name, value) != value and value
    )


def take_in_here() -> None:
    """The same for this process."""
    take_in(os.environ, Path.cwd())
