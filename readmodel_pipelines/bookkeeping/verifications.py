"""The records of verifications in this project's own collections: results, findings and watermarks.

DATA_CONTRACT.md, «Findings and verifications», has the fields. A finding is open from its first verification until one
that covers its aggregate does not find it. Its age starts again if its stream has grown since, because then it is
probably another, new finding. A lagging document is recorded until it is compared again, because its writer may have
died; until then it is no finding. A read model's watermark is the token from which the next incremental verification
continues.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from bson.json_util import CANONICAL_JSON_OPTIONS
from pymongo import ReplaceOne

from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.in_turn import InTurn
from readmodel_pipelines.mongo.changes import Token, time_of
from readmodel_pipelines.mongo.driver import Collection, Database, Document, duplicates_allowed, server_time
from readmodel_pipelines.mongo.names import FINDINGS, VERIFICATIONS, WATERMARKS
from readmodel_pipelines.mongo.scan import Query, paged
from readmodel_pipelines.reconcile.extended_json import json_value
from readmodel_pipelines.reconcile.finding import Finding
from readmodel_pipelines.reconcile.outcome import ALARMS, Outcome
from readmodel_pipelines.reconcile.summary import Summary

_BATCH = 1_000
_LONGEST_ID = 200
_MOST_CAUSES = 100
_EVERYTHING = "every aggregate"
"""The stored coverage of a verification of every aggregate."""


@dataclass(frozen=True, slots=True)
class Covered:
    """The compared aggregates: those for which `holds` is true and, with `odd_ids`, those whose id is no string."""

    holds: Callable[[str], bool]
    odd_ids: bool

    def has(self, finding: Document) -> bool:
        """Whether the aggregate of a recorded finding was compared. For a shortened or invalid id only a verification
        of everything knows.
        """
        if finding["plain"]:
            return self.holds(finding["aggregate_id"])
        return self.odd_ids and bool(finding.get("odd"))


class Findings:
    """The recorded findings of a database.

    `remember` writes behind: `settle` waits for its last batch, which may raise.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._findings = Collection(database, FINDINGS)
        self._in_turn = InTurn(1)
        self._being_written: set[str] = set()

    def remember(self, findings: Sequence[Finding], last_versions: Mapping[str, Any]) -> None:
        """Record these findings as open, and set the age of each; `last_versions` are those of their streams."""
        now = server_time(self._database).replace(tzinfo=None)
        by_key: dict[str, list[Finding]] = defaultdict(list)
        for finding in findings:
            by_key[_key(finding)].append(finding)
        if not self._being_written.isdisjoint(by_key):
            self.settle()
        stored = {item["_id"]: item for item in self._findings.find({"_id": {"$in": list(by_key)}})}
        new: list[Document] = []
        changed: list[ReplaceOne[Document]] = []
        as_before: list[str] = []
        # The document of an aggregate and a second one with its key are two findings with one record.
        for key, alike in by_key.items():
            before = stored.get(key, {})
            seen = _seen(alike[0], _version(last_versions, alike[0]))
            same_stream = before.get("state") == "open" and before["version"] == seen["version"]
            since = before["first_seen"] if same_stream else now
            for finding in alike:
                finding.first_seen, finding.age_seconds = since, max(0.0, (now - since).total_seconds())
            document = {"_id": key, **seen, "first_seen": since, "last_seen": now}
            if not before:
                new.append(document)
            elif {**before, "last_seen": now} == document:
                as_before.append(key)
            else:
                changed.append(ReplaceOne({"_id": key}, document))
        self._in_turn(partial(self._write, new, changed, as_before, now))
        self._being_written = set(by_key)

    def settle(self, at_most: float | None = None) -> None:
        """Wait until everything is recorded, perhaps for a limited time in seconds."""
        self._in_turn.wait(at_most)
        self._being_written = set()

    def _write(
        self, new: Sequence[Document], changed: Sequence[ReplaceOne[Document]], as_before: Sequence[str], now: datetime
    ) -> None:
        # Three statements, because an upsert for each finding takes several times as long.
        if new:
            # Another verification may have recorded the same finding first.
            with duplicates_allowed():
                self._findings.insert_many(new, ordered=False)
        if changed:
            self._findings.bulk_write(changed, ordered=False)
        if as_before:
            self._findings.update_many({"_id": {"$in": [*as_before]}}, {"$set": {"last_seen": now}})

    def close(self, read_model: str, not_seen_since: datetime, covered: Covered | None) -> int:
        """Close the open findings of covered aggregates that were not found again; returns their number. None covers
        all.

        Records of lagging documents that no longer lag are deleted.
        """
        gone = {**_watched(read_model), "last_seen": {"$lt": not_seen_since}}
        closed: list[Document] = [{"$set": {"state": "closed", "closed_at": "$$NOW"}}]
        number = 0
        for these in [{}] if covered is None else self._covered(gone, covered):
            if not self._findings.count_documents({**gone, **these}, limit=1):
                continue
            number += self._findings.update_counted({**gone, **these, "state": "open"}, closed)
            self._findings.delete_many({**gone, **these, "state": "lagging"})
        return number

    def _covered(self, gone: Document, covered: Covered) -> Iterator[Document]:
        """Filters for the covered ones, in batches."""
        for page in paged(self._findings, _by_id(gone), {"aggregate_id": 1, "plain": 1, "odd": 1}, "_id", _BATCH):
            yield {"_id": {"$in": [finding["_id"] for finding in page if covered.has(finding)]}}

    def open_ids(self, read_model: str) -> Iterator[str]:
        """The ids of aggregates with open findings or lagging documents, in order; without ids that are no texts."""
        query = self.open_query(read_model)
        for page in paged(self._findings, query.where, query.fields or {}, "aggregate_id", _BATCH):
            for finding in page:
                yield finding["aggregate_id"]

    @staticmethod
    def open_query(read_model: str) -> Query:
        """The query of `open_ids`."""
        where = {**_watched(read_model), "plain": True}
        return Query(where, {"_id": 0, "aggregate_id": 1}, (("aggregate_id", 1),))

    def listed(self, read_model: str, most: int) -> list[Document]:
        """Open findings as recorded, the oldest first; at most `limit`."""
        where = {"read_model": read_model, "state": "open"}
        return list(self._findings.find(where, sort=[("first_seen", 1), ("_id", 1)], limit=most))

    def open_by_outcome(self, read_model: str) -> dict[str, int]:
        """The number of open findings by outcome."""
        where = {"read_model": read_model, "state": "open"}
        groups = self._findings.aggregate([{"$match": where}, {"$group": {"_id": "$outcome", "findings": {"$sum": 1}}}])
        return {group["_id"]: group["findings"] for group in groups}

    def oldest_open(self, read_model: str) -> dict[str, datetime]:
        """The first time of the oldest open finding of each outcome."""
        oldest = {}
        for outcome in ALARMS:
            where = {"read_model": read_model, "state": "open", "outcome": outcome.value}
            found = self._findings.find_one(where, {"_id": 0, "first_seen": 1}, sort=[("first_seen", 1)])
            if found is not None:
                oldest[outcome.value] = found["first_seen"]
        return oldest

    def open_elsewhere(self, read_model: str, not_seen_since: datetime, covered: Covered) -> Counter[str]:
        """The number of open findings by outcome that were not found since then and are not covered."""
        unseen = {"read_model": read_model, "state": "open", "last_seen": {"$lt": not_seen_since}}
        fields = {"aggregate_id": 1, "plain": 1, "odd": 1, "outcome": 1}
        pages = paged(self._findings, _by_id(unseen), fields, "_id", _BATCH)
        return Counter(finding["outcome"] for page in pages for finding in page if not covered.has(finding))


