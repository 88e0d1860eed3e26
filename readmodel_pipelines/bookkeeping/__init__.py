"""This project's own collections: leases, rebuilds, findings, the repair queue, and keys stored during a run."""
