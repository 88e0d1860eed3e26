"""Report files: each whole or not at all, every finding in them, readable by what they are for."""

import csv
import json
import os
import re
import stat
import time
import tracemalloc
from collections import Counter
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from bson.code import Code

from readmodel_pipelines.projections.chat import CHATS
from readmodel_pipelines.reconcile.finding import Finding
from readmodel_pipelines.reconcile.outcome import Counts, Outcome
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.reports import writer
from readmodel_pipelines.reports.writer import COLUMNS, SUFFIXES, ReportWriter
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.verification.folder import new_report_files
from readmodel_pipelines.verification.reporting import Reporting

ABSENT = {"$absent": True}
UUID = "00000000-0000-4000-8000-000000000000"
HOSTILE = "</script><img src=x onerror=alert(1)><!-- \u2028 ]]>"
COUNTS = {"checked": 10, "same": 8, "different": 2}
SUMMARY = {
    "verb": "verify",
    "events": 100,
    "seconds": 1.5,
    "read_models": {"chats_read_model": COUNTS},
    "findings": [],
    "warnings": ["mind this"],
    "database": "flowra",
    "mend": [{"command": "readmodel rebuild-readmodel --type chat --all", "what": "mends 2"}],
}


def pandas() -> Any:
    """Imported where it is used: each process of a run looks at all files, and works on some."""
    return import_module("pandas")


def finding(aggregate_id: Any = "a", **fields: Any) -> dict[str, Any]:
    pairs = {name: {"expected": pair[0], "actual": pair[1]} for name, pair in fields.items()}
    return {
        "read_model": "chats_read_model",
        "aggregate_id": aggregate_id,
        "outcome": "different" if fields else "missing",
        "reason": None,
        "fields": pairs,
        "mend": "readmodel …",
    }


def written(folder: Path, *findings: dict[str, Any]) -> dict[str, Path]:
    files = {suffix: folder / f"report{suffix}" for suffix in SUFFIXES}
    with closing(ReportWriter(list(files.values()))) as writer:
        for item in findings:
            writer.add(item)
        assert writer.finish(SUMMARY, []) == list(files.values())
    assert sorted(folder.iterdir()) == sorted(files.values())
    return files


def data_of(page: Path) -> Any:
    text = page.read_text("utf-8")
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.DOTALL)
    return json.loads(data)


def test_every_format_tells_the_same(tmp_path: Path) -> None:
    first = finding(title=('a, "b"\nc', 1), status=(ABSENT, None)) | {"age_seconds": 61.5, "first_seen": "2026-01-01Z"}
    files = written(tmp_path, first, finding({"$oid": "65a000000000000000000001"}))
    with files[".csv"].open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    table = pandas().read_parquet(files[".parquet"])
    assert tuple(rows[0]) == tuple(table.columns) == COLUMNS
    assert [row["field"] for row in rows] == list(table["field"]) == ["title", "status", ""]
    assert [row["aggregate_id"] for row in rows][::2] == ["a", '{"$oid": "65a000000000000000000001"}']
    assert (json.loads(rows[0]["expected"]), rows[0]["actual"]) == ('a, "b"\nc', "1")
    assert (json.loads(rows[1]["expected"]), rows[1]["actual"]) == (ABSENT, "null")
    assert list(table["age_seconds"])[:2] == [61.5, 61.5]
    assert table["age_seconds"].isna()[2]
    document = json.loads(files[".json"].read_text())
    assert document["findings"] == data_of(files[".html"])["findings"]
    assert document["findings"][0] == first
    assert {**document, "findings": []} == SUMMARY


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\u2028", '",', "\0"])
def test_whatever_ends_lines_in_a_text_ends_no_row_of_csv(tmp_path: Path, end: str) -> None:
    file = written(tmp_path, finding(f"a{end}b"), finding("c"))[".csv"]
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["aggregate_id"] for row in rows] == [f"a{end}b", "c"]
    assert [set(row) for row in rows] == [set(COLUMNS)] * 2


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff20"])
def test_nothing_stored_is_a_formula_in_a_spreadsheet(tmp_path: Path, begin: str) -> None:
    formula = f"{begin}cmd|' /C calc'!A0"
    files = written(tmp_path, finding(formula, **{formula: (formula, -5)}) | {"detail": formula})
    with files[".csv"].open(newline="", encoding="utf-8") as lines:
        (row,) = csv.DictReader(lines)
    assert row["aggregate_id"] == row["field"] == row["detail"] == f"'{formula}"
    assert (json.loads(row["expected"]), row["actual"]) == (formula, "-5"), "no text but JSON, and a number is one"
    assert pandas().read_parquet(files[".parquet"])["aggregate_id"][0] == formula, "for programs it is what it is"


