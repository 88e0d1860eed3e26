"""Documents of a collection that does not fit into the server's cache, brought into order on this machine's disk."""
