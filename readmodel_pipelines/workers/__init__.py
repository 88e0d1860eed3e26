"""Worker processes on this machine."""

from readmodel_pipelines.workers.pool import Send, Work, WorkerDied, work_off

__all__ = ["Send", "Work", "WorkerDied", "work_off"]
