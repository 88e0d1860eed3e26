"""The command line: puts `readmodel …` together from its commands, and ends processes cleanly.

Exit codes: 0 all well; 1 discrepancies found, or aggregates that a rebuild could not do; 2 usage; 3 no MongoDB or
Dagster, or no right to it; 130 interrupted. Results go to stdout; progress, notes and errors to stderr.

Everything heavy is imported by the command that needs it: help is instant, and a cron job or a shell loop over ids does
not wait for what it never uses.
"""

from __future__ import annotations

import _thread
import io
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

import typer

from readmodel_pipelines.cli import (
    demo,
    doctor,
    ensure_indexes,
    load,
    metrics,
    rebuild_readmodel,
    rebuilds,
    repair_queue,
    rights,
    server,
    verify_consistency,
)
from readmodel_pipelines.cli.terminal.help import QUEUE, REBUILDS, SET_UP, Map

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

app = typer.Typer(
    name="readmodel",
    cls=Map,
    help="Rebuild, verify and repair read models of an event-sourced application.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Single commands name their heading themselves.
for single in (rebuild_readmodel, verify_consistency, ensure_indexes, rights, load, demo, doctor, metrics):
    app.add_typer(single.app)
for group, heading in ((repair_queue, QUEUE), (rebuilds, REBUILDS), (server, SET_UP)):
    app.add_typer(group.app, rich_help_panel=heading)


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        # Titles are any Unicode; a terminal that cannot show it must not end a run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for name in ("SIGTERM", "SIGHUP"):
        # A polite kill ends a run as Ctrl-C does, so that its lease is given back.
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    sys.unraisablehook = _not_lost
    try:
        app()
    except SystemExit as ending:
        if "pymongo" in sys.modules and isinstance(ending.code, int):
            _leave(ending.code)
        raise


def _not_lost(unraisable: UnraisableHookArgs) -> None:
    """Python drops a Ctrl-C that arrives while it cleans up an object: let it arrive again."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        # In a moment: here it would be dropped, too.
        threading.Timer(0.01, _interrupt).start()
    else:
        sys.__unraisablehook__(unraisable)


def _interrupt() -> None:
    if sys.platform == "win32":
        _thread.interrupt_main()
    else:
        # A real signal, for it ends a sleep and a read, too.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def _leave(code: int) -> NoReturn:
    """End at once. On the ordinary way the driver waits half a second for monitoring threads of closed clients."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        # Whoever read the output is gone, as after `| head`.
        code = code or 1
    os._exit(code)


if __name__ == "__main__":
    main()
