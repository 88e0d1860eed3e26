"""Rights: for each kind of work a role with exactly the rights that it needs on the server.

MongoDB grants rights by the exact name of a collection, so every collection of this project has a fixed name.
Invariants: no role except `load` may write events, `read_only` writes nothing, and `verify` writes only its records
(`readmodel_…`). A test runs every command as a user with just its role, and without each single right of it.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.mongo import names
from readmodel_pipelines.mongo.driver import Database, OperationFailure, PyMongoError
from readmodel_pipelines.mongo.wanted_indexes import wanted_indexes
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.settings import Settings

Privilege = dict[str, Any]
"""A privilege in MongoDB's form: `{"resource": {"db", "collection"}, "actions": […]}`; a resource of the server is
`cluster`.
"""

_WHOLE_DATABASE = ""
# Placeholders for collections that the settings name, and for the server itself; no collection has a `$` in its name.
_EVENTS, _MODELS, _SHADOWS, _COPIES, _QUEUE = "$events", "$models", "$shadows", "$copies", "$queue"
_INDEXED, _EXPIRING, _SERVER = "$indexed", "$expiring", "$server"

_SHOWN = 5
# The server's message for a missing right: the command with its collection, then half a page.
_COMMAND = re.compile(r'execute command \{ (\w+): "([^"]+)"')

_WRITE = "insert update remove"


_Grants = tuple[tuple[str, str], ...]
"""(collection or placeholder, actions)."""


@dataclass(frozen=True, slots=True)
class Role:
    """The rights of one kind of work, and its purpose; `on_server` roles are in the database `admin`."""

    name: str
    purpose: str
    grants: _Grants
    on_server: bool = False

    @property
    def mongodb_name(self) -> str:
        """Its name on the server."""
        return f"readmodel_{self.name}"


def role_named(name: str) -> Role:
    """The role with this name.

    Raises:
        UsageError: there is none.
    """
    for role in ROLES:
        if role.name == name:
            return role
    raise UsageError(f"There is no role {name!r}.", hint=f"Give one of: {', '.join(role.name for role in ROLES)}.")


def privileges(role: Role, settings: Settings) -> list[Privilege]:
    """The role's privileges on the collections of the settings, in order of their names."""
    at = _collections(settings)
    actions: dict[str, set[str]] = {}
    for place, granted in role.grants:
        for collection in at.get(place, [place]):
            actions.setdefault(collection, set()).update(granted.split())
    return [
        {
            "resource": {"cluster": True} if name == _SERVER else {"db": settings.database, "collection": name},
            "actions": sorted(granted),
        }
        for name, granted in sorted(actions.items())
    ]


def script(role: Role, settings: Settings) -> str:
    """The script for mongosh that creates or updates the role."""
    database = json.dumps("admin" if role.on_server else settings.database)
    lines = ",\n".join(f"      {json.dumps(item)}" for item in privileges(role, settings))
    users = f"db.getSiblingDB({json.dumps(settings.database)})"
    granted = f"{{role: {json.dumps(role.mongodb_name)}, db: {database}}}"
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
// A user can have several roles. For a new user:
//   {users}.createUser({{user: "NAME", pwd: passwordPrompt(), roles: [{granted}]}})
// For an existing one:
//   {users}.grantRolesToUser("NAME", [{granted}])
"""


def held(database: Database) -> list[Privilege] | None:
    """The privileges of this connection's user; None without a login. Needs no right itself."""
    told = database.command("connectionStatus", showPrivileges=True)["authInfo"]
    return list(told["authenticatedUserPrivileges"]) if told["authenticatedUsers"] else None


LOG_IN = "Put user, password and authSource into READMODEL_MONGODB_URI: mongodb://user:password@host/?authSource=…"
"""The hint if the server requires a login and there is none."""


def missing_rights(database: Database, settings: Settings, role: str, error: OperationFailure) -> tuple[str, str]:
    """After a refusal: the missing rights of the role as text, and the remedy."""
    lacks: list[tuple[str, str]] = []
    with suppress(PyMongoError):
        holds = held(database)
        if holds is None:
            return "It requires a login.", LOG_IN
        lacks = lacking(privileges(role_named(role), settings), holds) if role else []
    if not lacks:
        command = _COMMAND.search(str(error))
        told = f"`{command[1]}` on {settings.database}.{command[2]}" if command else "this command"
        hint = "`readmodel rights` lists the roles; `readmodel rights ROLE` prints the script of one."
        return f"The user may not {told}.", hint
    hint = f"Give the user the role that `readmodel rights {role}` prints."
    return f"The user may not {in_places(lacks)}.", hint


def in_places(lacks: Iterable[tuple[str, str]]) -> str:
    """The result of `lacking` as text, by place."""
    places: dict[str, list[str]] = {}
    for action, where in lacks:
        places.setdefault(where, []).append(action)
    shown = [f"{', '.join(actions)} on {where}" for where, actions in list(places.items())[:_SHOWN]]
    more = f"; and more on {len(places) - _SHOWN} others" if len(places) > _SHOWN else ""
    return f"{'; '.join(shown)}{more}"


