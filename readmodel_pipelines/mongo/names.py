"""Names of collections. All are fixed or set, because MongoDB grants rights by exact names.

`readmodel_…` are this project's own. The docstrings of their names are the table of docs/collections.md.
"""

from readmodel_pipelines.projections.chat import CHATS
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.task import TASKS_OF_CHATS
from readmodel_pipelines.settings import Settings

LEASES = "readmodel_leases"
"""Leases of rebuilds and repairs, and the presence of workers."""
REBUILDS = "readmodel_rebuilds"
"""Each full rebuild with its state, and each of its ranges with its checkpoint."""
FINDINGS = "readmodel_findings"
"""The findings of verifications: open, closed, and documents that lagged."""
VERIFICATIONS = "readmodel_verifications"
"""The numbers and causes of each verification."""
WATERMARKS = "readmodel_watermarks"
"""The resume token from which `--since last` continues."""
IGNORED = "readmodel_ignored"
"""The rules that ignore known findings until a date."""
DEFERRED = "readmodel_deferred"
"""Deletions and conflicts of keys that wait for the end of all ranges of a rebuild."""
TOUCHED = "readmodel_touched"
"""Aggregates with new events, and documents with changed foreign fields, since a rebuild began."""
SET_ASIDE = "readmodel_set_aside"
"""Dead letters of repair tasks that cannot be written."""
OURS = (LEASES, REBUILDS, FINDINGS, VERIFICATIONS, WATERMARKS, IGNORED, DEFERRED, TOUCHED, SET_ASIDE)
"""All collections of this project, whatever the settings name."""

_NAMES = 4


def collection_of(settings: Settings, projection: Projection) -> str:
    """The collection of a read model: the settings name those of the built-in ones."""
    named = {CHATS.read_model: settings.chats_collection, TASKS_OF_CHATS.read_model: settings.tasks_collection}
    return named.get(projection.read_model, projection.read_model)


def shadow_names(live: str) -> tuple[str, ...]:
    """The possible names of a shadow; a process that takes it over renames it to the next."""
    return _pool("shadow", live)


def copy_names(live: str) -> tuple[str, ...]:
    """The possible names of the copy of a read model before its last rebuild."""
    return _pool("before", live)


def _pool(what: str, live: str) -> tuple[str, ...]:
    # The number comes before the live collection's name; after it, another collection might have that name.
    return tuple(f"readmodel_{what}{number}_{live}" for number in ("", *range(2, _NAMES + 1)))