def test_a_report_is_its_owner_s_alone_and_follows_no_link(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("theirs")
    folder = tmp_path / "reports"
    folder.mkdir()
    (folder / "report.csv").symlink_to(theirs)
    mask = os.umask(0)
    try:
        files = written(folder, finding())
    finally:
        os.umask(mask)
    assert {stat.S_IMODE(file.lstat().st_mode) for file in files.values()} == {0o600}
    assert not any(file.is_symlink() for file in files.values())
    assert theirs.read_text() == "theirs"


def test_the_file_that_a_report_is_written_to_is_none_that_lay_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("theirs")
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    (tmp_path / ".report.csv.guessed.tmp").symlink_to(theirs)
    with pytest.raises(FileExistsError):
        ReportWriter([tmp_path / "report.csv"])
    assert theirs.read_text() == "theirs"


def test_a_file_that_is_named_twice_is_written_once(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    files = [tmp_path / "a.csv", tmp_path / "a.csv", tmp_path / "sub" / ".." / "a.csv"]
    with closing(ReportWriter(files)) as writer:
        writer.add(finding())
        assert len(writer.finish(SUMMARY, [])) == 1
    assert (tmp_path / "a.csv").read_text().count("\n") == 2


def test_without_findings_every_format_is_whole(tmp_path: Path) -> None:
    files = written(tmp_path)
    assert json.loads(files[".json"].read_text()) == SUMMARY
    assert list(pandas().read_parquet(files[".parquet"]).columns) == list(pandas().read_csv(files[".csv"]).columns)
    assert data_of(files[".html"])["total"] == 0


def test_a_text_that_was_no_utf8_is_written_with_its_bytes_spelled_out(tmp_path: Path) -> None:
    files = written(tmp_path, finding("\udcff", title=("\udc80", "x")) | {"reason": "\udc81"})
    assert "\\udcff" in files[".csv"].read_text("utf-8")
    assert pandas().read_parquet(files[".parquet"])["aggregate_id"][0] == "\\udcff"
    assert json.loads(files[".json"].read_text())["findings"][0]["aggregate_id"] == "\udcff"


def test_hostile_text_cannot_leave_the_data_of_the_page(tmp_path: Path) -> None:
    page = written(tmp_path, finding(HOSTILE, **{HOSTILE: (HOSTILE, HOSTILE)}))[".html"]
    assert data_of(page)["findings"][0]["aggregate_id"] == HOSTILE
    assert "<img" not in page.read_text("utf-8")


def test_the_page_asks_nobody_for_anything(tmp_path: Path) -> None:
    text = written(tmp_path)[".html"].read_text("utf-8")
    assert "default-src 'none'" in text
    # The only address names a kind of element.
    assert set(re.findall(r"https?://[^\"']+", text)) == {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_report_that_is_not_finished_leaves_what_was_there(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"report{suffix}"
    file.write_text("older")
    with closing(ReportWriter([file])) as writer:
        writer.add(finding(title=(1, 2)))
    with pytest.raises(RuntimeError), closing(ReportWriter([file])) as writer:
        raise RuntimeError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(file.name, "older")]


def test_a_report_that_cannot_be_opened_leaves_no_other_behind(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        ReportWriter([tmp_path / "report.csv", tmp_path / "nowhere" / "report.json"])
    assert list(tmp_path.iterdir()) == []


# The folder of reports


def report_files(folder: Path, settings: Settings, kept: int, runs: int = 1) -> list[str]:
    """What is in the folder after so many more runs."""
    for number in range(runs):
        for file in new_report_files(settings.model_copy(update={"reports_dir": folder, "reports_kept": kept}), "chat"):
            # Names have seconds, and a test has not.
            moment = f"{len(list(folder.iterdir())) // 2 + number:06d}"
            file.with_name(re.sub(r"T\d{6}", f"T{moment}", file.name)).write_text("")
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize(("kept", "there"), [(1, 2), (2, 2), (3, 2), (4, 4), (5, 4)])
def test_runs_lose_both_of_their_reports_together_and_the_last_keeps_them(
    tmp_path: Path, settings: Settings, kept: int, there: int
) -> None:
    names = report_files(tmp_path, settings, kept, runs=5)
    assert len(names) == there
    assert len({name.rpartition(".")[0] for name in names}) == there // 2


def test_a_folder_of_reports_that_is_made_is_its_owner_s_alone(tmp_path: Path, settings: Settings) -> None:
    (file, _) = new_report_files(settings.model_copy(update={"reports_dir": tmp_path / "new"}), "chat")
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_files_of_somebody_else_stay_in_the_folder_of_reports(tmp_path: Path, settings: Settings) -> None:
    names = ["verification-2026-audit.html", "verification-20260101T000000-a.html.bak", "verification-plan.parquet"]
    for name in names:
        (tmp_path / name).write_text("mine")
    assert set(names) < set(report_files(tmp_path, settings, kept=1, runs=3))


def test_what_dead_runs_left_goes_and_what_is_being_written_stays(tmp_path: Path, settings: Settings) -> None:
    dead, alive = (tmp_path / f".verification-20260101T000000-chat.html.{pid}.tmp" for pid in (1, 2))
    for file in (dead, alive):
        file.write_text("")
    week_ago = time.time() - 8 * 24 * 3600
    os.utime(dead, (week_ago, week_ago))
    new_report_files(settings.model_copy(update={"reports_dir": tmp_path, "reports_kept": 1}), "chat")
    assert list(tmp_path.iterdir()) == [alive]


def test_the_page_is_shared_out_among_the_read_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FINDINGS_ON_PAGE", 10)
    findings = [{**finding(str(number)), "read_model": name} for name in ("a", "b") for number in range(20)]
    page = data_of(written(tmp_path, *findings)[".html"])
    assert Counter(item["read_model"] for item in page["findings"]) == {"a": 5, "b": 5}
    assert page["total"] == 40


# What to run


@pytest.mark.parametrize(
    ("aggregate_id", "which"),
    [(UUID, f"--id {UUID}"), *((odd, "--all") for odd in ("x; rm -rf ~", "$(reboot)", "", 7, Code(UUID)))],
)
def test_no_text_of_the_database_but_a_uuid_comes_into_a_command(tmp_path: Path, aggregate_id: Any, which: str) -> None:
    summary = Summary("verify", "chat", read_models={CHATS.read_model: Counts()})
    with closing(Reporting([tmp_path / "a.json"])) as reporting:
        reporting(CHATS, [Finding(CHATS.read_model, aggregate_id, Outcome.DIFFERENT)])
        reporting.finish(summary, [CHATS], "flowra", [])
    (told,) = json.loads((tmp_path / "a.json").read_text())["findings"]
    assert told["mend"] == f"readmodel rebuild-readmodel --type chat {which}"


def test_more_findings_than_a_page_or_a_batch_takes_are_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "FINDINGS_ON_PAGE", 500)
    monkeypatch.setattr(writer, "_ROWS", 1_000)

    def peak(findings: int) -> int:
        files = [tmp_path / f"{findings}{suffix}" for suffix in SUFFIXES]
        with closing(ReportWriter(files)) as report:
            tracemalloc.start()
            for number in range(findings):
                report.add(finding(str(number), title=("expected", "actual")))
            report.finish(SUMMARY, [])
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return most

    peak(10)
    small, large = peak(1_200), peak(3_600)
    assert large < small * 1.2
    page = data_of(tmp_path / "3600.html")
    assert (len(page["findings"]), page["total"]) == (500, 3_600)
    assert page["fields"] == [["chats_read_model", "title", 3_600]]
    assert len(json.loads((tmp_path / "3600.json").read_text())["findings"]) == 3_600
    assert len(pandas().read_parquet(tmp_path / "3600.parquet")) == 3_600


def test_wide_findings_are_not_held_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_BYTES", 200_000)
    files = [tmp_path / f"report{suffix}" for suffix in SUFFIXES]
    with closing(ReportWriter(files)) as report:
        report.add(finding("0", title=("a", "b")))
        tracemalloc.start()
        for number in range(300):
            report.add(finding(str(number), title=("x" * 20_000, "y")))
        report.finish(SUMMARY, [])
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # The rows of a CSV file alone have six million characters.
    assert most < 3_000_000
    assert data_of(tmp_path / "report.html")["total"] == 301
