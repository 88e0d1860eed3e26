"""`rights`: lists the roles, and prints the script that creates one of them. Opens no database."""

from typing import Annotated

import typer

from readmodel_pipelines.cli.terminal.command import command
from readmodel_pipelines.cli.terminal.help import SET_UP
from readmodel_pipelines.cli.terminal.voice import voice

app = typer.Typer()


@command(app, "rights", "Print the least-privilege roles of MongoDB users.", heading=SET_UP)
def rights(
    role: Annotated[
        str | None, typer.Argument(metavar="ROLE", help="Name of the role. Without it, list the roles.")
    ] = None,
) -> None:
    """Print the least-privilege roles of MongoDB users as mongosh scripts.

    For the database and collections in the settings. Opens no database and changes nothing.
    """
    from readmodel_pipelines.mongo.rights import ROLES, privileges, role_named, script
    from readmodel_pipelines.settings import load_settings

    if role is None:
        roles = [{"role": item.name, "mongodb_role": item.mongodb_name, "purpose": item.purpose} for item in ROLES]
        width = max(len(item.name) for item in ROLES)
        lines = [f"{item.name:<{width}}  {item.purpose}" for item in ROLES]
        hint = "`readmodel rights ROLE` prints the script for mongosh. A user can have several roles."
        voice.result({"verb": "rights", "roles": roles}, [*lines, "", hint])
        return
    chosen, settings = role_named(role), load_settings()
    document = {
        "verb": "rights",
        "role": chosen.name,
        "mongodb_role": chosen.mongodb_name,
        "database": "admin" if chosen.on_server else settings.database,
        "privileges": privileges(chosen, settings),
    }
    voice.result(document, script(chosen, settings).splitlines())
