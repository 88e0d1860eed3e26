"""`rebuilds …`: look at full rebuilds, give one up, put back what was before one."""

from __future__ import annotations

from typing import Annotated

import typer

from readmodel_pipelines.cli.failures import in_words
from readmodel_pipelines.cli.help import Group
from readmodel_pipelines.cli.options import Yes

app = typer.Typer(
    name="rebuilds",
    cls=Group,
    help="Look at full rebuilds, give one up, put back what was before one.\n\n`rebuild-readmodel --all` makes them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

RebuildId = Annotated[str, typer.Argument(metavar="REBUILD", help="Its id, from `readmodel rebuilds list`.")]


@app.command("list", short_help="List the latest rebuilds: how far, since when.")
def rebuilds_list() -> None:
    """List the latest rebuilds: how far, since when, and which are unfinished. Writes nothing."""
    with in_words("list"):
        from readmodel_pipelines.cli.rebuilds import show_all

        show_all()


@app.command("show", short_help="Show one rebuild with its ranges.")
def rebuilds_show(rebuild_id: RebuildId) -> None:
    """Show one rebuild with its ranges. Writes nothing."""
    with in_words("show"):
        from readmodel_pipelines.cli.rebuilds import show_one

        show_one(rebuild_id)


@app.command("abort", short_help="Give up an unfinished rebuild.")
def rebuilds_abort(rebuild_id: RebuildId) -> None:
    """Give up an unfinished rebuild.

    Drops its shadow; what it wrote in place stays, for it is right. Locks the read models meanwhile: refused while the
    rebuild is at work.
    """
    with in_words("abort"):
        from readmodel_pipelines.cli.rebuilds import give_up

        give_up(rebuild_id)


@app.command("rollback", short_help="Put back what was before a rebuild in a shadow.")
def rebuilds_rollback(
    rebuild_id: RebuildId,
    yes: Yes = False,
) -> None:
    """Put back what the read models were before a rebuild in a shadow, then catch up with the events since then.

    One rename for each read model, and locks them meanwhile. What others wrote into fields that the projection does not
    own since the rebuild is lost.
    """
    with in_words("rollback"):
        from readmodel_pipelines.cli.rebuilds import put_back

        put_back(rebuild_id, yes=yes)
