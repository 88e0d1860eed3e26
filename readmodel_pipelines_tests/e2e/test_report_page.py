"""The page of a report as somebody sees it: opened from a file, offline, in a browser."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from readmodel_pipelines.reports.writer import ReportWriter
from readmodel_pipelines_tests.support.pages.browser import browser_page

HOSTILE = "</script><img src=x onerror=alert(1)>\u202e\n\u2028"
OUTCOMES = ["different", "missing", "orphan", "malformed"]
MODELS = ["chats_read_model", "tasks_read_model"]


def findings(number: int) -> Iterator[dict[str, Any]]:
    for place in range(number):
        outcome = OUTCOMES[place % 4]
        fields = {"title": {"expected": f"Title {place}", "actual": "x" * 500 if place == 8 else "wrong"}}
        yield {
            "read_model": MODELS[place % 2],
            "aggregate_id": HOSTILE if place == 5 else f"{place:08d}-0000-4000-8000-000000000000",
            "outcome": outcome,
            "reason": "bad_field" if outcome == "malformed" else None,
            "detail": "version: a whole number was wanted" if outcome == "malformed" else "",
            "fields": fields | ({"due_date": {"expected": {"$absent": True}, "actual": None}} if place % 8 == 0 else {})
            if outcome == "different"
            else {},
            "age_seconds": float(place * 97),
            "mend": f"readmodel rebuild-readmodel --type chat --id {place:08d}-0000-4000-8000-000000000000",
        }


def report(file: Path, number: int, **about: str) -> Path:
    with closing(ReportWriter([file])) as writer:
        for item in findings(number):
            writer.add(item)
        counts = {"checked": number * 2, "same": number, **dict.fromkeys(OUTCOMES, number // 8)}
        writer.finish(
            {
                "verb": "verify",
                "events": 100_000,
                "seconds": 1.53,
                "read_models": dict.fromkeys(MODELS, counts),
                "warnings": ["Everything was verified, not only what changed: the server's history is too short."],
                "database": "flowra",
                "started_at": "2026-11-24T02:00:00.123Z",
                "tier": "documents",
                "coverage": "every aggregate",
                "mend": [{"command": "readmodel rebuild-readmodel --type chat --all", "what": "mends 500"}],
                **about,
            },
            [
                {
                    "at": f"2026-11-{day:02d}T02:00:00Z",
                    "read_model": model,
                    "coverage": "bucket 1/7",
                    "checked": 5_000,
                    "discrepancies": (day * 7 + offset) % 23,
                    "lagging": 0,
                }
                for day in range(1, 25)
                for offset, model in enumerate(MODELS)
            ],
        )
    return file


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report of 1,000 findings."""
    return report(tmp_path_factory.mktemp("report") / "report.html", 1_000).as_uri()


@pytest.fixture(scope="module")
def trouble() -> list[str]:
    """What pages complained of, and what they asked the network for."""
    return []


@pytest.fixture(scope="module")
def tab(trouble: list[str], thousand: str) -> Iterator[Any]:
    """One tab of one browser, for its start costs more than all that is looked at in it."""
    with browser_page() as opened:
        opened.on("console", lambda message: trouble.append(f"{message.type}: {message.text}"))
        opened.on("pageerror", lambda error: trouble.append(str(error)))
        opened.on("dialog", lambda dialog: trouble.append(dialog.message))
        opened.on(
            "request", lambda asked: asked.url.startswith("data:") or asked.url == thousand or trouble.append(asked.url)
        )
        yield opened


@pytest.fixture
def page(tab: Any, thousand: str, trouble: list[str]) -> Iterator[Any]:
    """The page of 1,000 findings; whatever trouble it makes fails the test."""
    trouble.clear()
    tab.goto(thousand)
    yield tab
    assert trouble == []


def rows(page: Any) -> int:
    return int(page.locator("#findings tbody tr").count())


def test_the_page_opens_offline_and_says_what_was_found(page: Any) -> None:
    assert "1,000 discrepancies" in page.locator("#verdict").inner_text()
    about = page.locator("#about").inner_text()
    assert all(part in about for part in ("flowra", "every aggregate", "100,000 events", "2026-11-24 02:00:00 UTC"))
    assert "history is too short" in page.locator("#warnings").inner_text()
    assert page.locator("#outcomes .bar").count() == 4
    assert page.locator("#fields .bar").first.inner_text().split() == ["chats.title", "250"]
    assert page.locator("#drift polyline").count() == 2
    assert "rebuild-readmodel" in page.locator("#commands code").inner_text()


@pytest.mark.parametrize(
    ("about", "verdict", "colour"),
    [
        ({}, "All is well: ", "good"),
        ({"coverage": "bucket 3/7"}, "No discrepancy was found in bucket 3/7", ""),
        ({"tier": "versions"}, "No discrepancy was found: presence and version ", ""),
    ],
)
def test_a_verdict_says_what_it_saw(tab: Any, tmp_path: Path, about: dict[str, str], verdict: str, colour: str) -> None:
    tab.goto(report(tmp_path / "clean.html", 0, **about).as_uri())
    said = tab.locator("#verdict")
    assert said.inner_text().startswith(verdict)
    assert (said.get_attribute("class") or "") == colour


def test_findings_come_some_at_a_time(page: Any) -> None:
    assert rows(page) == 200
    page.locator("#more").click()
    assert rows(page) == 400
    assert "600 left" in page.locator("#more").inner_text()


def test_findings_can_be_searched_and_filtered(page: Any) -> None:
    page.fill("#search", "00000017")
    assert (rows(page), page.locator("#matching").inner_text()) == (1, "1 match")
    page.fill("#search", "")
    page.select_option("#outcome", "orphan")
    page.select_option("#model", "tasks_read_model")
    assert page.locator("#matching").inner_text() == "0 match"
    page.select_option("#model", "chats_read_model")
    assert page.locator("#matching").inner_text() == "250 match"


def test_findings_sort_by_every_column_both_ways(page: Any) -> None:
    headers = page.locator("#findings th")
    for place in range(headers.count()):
        headers.nth(place).locator("button").click()
        assert headers.nth(place).get_attribute("aria-sort") == "ascending"
    ages = headers.nth(4).locator("button")
    ages.click()
    oldest_last = page.locator("#findings tbody tr").first.inner_text()
    ages.click()
    oldest_first = page.locator("#findings tbody tr").first.inner_text()
    assert "0 s" in oldest_last
    assert "1 d" in oldest_first


def test_hostile_data_is_shown_as_text(page: Any) -> None:
    page.fill("#search", "onerror")
    spelled = HOSTILE.replace("\u202e\n\u2028", r"\u202e\u000a\u2028")
    assert spelled in page.locator("#findings tbody").inner_text()
    assert page.locator("#findings img").count() == 0
