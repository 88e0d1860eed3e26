"""Judges the server: the way to it, version, replica set, clock, what the user may do, how far its history reaches.

What is needed of MongoDB: 5.1 has every command and stage that is used (`$documents` is the youngest). What is older
than the oldest that was run is not supported all the same: nobody knows whether a rebuild is right there.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from readmodel_pipelines.doctor.check import Check, Health
from readmodel_pipelines.mongo.driver import DENIED, Database, OperationFailure, server_time
from readmodel_pipelines.mongo.rights import in_places
from readmodel_pipelines.wording import count, span

TESTED = ("6.0.5", "6.0.27", "8.2.0")
"""The versions on which every verb was run (docs/deploying.md); the series of the first is the oldest supported."""
_CLOCK_SECONDS = 1.0
_CLOCK_LOOKS = 3
_LEAN = {"metrics": 0, "tcmalloc": 0, "wiredTiger": 0}
_DAY = 86_400.0
_CHECKS_NO_CERTIFICATE = ("tlsinsecure", "tlsallowinvalidcertificates", "tlsallowinvalidhostnames")


def judge_connection(
    shown_uri: str, hosts: Sequence[str], user: str, seconds: float, passed_over: Sequence[str] = ()
) -> Check:
    """How the server was reached; `shown_uri` has no credentials. `user` is empty when nobody is logged in.

    `passed_over`: what the driver does without of the connection string.
    """
    told = tuple(f"passed over in READMODEL_MONGODB_URI: {option}" for option in passed_over)
    return replace(_judge_connection(shown_uri, hosts, user, seconds), details=told)


def _judge_connection(shown_uri: str, hosts: Sequence[str], user: str, seconds: float) -> Check:
    check = partial(Check, "connection")
    options = {name.lower(): value.lower() for name, value in parse_qsl(shown_uri.partition("?")[2])}
    # As the driver has it: who names a certificate wants TLS.
    implied = shown_uri.startswith("mongodb+srv:") or any(name.startswith("tls") for name in options)
    tls = options.get("tls", options.get("ssl", str(implied).lower())) == "true"
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
    return check(Health.WARNING, f"{found}; no TLS: the data is not encrypted on the network.", hint)


def is_local(hosts: Iterable[str]) -> bool:
    """Whether all of them are on this machine."""
    return all(
        host.endswith(".sock") or host in ("localhost", "::1") or re.fullmatch(r"127(\.\d+){3}", host) for host in hosts
    )


def judge_version(version: str) -> Check:
    """Whether this version is supported."""
    check, series, oldest = partial(Check, "version"), _series(version), _series(TESTED[0])
    if version in TESTED:
        return check(Health.OK, f"MongoDB {version}, which is tested.")
    if series < oldest:
        return too_old(f"MongoDB {version} is not supported: the oldest that is, and is tested, is {_spelled(oldest)}.")
    if same := [item for item in TESTED if _series(item) == series]:
        return check(Health.OK, f"MongoDB {version}; tested of {_spelled(series)}: {' and '.join(same)}.")
    newest = _series(TESTED[-1])
    lies = f"newer than {_spelled(newest)}" if series > newest else f"between {_spelled(oldest)} and {_spelled(newest)}"
    found = f"MongoDB {version} is {lies}, and was not run. Nothing is known against it."
    return check(Health.WARNING, found, "Verify after a first rebuild on it.")


def _series(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _spelled(series: tuple[int, ...]) -> str:
    return ".".join(map(str, series))


def too_old(found: str) -> Check:
    """Of a server that nobody should work with."""
    hint = f"Upgrade the server to {_spelled(_series(TESTED[0]))} or newer, one major version after the other."
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
            "A standalone server has no transactions and no change streams. Verifications, rebuilds in place and "
            "repairs work. Rebuilds in a shadow are refused, and so are swaps of unique keys between documents. A "
            "rebuild compares everything twice, and --since last verifies everything each time.",
            "Make it a replica set; one member is enough. Start mongod with --replSet rs0, then run rs.initiate().",
        )
    if not hello.get("isWritablePrimary"):
        return check(
            Health.PROBLEM,
            f"{set_name}: this member is no primary (that is {hello.get('primary', 'nobody')}), and takes no writes.",
            f"Take directConnection=true out of READMODEL_MONGODB_URI, and name the set: replicaSet={set_name}.",
        )
    members = len(hello.get("hosts", ()))
    kept = "" if members > 2 else " With fewer than three members, no other one can take over."
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
        f"The server's clock is {span(off)} {way} this machine's (READMODEL_GRACE_SECONDS is {grace:g}). If the "
        "clocks of the application differ as much, lagging documents are reported as discrepancies, or wrong ones as "
        "lagging. Schedules and the off-peak window use this machine's clock.",
        "Synchronize all machines with a time server (chrony, systemd-timesyncd). Until then, raise "
        "READMODEL_GRACE_SECONDS above the difference.",
    )


def judge_rights(
    user: str, lacking: Mapping[str, Sequence[tuple[str, str]]] | None, role: str, *, local: bool
) -> Check:
    """Whether the user has what `role` needs, and what it lacks of each role; None when nobody is logged in.

    `local`: only processes of this machine reach the server.
    """
    if lacking is None:
        found = "No login is required: every client can change everything, the events included."
        if local:
            return Check("rights", Health.OK, found)
        hint = "Start mongod with authorization, and give each user a role: `readmodel rights` lists them."
        return Check("rights", Health.WARNING, found, hint)
    enough = [name for name, lacks in lacking.items() if not lacks]
    too_little = [name for name, lacks in lacking.items() if lacks and name != role]
    less = (f"lacks some rights of: {', '.join(too_little)}",) if too_little else ()
    details = (f"has all rights of: {', '.join(enough) or 'none'}", *less)
    if not lacking[role]:
        return Check("rights", Health.OK, f"{user} has all rights of the role {role}.", details=details)
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
            "The length of the server's history of changes (oplog) is hidden from this user.",
            "Grant the role of `readmodel rights pacing`, which has serverStatus.",
        )
    lost = [what for what, since in needed if since < history.earliest]
    # As far as one can tell: the server runs for longer than it reaches back.
    full = history.up_seconds > history.seconds + 60
    reaches = f"The history of changes (oplog) reaches back {span(history.seconds)}"
    if lost:
        short = f"{reaches}, not to {'; '.join(lost)}: the next run compares everything instead."
    elif full and history.seconds < 2 * longest_rebuild_seconds:
        took = f"the longest of the last rebuilds took {span(longest_rebuild_seconds)}"
        short = f"{reaches}, and {took}: one that is interrupted may have to begin anew."
    elif full and history.seconds < _DAY:
        short = f"{reaches}, less than a day: a nightly --since last will look at everything."
    else:
        return Check("history", Health.OK, f"{reaches}.")
    larger = "Enlarge it: db.adminCommand({replSetResizeOplog: 1, size: MEGABYTES, minRetentionHours: 48})."
    return Check("history", Health.WARNING, short, larger)
