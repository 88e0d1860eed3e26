"""The order of keys that stream past: that of their bytes. A pass that met another one would take right for orphaned.

Every query asks for this order. Whoever joins what comes back checks it all the same, before anything is made of it.
"""

from collections.abc import Collection

from readmodel_pipelines.errors import OutOfOrder
from readmodel_pipelines.events.ids import byte_order
from readmodel_pipelines.reconcile.ranges import EVERYTHING, IdRange


class InOrder:
    """Keys of `source`, each not before the last one, all within a range, and none but those `asked` for."""

    def __init__(self, source: str, within: IdRange = EVERYTHING, asked: Collection[str] | None = None) -> None:
        self._source = source
        self._within = within
        self._asked = None if asked is None else frozenset(asked)
        self._last = b"" if within.lower is None else byte_order(within.lower)
        self._end = None if within.upper is None else byte_order(within.upper)

    def place(self, key: str) -> bytes:
        """The place of the next key.

        Raises:
            OutOfOrder: it cannot come here.
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
            f"{self._source} gave {key!r}, {where}: its keys are not in byte order. The pass ended, and nothing was "
            "deleted.",
            hint="Check the collation of that collection or view, and of its indexes; `readmodel ensure-indexes` "
            "makes those that go by bytes. If it happens all the same, report it.",
        )
