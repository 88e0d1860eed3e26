"""The file `.env` in the folder that a command is started in: its READMODEL_* variables, as `dg dev` has them.

What the environment says goes first, so that a shell can say otherwise for one command. Dagster lets the file go first:
where both say something else, the doctor tells.
"""

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

_PREFIX = "READMODEL_"
NAME = ".env"


def settings_of(folder: Path) -> dict[str, str]:
    """The variables of the file in a folder that are settings; none where nobody can read such a file."""
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
    """Add what the file says and the environment does not."""
    for name, value in settings_of(folder).items():
        environment.setdefault(name, value)


def contradicted(environment: Mapping[str, str], folder: Path) -> list[str]:
    """The variables to which file and environment give different values, by name."""
    return sorted(
        name for name, value in settings_of(folder).items() if environment.get(name, value) != value and value
    )


def take_in_here() -> None:
    """The same for this process."""
    take_in(os.environ, Path.cwd())
