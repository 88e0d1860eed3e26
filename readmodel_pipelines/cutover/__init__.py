"""Builds a collection beside the live one, and renames it over the live one."""