def lacking(wanted: Iterable[Privilege], held: Sequence[Privilege]) -> list[tuple[str, str]]:
    """The missing rights, as (action, place)."""
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


def _collections(settings: Settings) -> Mapping[str, Sequence[str]]:
    models = [names.collection_of(settings, item) for item in projections_for(settings)]
    indexed = wanted_indexes(settings)
    return {
        _EVENTS: [settings.events_collection],
        _MODELS: models,
        _SHADOWS: [shadow for name in models for shadow in names.shadow_names(name)],
        _COPIES: [copy for name in models for copy in names.copy_names(name)],
        _QUEUE: [settings.repair_queue_collection],
        _INDEXED: list(indexed),
        _EXPIRING: [
            name for name, wanted in indexed.items() if any(index.expire_seconds is not None for index in wanted)
        ],
    }


# Reads of events and read models, and the records of a verification

_READS: _Grants = ((_EVENTS, "find listIndexes"), (_MODELS, "find listIndexes"))
_FOLLOWS: _Grants = ((_EVENTS, "changeStream"),)
_VERIFIES: _Grants = (
    *_READS,
    *_FOLLOWS,
    (names.FINDINGS, "find"),
    (names.VERIFICATIONS, "find"),
    (names.WATERMARKS, "find"),
    (names.IGNORED, "find"),
)
_READ_ONLY: _Grants = (*_VERIFIES, (_INDEXED, "find listIndexes"), (names.SET_ASIDE, "find"))
_VERIFY: _Grants = (
    *_VERIFIES,
    (names.FINDINGS, _WRITE),
    (names.VERIFICATIONS, "insert"),
    (names.WATERMARKS, "insert update"),
    # Rules that ignore known findings until a date.
    (names.IGNORED, "insert remove"),
)
_ENQUEUE: _Grants = (*_VERIFY, (_QUEUE, "find insert update"))

# Writes to read models

_REBUILD_ONE: _Grants = (*_READS, (_MODELS, _WRITE))
_REPAIR: _Grants = (
    *_REBUILD_ONE,
    # For arrivals; without it a worker only checks regularly.
    (_QUEUE, "find update changeStream"),
    (names.SET_ASIDE, "find insert"),
    (names.LEASES, f"find {_WRITE}"),
)
_REBUILD: _Grants = (
    *_REBUILD_ONE,
    *_FOLLOWS,
    # For empty read models.
    (_MODELS, "createIndex"),
    # Collections of abandoned shadow rebuilds, found in the list of all collections.
    (_WHOLE_DATABASE, "listCollections"),
    (_SHADOWS, "dropCollection"),
    (_COPIES, "dropCollection"),
    (names.LEASES, "find insert update"),
    (names.REBUILDS, "find insert update"),
    (names.DEFERRED, "find insert remove"),
    (names.TOUCHED, f"find {_WRITE}"),
)
_SHADOW: _Grants = (
    *_REBUILD,
    (_MODELS, "changeStream collStats bypassDocumentValidation dropCollection collMod dropIndex"),
    (_SHADOWS, f"find {_WRITE} createIndex listIndexes bypassDocumentValidation collMod dropIndex"),
    (_COPIES, "find insert update createIndex listIndexes bypassDocumentValidation"),
    # Restored documents are unverified; repairs of wrong ones are queued.
    (names.WATERMARKS, "remove"),
    (_QUEUE, "find insert"),
)

# Preparation of a database

_INDEXES: _Grants = ((_INDEXED, "createIndex listIndexes"), (_EXPIRING, "collMod"))
_LOAD: _Grants = (*_INDEXES, (_EVENTS, "insert"), (_MODELS, "insert"), (_QUEUE, "insert"))


ROLES: tuple[Role, ...] = (
    Role("read_only", "reads everything and writes nothing: verifications without findings, dry runs.", _READ_ONLY),
    Role("verify", "verifies, and writes only findings, verifications, watermarks and rules.", _VERIFY),
    Role("enqueue", "verifies, and queues repairs of findings.", _ENQUEUE),
    Role("rebuild_one", "rebuilds single aggregates.", _REBUILD_ONE),
    Role("repair", "repairs the tasks of the repair queue.", _REPAIR),
    Role(
        "queue",
        "requeues dead letters, and deletes completed tasks and dead letters.",
        ((_QUEUE, "find update remove"), (names.SET_ASIDE, "find remove")),
    ),
    Role("rebuild", "rebuilds read models in place, in full.", _REBUILD),
    Role("shadow", "rebuilds read models in a shadow, and rolls back.", _SHADOW),
    Role(
        "pacing",
        "in addition to another role: lets runs watch the server's load.",
        ((_SERVER, "replSetGetConfig replSetGetStatus serverStatus"),),
        on_server=True,
    ),
    Role("indexes", "creates the missing indexes.", _INDEXES),
    Role("load", "loads documents from files; the only role that writes events.", _LOAD),
    Role(
        "dagster",
        "everything that the jobs, checks, sensors and schedules of Dagster need.",
        (*_READ_ONLY, *_ENQUEUE, *_REPAIR, *_SHADOW),
    ),
)