def _watched(read_model: str) -> Document:
    return {"read_model": read_model, "state": {"$in": ["open", "lagging"]}}


def _by_id(where: Document) -> Document:
    """The same findings of a read model, by the index on `_id`, which begins with its name and a slash."""
    name = where["read_model"]
    return {**where, "_id": {"$gte": f"{name}/", "$lt": f"{name}0"}}


def _key(finding: Finding) -> str:
    text = finding.aggregate_id
    # An index key has a maximum size, an id of any type has none. And the number 7 must differ from the text.
    if not _is_whole(text):
        text = hashlib.sha256(_json(text).encode()).hexdigest()
    return f"{finding.read_model}/{text}"


def _is_whole(aggregate_id: Any) -> bool:
    """Whether the id is recorded unchanged."""
    return is_plain(aggregate_id) and len(aggregate_id) <= _LONGEST_ID


def _json(aggregate_id: Any) -> str:
    return json.dumps(json_value(aggregate_id, CANONICAL_JSON_OPTIONS))


def _version(last_versions: Mapping[str, Any], finding: Finding) -> Any:
    version = last_versions.get(finding.aggregate_id) if is_plain(finding.aggregate_id) else None
    # A malformed stream may have any value for a version; only a change counts.
    return version if version is None or isinstance(version, int) else repr(version)


