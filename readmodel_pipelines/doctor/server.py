"""Checks of the server: connection, version, replica set, clock, rights, and the reach of its oplog.

MongoDB 5.1 has every command and stage that is used (`$documents` is the newest). Versions older than the oldest tested
one are not supported anyway, because a rebuild was never tried there.
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
"""The versions on which every command was tested (docs/deploying.md); the series of the first is the oldest supported.
"""
_CLOCK_SECONDS = 1.0
_CLOCK_LOOKS = 3
_LEAN = {"metrics": 0, "tcmalloc": 0, "wiredTiger": 0}
_DAY = 86_400.0
_CHECKS_NO_CERTIFICATE = ("tlsinsecure", "tlsallowinvalidcertificates", "tlsallowinvalidhostnames")


def judge_connection(
    shown_uri: str, hosts: Sequence[str], user: str, seconds: float, passed_over: Sequence[str] = ()
) -> Check:
    """How the server was reached; `shown_uri` has no credentials. `user` is empty without a login.

    `passed_over`: options of the connection string that the driver ignores.
    """
    told = tuple(f"ignored in READMODEL_MONGODB_URI: {option}" for option in passed_over)
    return replace(_judge_connection(shown_uri, hosts, user, seconds), details=told)


def _judge_connection(shown_uri: str, hosts: Sequence[str], user: str, seconds: float) -> Check:
    check = partial(Check, "connection")
    options = {name.lower(): value.lower() for name, value in parse_qsl(shown_uri.partition("?")[2])}
    # As in the driver: an option with a certificate implies TLS.
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
    hint = "Add tls=true to READMODEL_MONGODB_URI, unless the network between is trusted."
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
        return too_old(f"MongoDB {version} is not supported. The oldest tested version is {_spelled(oldest)}.")
    if same := [item for item in TESTED if _series(item) == series]:
        return check(Health.OK, f"MongoDB {version}; tested were {' and '.join(same)} of series {_spelled(series)}.")
    newest = _series(TESTED[-1])
    lies = f"newer than {_spelled(newest)}" if series > newest else f"between {_spelled(oldest)} and {_spelled(newest)}"
    found = f"MongoDB {version} is {lies}, and was not tested. No problem is known."
    return check(Health.WARNING, found, "Verify after the first rebuild on it.")


def _series(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _spelled(series: tuple[int, ...]) -> str:
    return ".".join(map(str, series))


def too_old(found: str) -> Check:
    """The hint for a server that is too old."""
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
        found = "The server is configured for a replica set that was not initiated."
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
            f"{set_name}: this member is not the primary (that is {hello.get('primary', 'nobody')}), and accepts no "
            "writes.",
            f"Remove directConnection=true from READMODEL_MONGODB_URI, and add replicaSet={set_name}.",
        )
    members = len(hello.get("hosts", ()))
    kept = "" if members > 2 else " With fewer than three members, no other one can take over."
    return check(Health.OK, f"{set_name}, {count(members, 'member')}; the primary is {hello.get('primary')}.{kept}")


def clock_ahead(database: Database, now: Callable[[], datetime]) -> tuple[float, float]:
    """Seconds by which the server's clock is ahead of `now`, and their error, from the fastest answer."""
    looks = []
    for _ in range(_CLOCK_LOOKS):
        asked, theirs, answered = now(), server_time(database), now()
        half = (answered - asked) / 2
        looks.append((half.total_seconds(), (theirs - asked - half).total_seconds()))
    half_trip, ahead = min(looks)
    # The server's time has whole milliseconds.
    return ahead, half_trip + 0.001


def judge_clock(ahead: float, uncertain: float, grace: float) -> Check:
    """How far the server's clock is ahead of this machine's, in seconds, within half the round trip."""
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
    """Whether the user has the rights of `role`, and the missing rights of each role; None without a login.

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
        hint += " If it is meant for another role, check that one, for example with `readmodel doctor --for read_only`."
    return Check(
        "rights",
        Health.PROBLEM,
        f"{user} lacks rights of the role {role}. It may not {in_places(lacking[role])}.",
        hint,
        details,
    )


@dataclass(frozen=True, slots=True)
class History:
    """The start of the oplog, the seconds that it covers, and the server's uptime in seconds."""

    earliest: datetime
    seconds: float
    up_seconds: float


def history(database: Database) -> History | None:
    """The reach of the oplog; None if this user may not read it."""
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
    """Whether the oplog reaches back to the positions from which work continues: (work, time)."""
    if history is None:
        return Check(
            "history",
            Health.OK,
            "This user cannot see how far the server's oplog reaches back.",
            "Grant the role of `readmodel rights pacing`, which contains serverStatus.",
        )
    lost = [what for what, since in needed if since < history.earliest]
    # An estimate: the server has run for longer than its oplog covers.
    full = history.up_seconds > history.seconds + 60
    reaches = f"The oplog reaches back {span(history.seconds)}"
    if lost:
        short = f"{reaches}, but not to {'; '.join(lost)}. The next run compares everything instead."
    elif full and history.seconds < 2 * longest_rebuild_seconds:
        took = f"the longest of the last rebuilds took {span(longest_rebuild_seconds)}"
        short = f"{reaches}, and {took}. An interrupted one may have to start again."
    elif full and history.seconds < _DAY:
        short = f"{reaches}, less than a day. A nightly --since last will verify everything."
    else:
        return Check("history", Health.OK, f"{reaches}.")
    larger = "Enlarge it: db.adminCommand({replSetResizeOplog: 1, size: MEGABYTES, minRetentionHours: 48})."
    return Check("history", Health.WARNING, short, larger)
