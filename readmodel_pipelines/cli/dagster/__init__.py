"""Dagster as the command line meets it: runs of its web server's with `--launch`, and its UI in the demo."""
