"""Ids of aggregates and keys of documents as texts: their form, their order, and whether a query can contain them.

The order is byte order, as in MongoDB. Bytes that are no UTF-8 are decoded to surrogates; such a text can be compared,
but not sent in a query.
"""

import re

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def is_aggregate_id(value: object) -> bool:
    """Whether a repair, and `--id`, can name an aggregate with this id."""
    # `type`, because BSON code is a subclass of str.
    return type(value) is str and UUID.fullmatch(value) is not None


def is_utf8(text: str) -> bool:
    """Whether a decoded text was valid UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_plain(key: object) -> bool:
    """Whether a query can ask for this key: a text of valid UTF-8."""
    return type(key) is str and is_utf8(key)


def byte_order(key: str) -> bytes:
    """The text's bytes, by which MongoDB orders it; Python orders surrogates differently."""
    return key.encode("utf-8", "surrogateescape")
