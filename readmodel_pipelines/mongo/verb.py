"""A verb of the library: it waits for a primary, and reads and writes with majority, whatever database it gets."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from readmodel_pipelines.mongo.driver import Database, ours
from readmodel_pipelines.mongo.patience import ensure_retrying
from readmodel_pipelines.settings import Settings

_P = ParamSpec("_P")
_R = TypeVar("_R")


def verb(do: Callable[Concatenate[Database, Settings, _P], _R]) -> Callable[Concatenate[Database, Settings, _P], _R]:
    """Make a function of a database and settings a verb."""

    @wraps(do)
    def at_work_on(database: Database, settings: Settings, /, *args: _P.args, **options: _P.kwargs) -> _R:
        with ensure_retrying(settings.failover_seconds):
            return do(ours(database), settings, *args, **options)

    return at_work_on
