"""Repairs read models whose update failed, through the repair queue.

Applications save through `EventRepository`, or wrap their own update of a read model in `repair_on_failure`.
`RepairWorker` works off the queue; Dagster's sensor and `readmodel repair-queue work` run it.
"""
