"""Rights from the command line: the roles there are, and what makes one of them on the server. Opens no database."""

from __future__ import annotations

from readmodel_pipelines.cli.voice import voice
from readmodel_pipelines.mongo.rights import ROLES, privileges, role_named, script
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.settings import load_settings


def list_roles() -> None:
    """Each role with what it is for."""
    roles = [{"role": role.name, "mongodb_role": role.mongodb_name, "purpose": role.purpose} for role in ROLES]
    width = max(len(role.name) for role in ROLES)
    lines = [f"{role.name:<{width}}  {role.purpose}" for role in ROLES]
    voice.result(
        {"verb": "rights", "roles": roles}, [*lines, "", "`readmodel rights ROLE` prints what to run in mongosh."]
    )


def show_role(name: str) -> None:
    """What makes a role: for mongosh, or its privileges as JSON.

    Raises:
        UsageError: there is no such role.
    """
    role, settings = role_named(name), load_settings()
    projections = projections_for(settings)
    about = {"verb": "rights", "role": role.name, "mongodb_role": role.mongodb_name}
    database = "admin" if role.on_server else settings.database
    document = {**about, "database": database, "privileges": privileges(role, settings, projections)}
    voice.result(document, [script(role, settings, projections).rstrip("\n")])
