"""A race: verbs in processes of their own, three at once, beside live writers, frozen and woken by chance.

What they leave is held against the second implementation, which shares no code with the package: read models, tasks,
leftovers, and what each verb told of itself. By seed, but for what the machine makes of it.
"""

import json
import multiprocessing
import os
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from uuid import UUID

from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.errors import ReadModelBusy
from readmodel_pipelines.mongo.driver import Database
from readmodel_pipelines.mongo.indexes import ensure_indexes
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.rebuild import RebuildRequest, abort, rebuild, roll_back
from readmodel_pipelines.rebuild_state import UNFINISHED, RebuildState
from readmodel_pipelines.repair.worker import RepairWorker
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support import stored_values
from readmodel_pipelines_tests.support.campaign import judge
from readmodel_pipelines_tests.support.campaign.trial import wanted
from readmodel_pipelines_tests.support.races.frozen import is_frozen, wake
from readmodel_pipelines_tests.support.races.verbs import OWN, WRITER, Told, child
from readmodel_pipelines_tests.support.scene import RAW

LEASE = 1.5
AT_ONCE = 3
_WRITERS = 2
_CHATS = 80
_FROZEN = (0.1, 2.5 * LEASE)
_LONGEST = 90.0
_LOOK = 0.02
_BEFORE_A_WRITE = 0.01
_ANY_TIME = 0.2
_WEIGHTS = {"in_place": 3, "shadow": 5, "slice": 3, "abort": 1, "repair": 4, "verify": 2, "rebuild_one": 1}
_ROLLBACKS = {"rollback": 3}
_REBUILDS = ("in_place", "shadow", "slice", "rollback")
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["readmodel_pipelines_tests.support.races.verbs"])


@dataclass
class Raced:
    """What a race came to: how much was done, how often somebody was frozen, and everything that is wrong."""

    commands: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    freezes: int = 0
    events: int = 0
    wrong: list[str] = field(default_factory=list)

    def in_words(self) -> str:
        """For the log."""
        done = f"{sum(self.commands.values())} commands, {self.freezes} freezes, {self.events:,} events"
        return f"{done}; {dict(self.endings)}; wrong: {len(self.wrong)}"


