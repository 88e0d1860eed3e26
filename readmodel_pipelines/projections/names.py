"""What people call the built-in read models; for the command line's help, too, which imports none of them."""

CHAT, TASK = "chat", "task"
BUILT_IN = (CHAT, TASK)
ALL = "all"
"""Means every read model that there is, so that none may be called so."""
