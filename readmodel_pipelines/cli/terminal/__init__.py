"""Shared by all commands: their construction, options, verbosity and output."""
