"""The command line, `readmodel …`: a module for each command or group of them, named as it is typed, with its options,
its work and its output. What they share lies in `terminal/`; runs and UI of Dagster's in `dagster/`.

Everything heavy (pydantic, pymongo, rich) is imported by the command that needs it, when it runs.
"""
