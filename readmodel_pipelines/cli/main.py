"""The command line: assembles `readmodel …` from its commands, and ends processes cleanly.

Exit codes:

- 0: all well
- 1: discrepancies, or aggregates that a rebuild could not write
- 2: wrong usage
- 3: no MongoDB, no Dagster, or a missing right
- 4: an operation failed in MongoDB
- 5: no event at all
- 6: the output could not be written
- 130: interrupted
- 141: the reader of the output is gone

Results go to stdout; progress, notes and errors to stderr.

Each command imports its heavy packages when it runs. So help is instant, and a cron job or a loop over ids starts fast.
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
    # Not eager, because the format of the answer depends on --json.
    version: bool = typer.Option(False, "--version", callback=_tell_version, help="Show the version."),
) -> None:
    """The options of all commands."""


# Single commands set their own heading.
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
        # Titles can be any Unicode; a terminal that cannot show a character must not end a run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for name in ("SIGTERM", "SIGHUP"):
        # SIGTERM ends a run like Ctrl-C, so that its lease is released.
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
            # Typer raises this when the reader of the output is gone.
            _leave(NOBODY_READS)
        _leave(ending.code if isinstance(ending.code, int) else int(ending.code is not None))
    # Typer's own output, for example help, could not be written.
    except OSError as error:
        if error.filename is not None:
            raise
        complain(f"The output could not be written: {error.strerror}.")
        _leave(OutputLost.exit_code)


def _open_what_is_closed() -> None:
    """Open standard streams that are closed, so that no connection gets their file number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # A new file gets the lowest free number.
            number = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode))


def _not_lost(unraisable: UnraisableHookArgs) -> None:
    """Repeat a Ctrl-C that Python drops, because it arrives while an object is cleaned up."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        # A moment later, because here it would be dropped too.
        threading.Timer(0.01, _interrupt).start()
    else:
        sys.__unraisablehook__(unraisable)


def _interrupt() -> None:
    if sys.platform == "win32":
        _thread.interrupt_main()
    else:
        # A real signal, because it also interrupts a sleep and a read.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def _leave(code: int) -> NoReturn:
    """End at once. A normal exit would flush a broken stream, and wait for the driver's threads."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
