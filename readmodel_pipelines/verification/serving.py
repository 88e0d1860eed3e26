"""Serves the reports of the folder to a browser, so that pages of Dagster can link them. Nothing else is served."""

import html
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.verification.folder import is_report


class _Reports(SimpleHTTPRequestHandler):
    """Serves a report by its name, and at the root a list of all, the newest first."""

    def do_GET(self) -> None:
        """Answer with a report, or with the list."""
        name = unquote(urlsplit(self.path).path).removeprefix("/")
        if not name:
            self._list()
        elif is_report(name):
            super().do_GET()
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def do_HEAD(self) -> None:
        """Not supported, because no client needs it."""
        self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)

    def _list(self) -> None:
        folder = Path(self.directory)
        names = sorted((file.name for file in folder.glob("*") if is_report(file.name)), reverse=True)
        lines = "".join(f'<li><a href="{html.escape(name)}">{html.escape(name)}</a></li>' for name in names)
        page = f"<!doctype html><meta charset=utf-8><title>Reports</title><ul>{lines or 'None yet.'}</ul>".encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: Any) -> None:
        """Does nothing, because nobody reads this log."""


@contextmanager
def serving_reports(folder: Path, host: str, port: int) -> Iterator[int]:
    """Serve the reports of a folder, which may not exist yet, while the block runs; yields the port.

    Raises:
        UsageError: the address or port cannot be used.
    """
    try:
        server = ThreadingHTTPServer((host, port), partial(_Reports, directory=str(folder)))
    except OSError as error:
        raise UsageError(
            f"Port {port} of {host} cannot be used: {error.strerror}.", hint="Give another --port, or 0 for a free one."
        ) from None
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()
