"""The names of the built-in read models; the command line's help uses them without importing the projections."""

CHAT, TASK = "chat", "task"
BUILT_IN = (CHAT, TASK)
ALL = "all"
"""Means every read model, so no read model may have this name."""
