"""A collection that is built beside the live one, and the rename that puts it in its place."""
