"""Repair: the way from a failed read-model update, through the repair queue, to a read model that is right again.

Applications save through `EventRepository`, or put `repair_on_failure` around their own update of a read model.
`RepairWorker` works off the queue; Dagster's sensor and `readmodel repair-queue work` are two ways to run it.
"""
