"""The contents of a verification's reports: every finding with its repair command, and the commands for all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from readmodel_pipelines.events.ids import is_aggregate_id
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.reconcile.finding import Finding
from readmodel_pipelines.reconcile.outages import histogram, sentence
from readmodel_pipelines.reconcile.outcome import Outcome
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.reports.writer import ReportWriter, check_report_file

_NOT_BY_US = "correct its events first"


class Reporting:
    """Report files of one verification; `close` removes unfinished files.

    A full disk must not lose the result of a long run: later errors are stored in `error` and not raised.

    Raises:
        UsageError: a report cannot be written there; only raised at the start.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        for file in files:
            check_report_file(file)
        self.error: OSError | None = None
        self._files = files
        try:
            self._writer = ReportWriter(files)
        except OSError as error:
            self._writer, self.error = ReportWriter([]), error

    def __call__(self, projection: Projection, findings: Sequence[Finding]) -> None:
        """Add findings to the reports."""
        if not self._files or self.error is not None:
            return
        try:
            for finding in findings:
                self._writer.add(finding.as_json() | {"mend": _mends(projection, finding)})
        except OSError as error:
            self._fail(error)

    def finish(
        self,
        summary: Summary,
        projections: Sequence[Projection],
        database: str,
        history: Sequence[Mapping[str, Any]],
        aggregate_id: str | None = None,
    ) -> None:
        """Complete the files, and record in the summary the written ones, or the error.

        `aggregate_id` is the verified aggregate, or None for many.
        """
        mend = _what_to_run(summary, projections, aggregate_id)
        why = [f"{name}: {said}" for name in summary.read_models if (said := sentence(summary.outages, name))]
        lost = histogram(summary.outages.largest_first())
        about = {**summary.as_json(), "database": database, "mend": mend, "why": why, "lost_over_time": lost}
        summary.scope.reports = []
        if self.error is None:
            try:
                summary.scope.reports = [str(file) for file in self._writer.finish(about, history)]
            except OSError as error:
                self._fail(error)
        if self.error is not None:
            summary.warnings.append(f"No report could be written: {self.error.strerror or self.error}.")

    def _fail(self, error: OSError) -> None:
        self.error = error
        self.close()

    def close(self) -> None:
        """Remove unfinished files."""
        try:
            self._writer.close()
        except OSError as error:
            self.error = self.error or error


def _mends(projection: Projection, finding: Finding) -> str:
    if finding.outcome is Outcome.MALFORMED:
        return _NOT_BY_US
    # Another id may hold any text, and people paste this into a shell.
    if is_aggregate_id(finding.aggregate_id):
        return f"readmodel rebuild-readmodel --type {projection.name} --id {finding.aggregate_id}"
    return f"readmodel rebuild-readmodel --type {projection.name} --all"


def _what_to_run(summary: Summary, projections: Sequence[Projection], aggregate_id: str | None) -> list[dict[str, str]]:
    commands = []
    for projection in projections:
        counts = summary.read_models[projection.read_model]
        mendable = counts.discrepancies - counts.malformed
        which = f"--type {projection.name} " + (f"--id {aggregate_id}" if aggregate_id else "--all")
        if mendable:
            what = f"repairs {mendable:,} in {projection.read_model}; add --dry-run to see the changes"
            commands.append({"command": f"readmodel rebuild-readmodel {which}", "what": what})
        if mendable and not aggregate_id:
            command = f"readmodel verify-consistency {which} --enqueue-repairs"
            commands.append({"command": command, "what": "or has workers repair them"})
        if counts.malformed:
            command = f"readmodel verify-consistency {which} --report malformed.csv"
            what = (
                f"lists {counts.malformed:,} malformed streams of {projection.read_model}; correct their events first"
            )
            commands.append({"command": command, "what": what})
    return commands
