"""Full rebuilds of any size while the application runs: ranges, resume, catch-up, shadow, pacing."""

from readmodel_pipelines.rebuild.request import RebuildRequest, Slice
from readmodel_pipelines.rebuild.rollback import roll_back
from readmodel_pipelines.rebuild.run import rebuild
from readmodel_pipelines.rebuild.verbs import abort

__all__ = ["RebuildRequest", "Slice", "abort", "rebuild", "roll_back"]
