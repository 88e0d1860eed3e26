"""Guards that hold at a moment: the file, the text that is the guard, what stands there without it, the test that
misses it. Who moves a guard moves its text here.
"""

from dataclasses import dataclass
from pathlib import Path

import readmodel_pipelines

ROOT = Path(readmodel_pipelines.__file__).parents[1]
PROGRAM, TESTS = "readmodel_pipelines", "readmodel_pipelines_tests"


@dataclass(frozen=True)
class Guard:
    """`old` stands in `file` once."""

    file: str
    old: str
    new: str
    test: str


GUARDS = {
    "a full run compares again before it replaces": Guard(
        "reconcile/in_place.py",
        "changes = self._not_newer_than_events(changes)",
        "pass",
        "unit/test_sinks.py::test_a_full_run_replaces_no_document_that_was_read_after_its_events_and_is_newer",
    ),
    "what was touched is forgotten once it is worked off": Guard(
        "bookkeeping/kept_keys.py",
        "            yield list(map(_as_kept, batch))\n",
        '            self._collection.delete_many({"_id": {"$in": batch}})\n'
        "            yield list(map(_as_kept, batch))\n",
        "integration/test_full_rebuild_catches_up.py::test_what_was_not_worked_off_is_given_again_to_who_comes_after_a_kill",
    ),
    "and so it is after a kill in the middle of the catch-up": Guard(
        "bookkeeping/kept_keys.py",
        "            yield list(map(_as_kept, batch))\n",
        '            self._collection.delete_many({"_id": {"$in": batch}})\n'
        "            yield list(map(_as_kept, batch))\n",
        "integration/test_full_rebuild_catches_up.py"
        "::test_what_was_touched_is_not_forgotten_by_a_run_that_is_killed_while_it_catches_up",
    ),
    "a dead owner frees its own leases": Guard(
        "bookkeeping/leases.py",
        'dead = {"owner": owner, "given_back": False}',
        'dead = {"given_back": False}',
        "integration/test_leases.py::test_a_dead_owner_frees_its_own_leases_and_nobody_else_s",
    ),
    "a busy aggregate is up to date since its events were looked at": Guard(
        "repair/worker.py",
        "since.get(item, 1)",
        "1",
        "integration/test_repair_worker_and_others.py::test_what_others_never_let_catch_up_is_not_repaired",
    ),
    "a lease that was taken is trusted from before it was asked for": Guard(
        "bookkeeping/leases.py",
        "min(self._ours_until, asked + self._seconds)",
        "min(self._ours_until, self._clock() + self._seconds)",
        "integration/test_leases.py::test_a_lease_is_trusted_no_longer_than_a_slow_server_keeps_it[False]",
    ),
    "a lease that was renewed is trusted from before it was asked for": Guard(
        "bookkeeping/leases.py",
        "        self._ours_until = asked + self._seconds if",
        "        self._ours_until = self._clock() + self._seconds if",
        "integration/test_leases.py::test_a_lease_is_trusted_no_longer_than_a_slow_server_keeps_it[True]",
    ),
    "a worker trusts its parent's lease no longer than that lasts": Guard(
        "bookkeeping/leases.py",
        "min(seconds / _RENEWALS_PER_LIFE, *lasting)",
        "seconds / _RENEWALS_PER_LIFE",
        "integration/test_fixed_names.py::test_a_worker_trusts_its_lease_no_longer_than_that_lasts",
    ),
    "the lease is asked for right before the swap": Guard(
        "rebuild/swap_in.py",
        "        reached(Moment.LAST_LOOK_DONE)\n        run.held.check()\n",
        "        reached(Moment.LAST_LOOK_DONE)\n",
        "integration/test_fixed_names.py::test_who_lost_its_lease_at_the_last_look_swaps_nothing",
    ),
    "deletions are counted once more between gate and swap": Guard(
        "rebuild/finish_shadow.py",
        "    refuse_lost(run)\n    _check_deletions(run, catch_up)\n",
        "    refuse_lost(run)\n",
        "integration/test_full_rebuild.py::test_deletions_that_became_too_many_while_a_copy_was_made_are_refused",
    ),
    "a gate with more suspects than it holds looks again": Guard(
        "rebuild/gate.py",
        "            all_of_them = False\n",
        "            pass\n",
        "integration/test_shadow.py::test_the_gate_goes_by_more_suspects_than_it_holds",
    ),
    "a shadow's document has no owned field too many": Guard(
        "cutover/shadow.py",
        "for name in self.lane.projection.owned if name not in expected}",
        "for name in ()}",
        "integration/test_shadow.py::test_an_owned_field_that_nobody_wants_is_not_taken_over",
    ),
    "a shadow has the unique indexes of its read model": Guard(
        "cutover/definition.py",
        "for own in of_read_model(projection)\n",
        "for own in of_read_model(projection)[:0]\n",
        "integration/test_shadow.py::test_a_read_model_without_its_unique_indexes_has_them_after_it",
    ),
    "a duplicate does not lag": Guard(
        "reconcile/confirm.py",
        "return verdict.outcome in _MAY_LAG and verdict.reason is None",
        "return verdict.outcome in _MAY_LAG",
        "unit/test_confirm.py::test_a_second_document_for_a_key_does_not_lag_beside_the_one_that_does",
    ),
    "the tier of versions allows gaps where the settings do": Guard(
        "reconcile/versions.py",
        "if end > events and Reason.VERSION_GAP not in allowed:",
        "if end > events:",
        "unit/test_versions.py::test_a_gap_is_suspected_but_where_gaps_are_allowed",
    ),
    "a bug counts as a crash": Guard(
        "repair/claim.py",
        "            if _is_nobodys_fault(error):",
        "            if True:",
        "integration/test_repair_worker.py::test_a_bug_counts_as_a_crash_and_the_tasks_are_due",
    ),
    "a lease that a bug let go is not given back": Guard(
        "repair/claim.py",
        "                leases.abandon()",
        "                leases.give_back()",
        "integration/test_repair_worker.py::test_a_bug_counts_as_a_crash_and_the_tasks_are_due",
    ),
    "a lease that was given back does not make the next one count a loss": Guard(
        "bookkeeping/leases.py",
        '{"$or": [{"$eq": [{"$type": "$nonce"}, "missing"]}, {"$eq": ["$given_back", True]}]}',
        '{"$eq": [{"$type": "$nonce"}, "missing"]}',
        "integration/test_leases.py::test_a_lease_that_was_given_back_was_not_lost_and_one_that_ran_out_was",
    ),
    "a lease that was given back is not told as lost": Guard(
        "bookkeeping/leases.py",
        '        if not lease.get("given_back")\n',
        "",
        "integration/test_leases.py::test_a_lease_that_was_given_back_was_not_lost_and_one_that_ran_out_was",
    ),
}
