"""Verifications that were made, with their numbers, and the watermark of each read model: from where to go on.

DATA_CONTRACT.md, «What verifications remember», has the fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from readmodel_pipelines.mongo.changes import Token, time_of
from readmodel_pipelines.mongo.driver import Database, Document, server_time
from readmodel_pipelines.mongo.names import VERIFICATIONS, WATERMARKS
from readmodel_pipelines.reconcile.summary import Summary

_EVERYTHING = "every aggregate"
"""The coverage that is stored of one that left no aggregate out."""


class Verifications:
    """The remembered verifications and watermarks of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._verifications = database[VERIFICATIONS]
        self._watermarks = database[WATERMARKS]

    def record(self, read_model: str, started_at: datetime, summary: Summary) -> None:
        """Keep the numbers of a verification."""
        counts, scope = summary.read_models[read_model], summary.scope
        numbers = {**counts.as_dict(), "discrepancies": counts.discrepancies}
        between = {"started_at": started_at, "ended_at": server_time(self._database).replace(tzinfo=None)}
        covers = {"tier": scope.tier, "coverage": _EVERYTHING if scope.everything else scope.coverage}
        read = {"events": summary.events, "seconds": summary.seconds}
        self._verifications.insert_one({"read_model": read_model, **between, **covers, **read, "counts": numbers})

    def last_verification(self, read_model: str, *, of_everything: bool = False) -> Document | None:
        """The newest verification of a read model; the newest that compared every field of everything."""
        where = {"tier": "documents", "coverage": _EVERYTHING} if of_everything else {}
        return self._verifications.find_one({"read_model": read_model, **where}, sort=[("started_at", -1)])

    def history(self, read_models: Sequence[str], last: int = 100) -> list[dict[str, Any]]:
        """The last verifications of these read models, oldest first, in plain JSON types."""
        found = self._verifications.find(
            {"read_model": {"$in": list(read_models)}}, sort=[("started_at", -1)], limit=last
        )
        history = [
            {
                "at": item["started_at"].isoformat() + "Z",
                "read_model": item["read_model"],
                "coverage": item["coverage"],
                **{name: item["counts"][name] for name in ("checked", "discrepancies", "lagging")},
            }
            for item in found
        ]
        return history[::-1]

    def watermark(self, read_model: str, made_from: Sequence[str]) -> Token | None:
        """Where the last verification that saw all changes ended, if it was made from the same (settings, in words)."""
        stored = self._watermarks.find_one({"_id": read_model, "made_from": list(made_from)})
        return stored["token"] if stored else None

    def verified_up_to(self) -> dict[str, datetime]:
        """Up to which moment of the server's history each read model is verified, from where a next look goes on."""
        return {str(item["_id"]): time_of(item["token"]).as_datetime() for item in self._watermarks.find()}

    def set_watermark(self, read_model: str, token: Token, made_from: Sequence[str]) -> None:
        """All changes up to this token are verified, with these settings."""
        this = {"_id": read_model}
        reached = {"token": token, "made_from": list(made_from)}
        # A pipeline would read `$`-signs in the token.
        self._watermarks.update_one(this, {"$set": reached, "$currentDate": {"at": True}}, upsert=True)