class Race:
    """One seed on one database."""

    def __init__(self, database: Database, settings: Settings, seed: int, folder: Path, *, rollbacks: bool) -> None:
        self._database = database
        changed = {"lease_seconds": LEASE, "repair_lease_seconds": LEASE, "workers": 1, "grace_seconds": 0.2}
        self._settings = settings.model_copy(update=changed)
        self._seed = seed
        self._folder = folder
        self._rollbacks = rollbacks
        self._weights = {**_WEIGHTS, **(_ROLLBACKS if rollbacks else {})}
        self._lock = threading.Lock()
        self._told: list[Told] = []
        self._own: dict[str, int] = {}
        self.raced = Raced()

    def run(self, rounds: int, seconds: float) -> Raced:
        """Race so often, each time for so long; what is wrong after a round ends it."""
        ensure_indexes(self._database, self._settings)
        self._database.events.insert_many([*chat_events(_CHATS, seed=self._seed, mean_events=8)])
        # On record, so that the schema of every copy is known.
        assert rebuild(self._database, self._settings, [], RebuildRequest()).ok
        for number in range(rounds):
            self._round(number, seconds)
            self._come_to_rest(random.Random(f"{self._seed} {number} rest"))
            self.raced.wrong += [f"round {number}: {item}" for item in self._what_is_wrong()]
            if self.raced.wrong:
                break
        self.raced.events = self._database.events.count_documents({})
        return self.raced

    # A round

    def _round(self, number: int, seconds: float) -> None:
        until = time.monotonic() + seconds
        racers = [
            threading.Thread(target=self._race, args=(f"{self._seed} {number} {racer}", until))
            for racer in range(AT_ONCE)
        ]
        racers += [
            threading.Thread(target=self._one, args=(WRITER, f"{self._seed} {number} w{writer}", seconds))
            for writer in range(_WRITERS)
        ]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()

    def _race(self, seed: str, until: float) -> None:
        chance = random.Random(seed)
        verbs, weights = zip(*self._weights.items(), strict=True)
        number = 0
        while time.monotonic() < until:
            number += 1
            (verb,) = chance.choices(verbs, weights)
            self._one(verb, f"{seed} {number}")

    def _one(self, verb: str, seed: str, seconds: float = 0.0) -> None:
        told = self._folder / f"{seed.replace(' ', '_')}.json"
        freezes = 0.0 if verb == WRITER else _BEFORE_A_WRITE
        arguments = (self._settings, verb, seed, seconds, freezes, str(told))
        process = _CONTEXT.Process(target=child, args=arguments, daemon=True)
        process.start()
        self._watch(process, random.Random(f"{seed} freezes"), any_time=bool(freezes))
        outcome = Told(verb, error="no end", message=f"{seed}: exit code {process.exitcode}")
        if told.exists():
            outcome = Told(**json.loads(told.read_text()))
        with self._lock:
            self._told.append(outcome)
            self.raced.commands[verb] += 1
            self.raced.endings[f"{verb}: {outcome.error or outcome.state or outcome.ok}"] += 1
            if verb == WRITER and outcome.ok:
                self._own |= json.loads(outcome.message)

    def _watch(self, process: ForkServerProcess, chance: random.Random, *, any_time: bool) -> None:
        """Wake it whenever it was frozen for long enough, freeze it now and then, until it ends."""
        pid, deadline = process.pid or 0, time.monotonic() + _LONGEST
        wakes_at = 0.0
        freeze_at = time.monotonic() + chance.expovariate(_ANY_TIME) if any_time else float("inf")
        while process.is_alive():
            now = time.monotonic()
            if now > deadline:
                process.kill()
            elif not is_frozen(pid):
                wakes_at = 0.0
                if now >= freeze_at:
                    freeze_at = now + chance.expovariate(_ANY_TIME)
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGSTOP)
            elif not wakes_at:
                self.raced.freezes += 1
                wakes_at = now + chance.uniform(*_FROZEN)
            elif now >= wakes_at:
                wakes_at = 0.0
                with suppress(ProcessLookupError):
                    wake(pid)
            process.join(_LOOK)

    # Its end

    def _come_to_rest(self, chance: random.Random) -> None:
        """What is unfinished is ended, as an operator would, and every task is worked off."""
        deadline = time.monotonic() + _LONGEST
        while unfinished := self._unfinished():
            record = chance.choice(unfinished)
            try:
                self._end(record, chance)
            except ReadModelBusy:
                # Of a dead holder, until its lease runs out.
                time.sleep(LEASE / 3)
            if time.monotonic() > deadline:
                self.raced.wrong.append(f"cannot be ended: {record['_id']} is {record['state']}")
                return
        open_tasks = {"status": {"$in": ["pending", "processing"]}}
        while self._database.repair_queue.find_one(open_tasks):
            self._database.repair_queue.update_many({"status": "pending"}, {"$unset": {"next_attempt_at": ""}})
            if not RepairWorker(self._database, self._settings).work().claimed:
                time.sleep(LEASE / 3)
            if time.monotonic() > deadline:
                self.raced.wrong.append("tasks are not worked off")
                return

    def _unfinished(self) -> list[dict[str, Any]]:
        wanted = {"kind": "rebuild", "state": {"$in": [*UNFINISHED]}}
        return [dict(item) for item in self._database.readmodel_rebuilds.find(wanted)]

    def _end(self, record: dict[str, Any], chance: random.Random) -> None:
        if record["state"] == RebuildState.ROLLING_BACK:
            roll_back(self._database, self._settings, record["_id"])
        elif record["state"] == RebuildState.SWAPPING or chance.random() < 0.5:
            rebuild(self._database, self._settings, record["names"], RebuildRequest(record["strategy"], resume=True))
        else:
            abort(self._database, self._settings, record["_id"])

    def _what_is_wrong(self) -> Iterator[str]:
        yield from self._wrong_documents()
        yield from self._left_over()
        yield from self._told_wrongly()
        if not self._rollbacks:
            yield from self._lost_fields()
        told = ReadModelProjector(self._database, self._settings).verify_all()
        if not told.ok:
            yield f"a verification finds {[(item.read_model, item.aggregate_id) for item in told.findings][:5]}"

    def _wrong_documents(self) -> Iterator[str]:
        streams: dict[tuple[str, Any], list[Any]] = defaultdict(list)
        for event in map(stored_values.document, self._raw("events")):
            streams["Chat", event["aggregate_id"]].append(event)
        in_order = {key: stored_values.in_order(events) for key, events in streams.items()}
        for read_model, expected in wanted(in_order, (), legacy=False).items():
            stored = [judge.Stored(read_model, raw) for raw in self._raw(read_model)]
            for finding in judge.findings(read_model, stored, expected):
                yield f"{read_model} {finding.key.value}: {finding.outcome} {sorted(finding.fields)}"

    def _raw(self, name: str) -> Iterator[bytes]:
        found: Any = self._database.get_collection(name, codec_options=RAW).find().sort("_id")
        return (bytes(item.raw) for item in found)

    def _left_over(self) -> Iterator[str]:
        records = self._database.readmodel_rebuilds.find()
        kept = {copy for record in records for copy in record.get("copies", {}).values()}
        for found in self._database.list_collections():
            name = found["name"]
            is_kept = name.startswith("readmodel_before") and _identity(found) in kept
            if name.startswith(("readmodel_shadow", "readmodel_before")) and not is_kept:
                yield f"left over: {name}"
        for name in ("readmodel_touched", "readmodel_deferred"):
            if number := self._database[name].count_documents({}):
                yield f"left over: {number} keys in {name}"
        held = {"given_back": True, "$expr": {"$gt": ["$expires_at", "$$NOW"]}}
        for lease in self._database.readmodel_leases.find(held):
            yield f"left over: the lease {lease['_id']} is given back, and lasts"
        for task in self._database.repair_queue.find({"status": {"$ne": "completed"}}):
            yield f"left over: task {task['_id']} is {task['status']}: {task.get('reason')}"

    def _told_wrongly(self) -> Iterator[str]:
        ends = {item["_id"]: item["state"] for item in self._database.readmodel_rebuilds.find({"kind": "rebuild"})}
        for told in self._told:
            if told.error in ("traceback", "no end"):
                yield f"{told.verb}: {told.error} {told.message}"
            elif told.verb in _REBUILDS and told.ok and told.rebuild:
                yield from _wrong_success(told, ends.get(told.rebuild, "gone"))
            elif told.verb == "abort" and told.rebuild and ends[told.rebuild] != RebuildState.ABORTED:
                yield f"abort: {told.rebuild} is {ends[told.rebuild]}"
        self._told.clear()

    def _lost_fields(self) -> Iterator[str]:
        """The newest value stands, and none is there twice.

        What was added to a list right before a swap is not under what is added to it right after the swap: there the
        list of then is not there yet, and the newer one stands.
        """
        for chat_id, value in self._own.items():
            found = self._database.chats_read_model.find_one({"chat_id": chat_id}) or {}
            own = found.get(OWN) or {}
            added = own.get("all") or [0]
            in_order = added == sorted({*added}) and added[-1] == value
            if not in_order or (own.get("count"), found.get(f"{OWN}_last")) != (value, value):
                yield f"{chat_id}: a field that is not ours is {own}, not {value}"


def _identity(collection: Mapping[str, Any]) -> str:
    """As records have it of the copies that are theirs."""
    uuid = collection["info"]["uuid"]
    return str(uuid.hex if isinstance(uuid, UUID) else uuid.hex())


def _wrong_success(told: Told, state: str) -> Sequence[str]:
    done = (RebuildState.DONE, RebuildState.ROLLED_BACK)
    if told.state in done and state not in done:
        return [f"{told.verb}: says that {told.rebuild} is {told.state}, and it is {state}: {told.message}"]
    if told.state == RebuildState.ABORTED:
        return [f"{told.verb}: {told.rebuild} is aborted, and it says that all is well: {told.message}"]
    return []
