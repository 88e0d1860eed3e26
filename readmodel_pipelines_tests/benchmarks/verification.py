"""How cheap verifying is, as ratios measured in one run. `make bench-more`.

Healthy against damaged, the tier of versions against that of documents, what changed against how much there is, and
memory at ten times the findings. Each figure is the best of some rounds. One process; embedded server; all indexes.
"""

import argparse
from pathlib import Path
from typing import Any

from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.names import FINDINGS
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.reports.writer import SUFFIXES
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.verification.coverage import Coverage
from readmodel_pipelines.verification.verify import VerificationRequest, verify
from readmodel_pipelines_tests.benchmarks.measuring import Best, bench_server, best, in_a_process, peak_mib
from readmodel_pipelines_tests.benchmarks.reconcile import fill
from readmodel_pipelines_tests.support.scene import Mongo, event

SINCE_LAST = VerificationRequest(Coverage(since_last=True))


def main() -> None:
    """Run the benchmarks and print each figure as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chats", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with bench_server() as server:
        for chats in (arguments.chats, 4 * arguments.chats):
            settings = server.model_copy(update={"database": f"bench_{chats}"})
            with open_database(settings) as database:
                fill(database, settings, chat_events(chats))
                ReadModelProjector(database, settings).rebuild_all()
                print(f"{database.events.estimated_document_count():,} events of {chats:,} chats")
                incremental(database, settings, arguments.rounds)
                if chats == arguments.chats:
                    tiers(database, settings, arguments.rounds)
                damaged(database, settings, arguments.rounds)
            memory(settings)


def tiers(database: Mongo, settings: Settings, rounds: int) -> None:
    """The tier of versions beside that of documents, on healthy read models."""
    documents = best(rounds, lambda: verify(database, settings, [], VerificationRequest()))
    versions = best(rounds, lambda: verify(database, settings, [], VerificationRequest(tier="versions")))
    print(
        f"tier of documents {documents:.3f} s, of versions {versions:.3f} s: {versions / documents:.2f} (at most 0.2)"
    )


def incremental(database: Mongo, settings: Settings, rounds: int) -> None:
    """What changed since the last time: nothing, 100 aggregates, 1,000 aggregates; beside a look at everything."""
    whole = best(rounds, lambda: verify(database, settings, [], VerificationRequest()))
    ids = [document["chat_id"] for document in database.chats_read_model.find({}, {"chat_id": 1}, limit=1_000)]
    said = [f"everything {whole:.3f} s"]
    for changed in (0, 100, 1_000):
        fastest = Best()
        for _ in range(rounds):
            _append(database, settings, ids[:changed])
            summary = fastest.timed("", lambda: verify(database, settings, [], SINCE_LAST))
            if not summary.ok or summary.read_models["chats_read_model"].checked != changed:
                raise SystemExit("the incremental look is wrong")
        said.append(f"{changed:,} changed {fastest['']:.3f} s")
    print("; ".join(said))


def damaged(database: Mongo, settings: Settings, rounds: int) -> None:
    """A tenth of the documents damaged, beside healthy: remembered with their ages, every field compared."""
    healthy = best(rounds, lambda: verify(database, settings, [], VerificationRequest()))
    ids = [document["chat_id"] for document in database.chats_read_model.find({}, {"chat_id": 1})][::10]
    database.chats_read_model.update_many({"chat_id": {"$in": ids}}, {"$set": {"title": "broken", "type": 7}})
    database.tasks_read_model.update_many({"chat_id": {"$in": ids}}, {"$set": {"version": 0}})
    first = best(1, lambda: verify(database, settings, [], VerificationRequest()))
    found = database[FINDINGS].count_documents({})
    again = best(rounds, lambda: verify(database, settings, [], VerificationRequest()))
    causes(database, settings, rounds)
    print(
        f"healthy {healthy:.3f} s, {found:,} findings {first:.3f} s at first, {again:.3f} s again: "
        f"{first / healthy:.2f} and {again / healthy:.2f} times (less than 2)"
    )


def causes(database: Mongo, settings: Settings, rounds: int) -> None:
    """The same with and without the causes of findings, in turns."""
    without = settings.model_copy(update={"causes_limit": 0})
    fastest = Best()
    for _ in range(rounds):
        for name, these in (("without", without), ("with", settings)):
            fastest.timed(name, lambda these=these: verify(database, these, [], VerificationRequest()))  # type: ignore[misc]
    ratio = fastest["with"] / fastest["without"]
    print(f"causes: {fastest['without']:.3f} s without, {fastest['with']:.3f} s with: {ratio:.2f} times (at most 1.3)")


def memory(settings: Settings) -> None:
    """Peak memory of a process that verifies the damaged read models and writes every report."""
    found = in_a_process(_verified, settings)
    took = f"peak memory {found['peak_mib']:.1f} MiB, {found['seconds']:.2f} s"
    print(f"{found['findings']:,} findings, four reports: {took}")


def _append(database: Mongo, settings: Settings, ids: list[str]) -> None:
    """An event for each of these, projected."""
    if not ids:
        return
    last = {"$group": {"_id": "$aggregate_id", "last": {"$max": "$version"}}}
    database.events.insert_many(
        event(group["_id"], "Chat", group["last"] + 1, "chat.renamed", {"new_title": f"Title {group['last']}"})
        for group in database.events.aggregate([{"$match": {"aggregate_id": {"$in": ids}}}, last])
    )
    ReadModelProjector(database, settings).rebuild_some(ids)


def _verified(settings: Settings) -> dict[str, Any]:
    folder = Path(settings.reports_dir or ".")
    reports = [folder / f"{settings.database}{suffix}" for suffix in SUFFIXES]
    with open_database(settings) as database:
        summary = verify(database, settings, [], VerificationRequest(reports=reports))
    findings = sum(counts.discrepancies for counts in summary.read_models.values())
    return {"findings": findings, "seconds": summary.seconds, "peak_mib": peak_mib()}


if __name__ == "__main__":
    main()
