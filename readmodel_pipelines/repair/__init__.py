"""Repair: the way from a failed read-model update, through the repair queue, to a read model that is right again."""
