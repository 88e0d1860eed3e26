"""Names of collections. All are fixed or set, because MongoDB grants rights by exact names.

`readmodel_…` are this project's own; what lies in them is told by the rooms `bookkeeping` and `cutover`.
"""

from readmodel_pipelines.projections.chat import CHATS
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.task import TASKS_OF_CHATS
from readmodel_pipelines.settings import Settings

LEASES = "readmodel_leases"
REBUILDS = "readmodel_rebuilds"
FINDINGS = "readmodel_findings"
VERIFICATIONS = "readmodel_verifications"
WATERMARKS = "readmodel_watermarks"
DEFERRED = "readmodel_deferred"
TOUCHED = "readmodel_touched"
SET_ASIDE = "readmodel_set_aside"


def collection_of(settings: Settings, projection: Projection) -> str:
    """The collection that a read model lies in: the settings name those of the built-in ones."""
    named = {CHATS.read_model: settings.chats_collection, TASKS_OF_CHATS.read_model: settings.tasks_collection}
    return named.get(projection.read_model, projection.read_model)


def shadow_name(live: str) -> str:
    """The collection that a rebuild builds; it is whose rebuild holds the lease."""
    return f"readmodel_shadow_{live}"


def copy_name(live: str) -> str:
    """The copy of what the read model was before the last rebuild."""
    return f"readmodel_before_{live}"
