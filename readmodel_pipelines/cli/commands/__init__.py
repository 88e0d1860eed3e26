"""What `readmodel …` takes: a module for each group of commands, thin over what does the work.

Everything heavy (pydantic, pymongo, rich) is imported by the command that needs it.
"""
