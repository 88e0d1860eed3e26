"""The order of keys in a pass: byte order. In another order a pass would take correct documents for orphans.

Every query requests this order. The join checks it anyway, before it uses a key.
"""

from collections.abc import Collection

from readmodel_pipelines.errors import OutOfOrder
from readmodel_pipelines.events.ids import byte_order
from readmodel_pipelines.reconcile.ranges import EVERYTHING, IdRange


class InOrder:
    """Checks the keys of `source`: in order, within a range, and only those `asked` for."""

    def __init__(self, source: str, within: IdRange = EVERYTHING, asked: Collection[str] | None = None) -> None:
        self._source = source
        self._within = within
        self._asked = None if asked is None else frozenset(asked)
        self._last = b"" if within.lower is None else byte_order(within.lower)
        self._end = None if within.upper is None else byte_order(within.upper)

    def place(self, key: str) -> bytes:
        """The position of the next key.

        Raises:
            OutOfOrder: the key must not come here.
        """
        place = byte_order(key)
        if (
            place < self._last
            or (self._end is not None and place >= self._end)
            or (self._asked is not None and key not in self._asked)
        ):
            raise self._refused(key)
        self._last = place
        return place

    def _refused(self, key: str) -> OutOfOrder:
        where = "outside of the request" if self._asked is not None else f"after {self._last!r}, of {self._within}"
        return OutOfOrder(
            f"{self._source} returned {key!r}, {where}: its keys are not in byte order. The pass ended, and nothing "
            "was deleted.",
            hint="Check the collation of that collection or view, and of its indexes. `readmodel ensure-indexes` "
            "creates indexes in byte order. If the error remains, report it.",
        )
