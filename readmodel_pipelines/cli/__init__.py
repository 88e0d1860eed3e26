"""The command line, `readmodel …`. Each command or group has a module of the same name, with its options, work and
output.

`terminal/` holds the shared parts, and `dagster/` the runs and the UI of Dagster. Each command imports its heavy
packages (pydantic, pymongo, rich) only when it runs.
"""
