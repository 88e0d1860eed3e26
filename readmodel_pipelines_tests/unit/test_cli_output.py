"""What the command line makes of a summary and of progress, without a database."""

import json
import os
import subprocess
import sys

import pytest

from readmodel_pipelines.cli.terminal import options
from readmodel_pipelines.cli.terminal.options import read_model_choices
from readmodel_pipelines.cli.terminal.summary import human_lines
from readmodel_pipelines.cli.terminal.voice import Voice, complain
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.projections.registry import built_in, names
from readmodel_pipelines.reconcile.about import VerificationScope
from readmodel_pipelines.reconcile.finding import Finding
from readmodel_pipelines.reconcile.outcome import Counts, Outcome
from readmodel_pipelines.reconcile.summary import DEFAULT_MAX_FINDINGS, Summary, Verb
from readmodel_pipelines.verification.coverage import Bucket, Coverage


def test_long_values_are_shown_from_a_little_before_they_part() -> None:
    alike = "much the same " * 20
    result = Summary("verify", "chat", read_models={"chats_read_model": Counts(checked=1, different=1)})
    fields = {"title": (f"{alike}and this", f"{alike}or that"), "status": (alike, "Done")}
    result.findings.append(Finding("chats_read_model", "an id", Outcome.DIFFERENT, fields=fields))
    legend, title, status = [line for line in human_lines(result) if "→" in line]
    assert legend.startswith("Fields are shown as ")
    assert title == '    title: …ch the same and this" → …ch the same or that"'
    assert status.endswith('… → "Done"')
    assert len(status) < 100


@pytest.mark.parametrize(
    ("verb", "line"), [("verify", '"new" → "old"'), ("dry_run", '"old" → "new"'), ("rebuild", '"old" → "new"')]
)
def test_an_arrow_of_whoever_writes_goes_from_what_is_there_to_what_will_be(verb: Verb, line: str) -> None:
    result = Summary(verb, "chat", read_models={"chats_read_model": Counts(checked=1, different=1, replaced=1)})
    fields = {"title": ("new", "old")}
    result.findings.append(Finding("chats_read_model", "an id", Outcome.DIFFERENT, fields=fields))
    legend, title = [told for told in human_lines(result) if "→" in told]
    assert legend.startswith("Fields are shown as ")
    assert title == f"    title: {line}"


def test_what_would_be_deleted_is_told_apart_from_what_is_mended() -> None:
    counts = Counts(checked=9, different=4, unexpected=2, orphan=1, malformed=1)
    closing = [*human_lines(Summary("verify", "chat", read_models={"chats_read_model": counts}))][-1]
    assert "7, 3 of them by deleting a document (--dry-run " in closing
    counts = Counts(checked=9, different=4, unexpected=2, orphan=1, replaced=4, deleted=3)
    closing = [*human_lines(Summary("dry_run", "chat", read_models={"chats_read_model": counts}))][-1]
    assert "would write 7 documents, 3 of them deletions: `readmodel rebuild-readmodel" in closing


@pytest.mark.parametrize(
    ("scope", "closing"),
    [
        (VerificationScope(), "All is well: every document "),
        (VerificationScope("documents", str(Coverage())), "All is well: every document "),
        (
            VerificationScope("documents", str(Coverage(bucket=Bucket(3, 7))), everything=False),
            "No discrepancy was found: every compared document ",
        ),
        (VerificationScope("versions", str(Coverage())), "No discrepancy was found: presence and version "),
    ],
)
def test_a_verification_without_findings_says_what_it_looked_at(scope: VerificationScope, closing: str) -> None:
    result = Summary("verify", "chat", read_models={"chats_read_model": Counts(checked=1, same=1)}, scope=scope)
    assert list(human_lines(result))[-1].startswith(closing)


def test_choices_and_defaults_that_are_written_twice_agree() -> None:
    assert (*names(built_in("chat")), "all") == read_model_choices()
    assert options.DEFAULT_MAX_FINDINGS == DEFAULT_MAX_FINDINGS


HOSTILE = "an id\nAll is well\r\x1b[2J\u202e\u2028\ud83d"


@pytest.mark.parametrize("as_json", [False, True])
def test_nothing_stored_forges_a_line_or_commands_the_terminal_and_json_has_it_as_it_is(
    capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    speaking = Voice(as_json=as_json, verbose=True)
    speaking.result({"id": HOSTILE}, [f"  {HOSTILE}", "the end"])
    speaking.note(HOSTILE)
    speaking.detail(HOSTILE)
    complain(str(UsageError(f"There is no {HOSTILE}.", hint="Do this.\nOr that.")))
    told = capsys.readouterr()
    assert len(told.err.splitlines()) == 5
    assert (told.out + told.err).replace("\n", "").isprintable()
    if as_json:
        assert json.loads(told.out) == {"id": HOSTILE}
    else:
        assert [line[:7] for line in told.out.splitlines()] == ["  an id", "the end"]


@pytest.mark.parametrize(
    ("to", "code", "said"), [("/dev/full", 6, "could not be written"), ("&-", 0, ""), ("&- 2>&- <&-", 0, "")]
)
@pytest.mark.parametrize("arguments", ["rights --json", "--help"])
def test_an_output_that_takes_nothing_ends_in_words(arguments: str, to: str, code: int, said: str) -> None:
    typed = f"exec {sys.executable} -m readmodel_pipelines.cli.main {arguments} >{to}"
    ended = subprocess.run(["sh", "-c", typed], capture_output=True, text=True, check=False)
    assert (ended.returncode, "Traceback" in ended.stderr) == (code, False)
    assert said in ended.stderr


def test_who_stops_reading_hears_nothing_of_it() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    typed = [sys.executable, "-m", "readmodel_pipelines.cli.main", "rights"]
    ended = subprocess.run(typed, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, b"")
