"""Dagster from the command line: runs launched with `--launch`, and the UI of the demo."""