def _seen(finding: Finding, version: Any) -> Document:
    aggregate_id = finding.aggregate_id
    return {
        "read_model": finding.read_model,
        "aggregate_id": aggregate_id if _is_whole(aggregate_id) else _json(aggregate_id)[:_LONGEST_ID],
        "plain": _is_whole(aggregate_id),
        # BSON code is decoded to a subclass of str.
        "odd": type(aggregate_id) is not str,
        "outcome": finding.outcome.value,
        "reason": None if finding.reason is None else str(finding.reason),
        "fields": sorted(finding.fields),
        "cause": None if finding.cause is None else finding.cause.kind.value,
        "version": version,
        "state": "lagging" if finding.outcome is Outcome.LAGGING else "open",
    }


class Verifications:
    """The recorded verifications and watermarks of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._verifications = Collection(database, VERIFICATIONS)
        self._watermarks = Collection(database, WATERMARKS)

    def record(self, read_models: Sequence[str], started_at: datetime, summary: Summary) -> None:
        """Record the numbers of a verification of these read models."""
        scope = summary.scope
        between = {"started_at": started_at, "ended_at": server_time(self._database).replace(tzinfo=None)}
        covers = {"tier": scope.tier, "coverage": _EVERYTHING if scope.everything else scope.coverage}
        read = {"events": summary.events, "seconds": summary.seconds}
        records: list[Document] = []
        for read_model in read_models:
            counts = summary.read_models[read_model]
            numbers = {**counts.as_dict(), "discrepancies": counts.discrepancies}
            causes = [
                {"kind": item.kind.value, "event_type": item.event_type, "count": item.count}
                | {"first": item.first, "last": item.last}
                for item in summary.outages.of(read_model)[:_MOST_CAUSES]
            ]
            seen = {"read_model": read_model, **between, **covers, **read, "counts": numbers, "causes": causes}
            records.append(seen)
        self._verifications.insert_many(records)

    def last_verification(self, read_model: str, *, of_everything: bool = False) -> Document | None:
        """The newest verification of a read model; or the newest that compared every field of every aggregate."""
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
        """The token of the last verification that covered all changes, if its settings (as text) were the same."""
        stored = self._watermarks.find_one({"_id": read_model, "made_from": list(made_from)})
        return stored["token"] if stored else None

    def verified_up_to(self) -> dict[str, datetime]:
        """The time up to which the changes of each read model are verified."""
        return {str(item["_id"]): time_of(item["token"]).as_datetime() for item in self._watermarks.find()}

    def forget_watermarks(self, read_models: Sequence[str]) -> None:
        """Delete the watermarks, because other documents have replaced the verified ones."""
        self._watermarks.delete_many({"_id": {"$in": list(read_models)}})

    def set_watermark(self, read_model: str, token: Token, made_from: Sequence[str]) -> None:
        """Record that all changes up to this token are verified, with these settings."""
        this = {"_id": read_model}
        reached = {"token": token, "made_from": list(made_from)}
        # A pipeline would interpret `$` signs in the token.
        self._watermarks.update_one(this, {"$set": reached, "$currentDate": {"at": True}}, upsert=True)
