"""The command line: puts `readmodel …` together from its commands, and ends processes cleanly.

Exit codes: 0 all well; 1 discrepancies found, or aggregates that a rebuild could not do; 2 usage; 3 no MongoDB or
Dagster, or no right to it; 4 MongoDB could not do it; 5 there is no event to go by; 6 the output could not be written;
130 interrupted; 141 whoever read the output is gone. Results go to stdout; progress, notes and errors to stderr.

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
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import typer

from readmodel_pipelines.cli import (
    demo,
    doctor,
    ensure_indexes,
    findings,
    history,
    leases,
    load,
    metrics,
    rebuild_readmodel,
    rebuilds,
    repair_queue,
    reports,
    rights,
    server,
    status,
    verify_consistency,
)
from readmodel_pipelines.cli.terminal.help import LOOK, OPERATE, QUEUE, REBUILDS, SET_UP, Map
from readmodel_pipelines.cli.terminal.voice import NOBODY_READS, OutputLost, complain, voice
from readmodel_pipelines.env_file import take_in_here

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


def _tell_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        told = "of a checkout"
        with suppress(PackageNotFoundError):
            told = version("readmodel-pipelines")
        voice.result({"verb": "version", "version": told}, [f"readmodel {told}"])
        raise typer.Exit


@app.callback()
def readmodel(
    # Not eager: only behind --json is it known how to say it.
    version: bool = typer.Option(False, "--version", callback=_tell_version, help="Show the version."),
) -> None:
    """The options of all commands."""


# Single commands name their heading themselves.
for single in (
    status,
    rebuild_readmodel,
    verify_consistency,
    history,
    reports,
    ensure_indexes,
    rights,
    load,
    demo,
    doctor,
    metrics,
):
    app.add_typer(single.app)
for group, heading in (
    (findings, LOOK),
    (repair_queue, QUEUE),
    (rebuilds, REBUILDS),
    (server, SET_UP),
    (leases, OPERATE),
):
    app.add_typer(group.app, rich_help_panel=heading)


def main() -> None:
    """Entry point of the console script."""
    _open_what_is_closed()
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
    take_in_here()
    stdout = sys.stdout
    try:
        app()
    except SystemExit as ending:
        if sys.stdout is not stdout:
            # Typer's way to say that whoever read it is gone.
            _leave(NOBODY_READS)
        _leave(ending.code if isinstance(ending.code, int) else int(ending.code is not None))
    # What Typer itself could not write: help, for one.
    except OSError as error:
        if error.filename is not None:
            raise
        complain(f"The output could not be written: {error.strerror}.")
        _leave(OutputLost.exit_code)


def _open_what_is_closed() -> None:
    """Let nothing else, a connection to MongoDB for one, get the number of a standard stream that came closed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # It gets the lowest number that is free.
            number = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode))


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
    """End at once. The ordinary way flushes what cannot be written again, and the driver waits for its threads."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
