"""Rights: for each kind of work the role that has what it needs on the server, and nothing more.

MongoDB grants by the exact name of a collection, so every collection that this project works with has a fixed name.
What must stay true: no role but `load` may write events, `read_only` writes nothing, and `verify` nothing but what it
remembers (`readmodel_…`). A test runs every command as a user with just its role, and without each single right of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError

from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.mongo import names
from readmodel_pipelines.mongo.names import DEFERRED, TOUCHED, collection_of, copy_name, shadow_name
from readmodel_pipelines.mongo.scan import Document
from readmodel_pipelines.mongo.wanted_indexes import wanted_indexes
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.settings import Settings

Privilege = dict[str, Any]
"""As MongoDB has it: `{"resource": {"db", "collection"}, "actions": […]}`; a resource of the server's is `cluster`."""

WHOLE_DATABASE = ""
_SERVER = "$server"
"""Stands for the server itself; no collection has a `$` in its name."""

_SHOWN = 5
# What the server says when it denies: the command with its collection, and half a page behind.
_COMMAND = re.compile(r'execute command \{ (\w+): "([^"]+)"')

_WRITE = "insert update remove"
_Grants = Iterator[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Names:
    """The names of the collections, as the settings have them."""

    events: str
    models: Sequence[str]
    queue: str
    indexed: Sequence[str]
    expiring: Sequence[str]


@dataclass(frozen=True, slots=True)
class Role:
    """What one kind of work may do, and what it is for; `on_server` roles lie in the database `admin`."""

    name: str
    purpose: str
    grants: Callable[[_Names], _Grants]
    on_server: bool = False

    @property
    def mongodb_name(self) -> str:
        """The name that it has on the server."""
        return f"readmodel_{self.name}"


def role_named(name: str) -> Role:
    """The role with this name.

    Raises:
        UsageError: there is none.
    """
    for role in ROLES:
        if role.name == name:
            return role
    raise UsageError(f"There is no role {name!r}.", hint=f"Take one of: {', '.join(role.name for role in ROLES)}.")


def privileges(role: Role, settings: Settings, projections: Iterable[Projection]) -> list[Privilege]:
    """The role's privileges on the collections that the settings name, in order of their names."""
    actions: dict[str, set[str]] = {}
    for collection, granted in role.grants(_names(settings, projections)):
        actions.setdefault(collection, set()).update(granted.split())
    return [
        {"resource": _resource(settings, collection), "actions": sorted(granted)}
        for collection, granted in sorted(actions.items())
    ]


def script(role: Role, settings: Settings, projections: Iterable[Projection]) -> str:
    """What makes the role, or brings it up to date, in mongosh."""
    database = json.dumps("admin" if role.on_server else settings.database)
    lines = ",\n".join(f"      {json.dumps(item)}" for item in privileges(role, settings, projections))
    return f"""\
// {role.mongodb_name}: {role.purpose}
{{
  const database = db.getSiblingDB({database});
  const role = {{
    role: {json.dumps(role.mongodb_name)},
    privileges: [
{lines}
    ],
    roles: []
  }};
  if (database.getRole(role.role)) {{
    database.updateRole(role.role, {{ privileges: role.privileges, roles: role.roles }});
  }} else {{
    database.createRole(role);
  }}
}}
"""


def held(database: Database[Document]) -> list[Privilege] | None:
    """What the user of this connection may do; None when nobody is logged in. Needs no right itself."""
    told = database.command("connectionStatus", showPrivileges=True)["authInfo"]
    return list(told["authenticatedUserPrivileges"]) if told["authenticatedUsers"] else None


def what_is_lacking(
    database: Database[Document], settings: Settings, role: str, error: OperationFailure
) -> tuple[str, str]:
    """In words, when the server denied something: what the user may not do of what the role holds; and what to do."""
    lacks: list[tuple[str, str]] = []
    if role:
        wanted = privileges(role_named(role), settings, projections_for(settings))
        with suppress(PyMongoError):
            lacks = lacking(wanted, held(database) or [])
    if not lacks:
        command = _COMMAND.search(str(error))
        told = f"`{command[1]}` on {settings.database}.{command[2]}" if command else "what was asked for"
        hint = "`readmodel rights` lists the roles; `readmodel rights ROLE` prints what makes one."
        return f"The user may not {told}.", hint
    hint = f"Give the user the role that `readmodel rights {role}` prints."
    return f"The user may not {in_places(lacks)}.", hint


def in_places(lacks: Iterable[tuple[str, str]]) -> str:
    """What `lacking` gives, in words, place by place."""
    places: dict[str, list[str]] = {}
    for action, where in lacks:
        places.setdefault(where, []).append(action)
    shown = [f"{', '.join(actions)} on {where}" for where, actions in list(places.items())[:_SHOWN]]
    more = f"; and more on {len(places) - _SHOWN} others" if len(places) > _SHOWN else ""
    return f"{'; '.join(shown)}{more}"


def lacking(wanted: Iterable[Privilege], held: Sequence[Privilege]) -> list[tuple[str, str]]:
    """(action, where) of what is wanted and not held."""
    return [
        (action, _in_words(privilege["resource"]))
        for privilege in wanted
        for action in privilege["actions"]
        if not any(action in item["actions"] and _covers(item["resource"], privilege["resource"]) for item in held)
    ]


def _covers(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    if held.get("anyResource"):
        return True
    if "cluster" in wanted or "cluster" in held:
        return bool(wanted.get("cluster") and held.get("cluster"))
    return all(held.get(part) in ("", wanted[part]) for part in ("db", "collection"))


def _in_words(resource: Mapping[str, Any]) -> str:
    if resource.get("cluster"):
        return "the server"
    return ".".join(part for part in (resource["db"], resource["collection"]) if part)


def _resource(settings: Settings, collection: str) -> dict[str, Any]:
    return {"cluster": True} if collection == _SERVER else {"db": settings.database, "collection": collection}


def _names(settings: Settings, projections: Iterable[Projection]) -> _Names:
    projections = tuple(projections)
    indexed = wanted_indexes(settings, projections)
    return _Names(
        settings.events_collection,
        [collection_of(settings, item) for item in projections],
        settings.repair_queue_collection,
        list(indexed),
        [name for name, indexes in indexed.items() if any(index.expire_seconds is not None for index in indexes)],
    )


# What is read of events and read models, and what a verification remembers


def _reads(at: _Names) -> _Grants:
    for name in (at.events, *at.models):
        yield name, "find listIndexes"


def _verifies(at: _Names) -> _Grants:
    yield from _reads(at)
    yield at.events, "changeStream"
    for name in (names.FINDINGS, names.VERIFICATIONS, names.WATERMARKS):
        yield name, "find"


def _read_only(at: _Names) -> _Grants:
    yield from _verifies(at)
    for name in at.indexed:
        yield name, "find listIndexes"


def _verify(at: _Names) -> _Grants:
    yield from _verifies(at)
    yield names.FINDINGS, _WRITE
    yield names.VERIFICATIONS, "insert"
    yield names.WATERMARKS, "insert update"


def _enqueue(at: _Names) -> _Grants:
    yield from _verify(at)
    yield at.queue, "find insert update"


# What writes read models


def _rebuild_one(at: _Names) -> _Grants:
    yield from _reads(at)
    for name in at.models:
        yield name, _WRITE


def _repair(at: _Names) -> _Grants:
    yield from _rebuild_one(at)
    yield at.queue, "find update"
    yield names.LEASES, f"find {_WRITE}"


def _queue(at: _Names) -> _Grants:
    yield at.queue, "find update remove"


def _rebuild(at: _Names) -> _Grants:
    yield from _rebuild_one(at)
    yield at.events, "changeStream"
    for name in at.models:
        # Of one that is empty.
        yield name, "createIndex"
        # What a rebuild in a shadow that nobody goes on with left behind.
        yield shadow_name(name), "dropCollection"
        yield copy_name(name), "dropCollection"
    for name in (names.LEASES, names.REBUILDS):
        yield name, "find insert update"
    yield DEFERRED, "find insert remove"
    yield TOUCHED, f"find {_WRITE}"


def _shadow(at: _Names) -> _Grants:
    yield from _rebuild(at)
    # The options of a collection are told with the list of all.
    yield WHOLE_DATABASE, "listCollections"
    for name in at.models:
        yield name, "changeStream collStats bypassDocumentValidation dropCollection"
        yield shadow_name(name), f"find {_WRITE} createIndex listIndexes bypassDocumentValidation"
        yield copy_name(name), "find insert remove createIndex bypassDocumentValidation"


def _pacing(_: _Names) -> _Grants:
    yield _SERVER, "replSetGetConfig replSetGetStatus serverStatus"


# What prepares a database


def _indexes(at: _Names) -> _Grants:
    for name in at.indexed:
        yield name, "createIndex listIndexes"
    for name in at.expiring:
        yield name, "collMod"


def _load(at: _Names) -> _Grants:
    yield from _indexes(at)
    for name in (at.events, *at.models, at.queue):
        yield name, "insert"


def _dagster(at: _Names) -> _Grants:
    for grants in (_read_only, _enqueue, _repair, _rebuild, _shadow):
        yield from grants(at)


ROLES: tuple[Role, ...] = (
    Role(
        "read_only",
        "looks at everything and writes nothing: verifications that remember nothing, dry runs.",
        _read_only,
    ),
    Role("verify", "verifies, and writes nothing but findings, verifications and watermarks.", _verify),
    Role("enqueue", "verifies, and queues repairs of what it finds.", _enqueue),
    Role("rebuild_one", "rebuilds single aggregates.", _rebuild_one),
    Role("repair", "works off the repair queue.", _repair),
    Role("queue", "brings tasks of the repair queue back, and deletes those that ended.", _queue),
    Role("rebuild", "rebuilds read models in place, in full.", _rebuild),
    Role("shadow", "rebuilds read models in a shadow, and puts back what was before.", _shadow),
    Role("pacing", "besides another role: lets full rebuilds watch the server's load.", _pacing, on_server=True),
    Role("indexes", "makes the indexes that are missing.", _indexes),
    Role("load", "loads documents from files: the only one that writes events.", _load),
    Role("dagster", "all that the jobs, checks, sensors and schedules of Dagster do.", _dagster),
)
