"""Judges the server: the way to it, version, replica set, clock, what the user may do, how far its history reaches.

What is needed of MongoDB: 4.4 has every command and stage that is used (`hello`, sorts on disk, updates by pipelines,
`$merge`), and the driver asks for it too. What is older than the oldest that the tests run on is not supported all
the same: nobody knows whether a rebuild is right there.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from readmodel_pipelines.doctor.check import Check, Health
from readmodel_pipelines.mongo.driver import DENIED, Database, OperationFailure, server_time
from readmodel_pipelines.mongo.rights import in_places
from readmodel_pipelines.wording import count, span

TESTED = (6, 0)
"""The version that the tests run on, and the oldest that is supported."""

_TESTED = ".".join(map(str, TESTED))
_CLOCK_SECONDS = 1.0
_CLOCK_LOOKS = 3
_LEAN = {"metrics": 0, "tcmalloc": 0, "wiredTiger": 0}
_DAY = 86_400.0
_CHECKS_NO_CERTIFICATE = ("tlsinsecure", "tlsallowinvalidcertificates", "tlsallowinvalidhostnames")


def judge_connection(shown_uri: str, hosts: Sequence[str], user: str, seconds: float) -> Check:
    """How the server was reached; `shown_uri` has no credentials. `user` is empty when nobody is logged in."""
    check = partial(Check, "connection")
    options = {name.lower(): value.lower() for name, value in parse_qsl(shown_uri.partition("?")[2])}
    tls = options.get("tls", options.get("ssl", str(shown_uri.startswith("mongodb+srv:")).lower())) == "true"
    who = f"as {user}" if user else "without logging in"
    found = f"{shown_uri} answers within {math.ceil(seconds * 1000)} ms, {who}"
    if tls and any(options.get(name) == "true" for name in _CHECKS_NO_CERTIFICATE):
        found += "; TLS, but the server's certificate is not fully checked."
        return check(Health.WARNING, found, "Name the authority in tlsCAFile instead.")
    if tls:
        return check(Health.OK, f"{found}; TLS.")
    if is_local(hosts):
        return check(Health.OK, f"{found}; no TLS, which this machine's own server does not need.")
    hint = "Add tls=true to READMODEL_MONGODB_URI, if the network between is not your own."
    return check(Health.WARNING, f"{found}; no TLS: what is read goes over the network as it is.", hint)


def is_local(hosts: Iterable[str]) -> bool:
    """Whether all of them are on this machine."""
    return all(
        host.endswith(".sock") or host in ("localhost", "::1") or re.fullmatch(r"127(\.\d+){3}", host) for host in hosts
    )


def judge_version(version: str) -> Check:
    """Whether this version is supported."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < TESTED:
        return too_old(f"MongoDB {version} is not supported: the oldest that is, and is tested, is {_TESTED}.")
    if numbers > TESTED:
        found = f"MongoDB {version} is newer than {_TESTED}, which is tested. Nothing is known against it."
        return Check("version", Health.WARNING, found, "Verify after a first rebuild on it.")
    return Check("version", Health.OK, f"MongoDB {version}, which is tested.")


def too_old(found: str) -> Check:
    """Of a server that nobody should work with."""
    hint = f"Upgrade the server to {_TESTED} or newer, one major version after the other."
    return Check("version", Health.PROBLEM, found, hint)


def judge_topology(hello: Mapping[str, Any]) -> Check:
    """Whether it is a replica set with a primary, from the answer to `hello`."""
    check = partial(Check, "replica set")
    if hello.get("msg") == "isdbgrid":
        hint = "A sharded read model is rebuilt in place; a shadow is refused."
        return check(Health.OK, "A sharded cluster, through mongos.", hint)
    set_name = hello.get("setName")
    if set_name is None and hello.get("isreplicaset"):
        found = "The server is to be in a replica set that was not set up."
        return check(Health.PROBLEM, found, "Run rs.initiate().")
    if set_name is None:
        return check(
            Health.PROBLEM,
            "A standalone server: it has no transactions and keeps no history of changes. Verifications, rebuilds in "
            "place and repairs work. Refused are rebuilds in a shadow, and documents that hold each other's unique "
            "keys; a rebuild looks at everything twice, and --since last at everything each time.",
            "Make it a replica set, one member is enough: start mongod with --replSet rs0, then run rs.initiate().",
        )
    if not hello.get("isWritablePrimary"):
        return check(
            Health.PROBLEM,
            f"{set_name}: this member is no primary (that is {hello.get('primary', 'nobody')}), and takes no writes.",
            f"Take directConnection=true out of READMODEL_MONGODB_URI, and name the set: replicaSet={set_name}.",
        )
    members = len(hello.get("hosts", ()))
    kept = "" if members > 2 else " With fewer than three, nobody takes over when it fails."
    return check(Health.OK, f"{set_name}, {count(members, 'member')}; the primary is {hello.get('primary')}.{kept}")


