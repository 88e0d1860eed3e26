"""Rebuild, verify and repair the read models of event-sourced applications on MongoDB."""
