"""A client for Dagster's web server: GraphQL over HTTP, with only the standard library.

Importing Dagster would take seconds, and its own client supports neither partitions nor logs. The credentials of the
address go only into a header.
"""

import base64
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from readmodel_pipelines.errors import DagsterUnavailable, ReadModelError
from readmodel_pipelines.settings import Settings

_SECONDS = 30.0
_LONGEST = 500
_NOT_LET_IN = (401, 403)
_HERE = "or remove --launch to run it here."


class WebServer:
    """The web server of the settings."""

    def __init__(self, settings: Settings) -> None:
        self.shown = settings.shown_dagster_url().rstrip("/")
        parts = urlsplit(settings.dagster_url.get_secret_value())
        host = parts.netloc.rpartition("@")[2]
        self._address = f"{parts.scheme}://{host}{parts.path.rstrip('/')}"
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if parts.username is not None:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(credentials).decode('ascii')}"

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data that a query or mutation returns.

        Raises:
            DagsterUnavailable: nobody answers there, it is not Dagster, or it refuses access.
            ReadModelError: it answers with an error.
        """
        return self._data(self._said_to("graphql", {"query": query, "variables": variables}))

    def observe(self, asset: str, description: str, metadata: Mapping[str, Any]) -> None:
        """Record an observation on the page of an asset.

        Raises:
            DagsterUnavailable: nobody answers there, or it refuses access.
            ReadModelError: it did not record it.
        """
        said = self._said_to(
            f"report_asset_observation/{quote(asset)}", {"description": description, "metadata": metadata}
        )
        if said.strip() != b"{}":
            why = said.decode("utf-8", "replace")[:_LONGEST]
            raise ReadModelError(f"Dagster's web server at {self.shown} did not record it: {why}")

    def _said_to(self, place: str, question: Mapping[str, Any]) -> bytes:
        body = json.dumps(question).encode("ascii")
        request = urllib.request.Request(f"{self._address}/{place}", body, self._headers)  # noqa: S310 - the settings take http alone
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
                said: bytes = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                # The web server answers an invalid query with status 400.
                said = error.read()
            if error.code in _NOT_LET_IN:
                raise DagsterUnavailable(
                    f"Dagster's web server at {self.shown} refuses access (HTTP {error.code}).",
                    hint=f"Put user:password@ into READMODEL_DAGSTER_URL, ask its administrator, {_HERE}",
                ) from None
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "reason", None) or error
            why = getattr(why, "strerror", None) or why
            raise DagsterUnavailable(
                f"Dagster's web server at {self.shown} does not answer: {why}",
                hint="Start it (`dg dev`, or `dagster-webserver` and `dagster-daemon run`), set "
                f"READMODEL_DAGSTER_URL, {_HERE}",
            ) from None
        return said

    def _data(self, said: bytes) -> dict[str, Any]:
        try:
            document = json.loads(said)
        except ValueError:
            document = None
        if not isinstance(document, dict) or not document.keys() & {"data", "errors"}:
            raise DagsterUnavailable(
                f"The server at {self.shown} is not Dagster's web server.",
                hint=f"Correct READMODEL_DAGSTER_URL, {_HERE}",
            )
        if document.get("errors"):
            messages = "; ".join(str(error.get("message")) for error in document["errors"])
            raise ReadModelError(
                f"Dagster's web server at {self.shown} answered with an error: {messages[:_LONGEST]}",
                hint=f"It should have version 1.13, like this project. Upgrade it, {_HERE}",
            )
        data: dict[str, Any] = document["data"]
        return data
