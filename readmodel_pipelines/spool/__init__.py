"""Sorts documents of a collection that does not fit into the server's cache, on this machine's disk."""
