"""Index builds on a server that requires the Stable API (`requireApiVersion`).

The members of a replica set, even a single one, vote on the end of an index build. A member of MongoDB 6.0 votes
without an API version, is refused by that parameter, and tries again forever. So no index on a collection with
documents is ever finished. 8.2 has fixed this; versions between were not tested. Without votes the primary commits
alone.
"""

from typing import Any

_WIRE_VERSION_OF_8_2 = 27


def votes(client: Any) -> dict[str, Any]:
    """The vote option of a `createIndexes`: none, unless votes may be refused."""
    if client.options.pool_options.server_api is None:
        return {}
    known = client.topology_description.server_descriptions().values()
    refused = any(item.replica_set_name and item.max_wire_version < _WIRE_VERSION_OF_8_2 for item in known)
    return {"commitQuorum": 0} if refused else {}
