"""Judges what the connected user may do, against the roles of `readmodel_pipelines.mongo.rights`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from readmodel_pipelines.doctor.check import Check, Health
from readmodel_pipelines.mongo.rights import in_places

_FOR_ALL = "dagster"

Lacking = Sequence[tuple[str, str]]


def judge_rights(user: str, lacking: Mapping[str, Lacking] | None, role: str, *, local: bool) -> Check:
    """What the user lacks of each role, and whether it has what `role` needs; None when nobody is logged in.

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
    if role == _FOR_ALL:
        hint += " If it is meant for less, say which role: `readmodel doctor --for read_only`."
    return Check(
        "rights",
        Health.PROBLEM,
        f"{user} has not all that the role {role} is for. It may not {in_places(lacking[role])}.",
        hint,
        details,
    )
