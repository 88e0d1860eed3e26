"""Rights from the command line: the roles there are, and what makes one of them on the server. Opens no database."""

from __future__ import annotations

import json

import typer

from readmodel_pipelines.mongo.rights import ROLES, privileges, role_named, script
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.settings import load_settings


def list_roles(*, as_json: bool) -> None:
    """Each role with what it is for."""
    if as_json:
        roles = [{"role": role.name, "mongodb_role": role.mongodb_name, "purpose": role.purpose} for role in ROLES]
        typer.echo(json.dumps({"verb": "rights", "roles": roles}))
        return
    width = max(len(role.name) for role in ROLES)
    for role in ROLES:
        typer.echo(f"{role.name:<{width}}  {role.purpose}")
    typer.echo("\n`readmodel rights ROLE` prints what to run in mongosh.")


def show_role(name: str, *, as_json: bool) -> None:
    """What makes a role: for mongosh, or its privileges as JSON.

    Raises:
        UsageError: there is no such role.
    """
    role, settings = role_named(name), load_settings()
    projections = projections_for(settings)
    if not as_json:
        typer.echo(script(role, settings, projections), nl=False)
        return
    about = {"verb": "rights", "role": role.name, "mongodb_role": role.mongodb_name}
    database = "admin" if role.on_server else settings.database
    typer.echo(json.dumps({**about, "database": database, "privileges": privileges(role, settings, projections)}))
