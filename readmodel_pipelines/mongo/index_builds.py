"""Index builds of a server that wants to hear of a version of its API (`requireApiVersion`).

The members of a replica set vote on when an index is done, one that is alone too. A member of MongoDB 6.0 votes without
a version, is refused by that parameter, and tries again for ever: no index on a collection with documents is ever done.
8.2 has mended it; versions between were not tried. Without votes the primary commits by itself.
"""

from typing import Any

_WIRE_VERSION_OF_8_2 = 27


def votes(client: Any) -> dict[str, Any]:
    """What a `createIndexes` says of them: nothing, but where they may be refused."""
    if client.options.pool_options.server_api is None:
        return {}
    known = client.topology_description.server_descriptions().values()
    refused = any(item.replica_set_name and item.max_wire_version < _WIRE_VERSION_OF_8_2 for item in known)
    return {"commitQuorum": 0} if refused else {}
