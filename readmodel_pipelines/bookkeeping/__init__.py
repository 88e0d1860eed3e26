"""This project's own collections: leases, rebuilds, findings, the repair queue, and keys kept while a run goes on."""