def clock_ahead(database: Database, now: Callable[[], datetime]) -> tuple[float, float]:
    """By how many seconds the server's clock is ahead of `now`, give or take how many: from the quickest answer."""
    looks = []
    for _ in range(_CLOCK_LOOKS):
        asked, theirs, answered = now(), server_time(database), now()
        half = (answered - asked) / 2
        looks.append((half.total_seconds(), (theirs - asked - half).total_seconds()))
    half_trip, ahead = min(looks)
    # The server tells whole milliseconds.
    return ahead, half_trip + 0.001


def judge_clock(ahead: float, uncertain: float, grace: float) -> Check:
    """How far the server's clock is ahead of this machine's, in seconds, give or take half the round trip."""
    off = max(0.0, abs(ahead) - uncertain)
    if off <= _CLOCK_SECONDS:
        return Check("clock", Health.OK, "The server's clock and this machine's agree to within a second.")
    way = "ahead of" if ahead > 0 else "behind"
    return Check(
        "clock",
        Health.PROBLEM if off > grace else Health.WARNING,
        f"The server's clock is {span(off)} {way} this machine's (READMODEL_GRACE_SECONDS is {grace:g}). If those of "
        "the application's machines are as far off, documents that are a moment behind are told as discrepancies, or "
        "wrong ones as lagging; schedules and the off-peak window go by this machine's.",
        "Let all machines follow a time server (chrony, systemd-timesyncd). Until then raise READMODEL_GRACE_SECONDS "
        "above the difference.",
    )


def judge_rights(
    user: str, lacking: Mapping[str, Sequence[tuple[str, str]]] | None, role: str, *, local: bool
) -> Check:
    """Whether the user has what `role` needs, and what it lacks of each role; None when nobody is logged in.

    `local`: only processes of this machine reach the server.
    """
    if lacking is None:
        found = "Nobody has to log in: whoever reaches the server may do everything, also to the events."
        if local:
            return Check("rights", Health.OK, found)
        hint = "Start mongod with authorization, and give each user a role: `readmodel rights` lists them."
        return Check("rights", Health.WARNING, found, hint)
    enough = [name for name, lacks in lacking.items() if not lacks]
    too_little = [name for name, lacks in lacking.items() if lacks and name != role]
    less = (f"lacks some of: {', '.join(too_little)}",) if too_little else ()
    details = (f"has what these roles need: {', '.join(enough) or 'none'}", *less)
    if not lacking[role]:
        return Check("rights", Health.OK, f"{user} may do all that the role {role} is for.", details=details)
    hint = f"Give the user the role that `readmodel rights {role}` prints."
    if role == "dagster":
        hint += " If it is meant for less, say which role: `readmodel doctor --for read_only`."
    return Check(
        "rights",
        Health.PROBLEM,
        f"{user} has not all that the role {role} is for. It may not {in_places(lacking[role])}.",
        hint,
        details,
    )


@dataclass(frozen=True, slots=True)
class History:
    """Since when the oplog has what happened, how many seconds it holds, and for how many the server runs."""

    earliest: datetime
    seconds: float
    up_seconds: float


def history(database: Database) -> History | None:
    """How far the oplog reaches back; None when this user is not told."""
    try:
        status = database.client.admin.command({"serverStatus": 1, "oplog": 1, **_LEAN})
    except OperationFailure as error:
        if error.code in DENIED:
            return None
        raise
    earliest, latest = (status["oplog"][name].as_datetime() for name in ("earliestOptime", "latestOptime"))
    return History(earliest, (latest - earliest).total_seconds(), float(status["uptime"]))


def judge_history(
    history: History | None, needed: Sequence[tuple[str, datetime]], longest_rebuild_seconds: float
) -> Check:
    """Whether the history of changes reaches back to what goes on from there: (what, since when)."""
    if history is None:
        return Check(
            "history",
            Health.OK,
            "How far the server's history of changes (oplog) reaches back is not told to this user.",
            "`readmodel rights pacing` has the right for it, serverStatus.",
        )
    lost = [what for what, since in needed if since < history.earliest]
    # As far as one can tell: the server runs for longer than it reaches back.
    full = history.up_seconds > history.seconds + 60
    reaches = f"The history of changes (oplog) reaches back {span(history.seconds)}"
    if lost:
        short = f"{reaches}, not to {'; '.join(lost)}: everything will be looked at instead."
    elif full and history.seconds < 2 * longest_rebuild_seconds:
        took = f"the longest of the last rebuilds took {span(longest_rebuild_seconds)}"
        short = f"{reaches}, and {took}: one that is interrupted may have to begin anew."
    elif full and history.seconds < _DAY:
        short = f"{reaches}, less than a day: a nightly --since last will look at everything."
    else:
        return Check("history", Health.OK, f"{reaches}.")
    larger = "Enlarge it: db.adminCommand({replSetResizeOplog: 1, size: MEGABYTES, minRetentionHours: 48})."
    return Check("history", Health.WARNING, short, larger)
