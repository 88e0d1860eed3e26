"""Ids of aggregates and keys of documents as texts: their form, their order, and which of them a query can name.

The order is that of bytes, as MongoDB has it. Bytes that are no UTF-8 are decoded to surrogates; such a text can be
compared, and cannot be sent back in a query.
"""

import re

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def is_aggregate_id(value: object) -> bool:
    """Whether a repair, and `--id`, can name an aggregate so."""
    # `type`, because BSON code is read as a kind of str.
    return type(value) is str and UUID.fullmatch(value) is not None


def is_utf8(text: str) -> bool:
    """Whether a decoded text was valid UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_plain(key: object) -> bool:
    """Whether a query can ask for this key as it asks for aggregate ids: a text of valid UTF-8."""
    return type(key) is str and is_utf8(key)


def byte_order(key: str) -> bytes:
    """The text's bytes, by which MongoDB orders it; Python's own order of surrogates is another."""
    return key.encode("utf-8", "surrogateescape")
