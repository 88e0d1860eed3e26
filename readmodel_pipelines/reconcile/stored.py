"""A stored document in a full pass: compared by its bytes, and decoded only if they differ.

A document that its projection wrote has the bytes of the expected one. To encode the expected document takes a fifth of
the time of decoding the stored one and comparing the values.
"""

from collections.abc import Callable
from typing import Any

import bson

from readmodel_pipelines.projections.projection import Document


class Stored:
    """A document of `raw` bytes; its `key` is a text, except a symbol or two keys, which lie among the texts.

    `fields_at` is the position of the first field after `_id`; 0 if `_id` is not the first one.
    """

    __slots__ = ("_decode", "_document", "_fields_at", "key", "raw")

    def __init__(self, key: Any, raw: bytes, fields_at: int, decode: Callable[[bytes], Document]) -> None:
        self.key = key
        self.raw = raw
        self._fields_at = fields_at
        self._decode = decode
        self._document: Document | None = None

    @property
    def document(self) -> Document:
        """The decoded document."""
        if self._document is None:
            self._document = self._decode(self.raw)
        return self._document

    def __getitem__(self, name: str) -> Any:
        return self.document[name]

    def get(self, name: str) -> Any:
        """The value of a field, None if it is missing."""
        return self.document.get(name)

    def has_bytes_of(self, expected: Document) -> bool:
        """Whether it has the fields of this document in the same order, and no other one.

        If not, it may still be equal: its fields may have another order.
        """
        if not self._fields_at:
            return False
        try:
            # After the length of either document.
            return self.raw[self._fields_at :] == bson.encode(expected)[4:]
        except Exception:  # noqa: BLE001 - the driver raises different errors for types that it does not know
            return False
