"""What `--type` takes, for help and completion, without importing what a command needs."""

from __future__ import annotations

import os

ALL = "all"

# A test keeps these in step: reading the registry here would make every `--help` import bson.
_BUILT_IN = ("chat", "task")


def read_model_choices() -> tuple[str, ...]:
    """The names of the registry, and `all`; only where READMODEL_PROJECTIONS adds some is it read."""
    if not os.environ.get("READMODEL_PROJECTIONS"):
        return (*_BUILT_IN, ALL)
    from readmodel_pipelines.errors import ReadModelError
    from readmodel_pipelines.projections.registry import names, projections_for
    from readmodel_pipelines.settings import load_settings

    try:
        return (*names(projections_for(load_settings())), ALL)
    except ReadModelError:
        # The command says what is wrong with the settings; its help is there all the same.
        return (*_BUILT_IN, "…", ALL)
