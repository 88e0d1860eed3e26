"""Reports are served to a browser: their files and nothing else of the folder."""

import urllib.error
import urllib.request
from pathlib import Path

import pytest

from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.verification.serving import serving_reports

NAME = "verification-20261129T120000-chat-0123abcd.html"


def got(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


def test_a_report_is_given_by_its_name_and_the_newest_is_listed_first(tmp_path: Path) -> None:
    newer = NAME.replace("20261129", "20261130")
    for name in (NAME, newer):
        (tmp_path / name).write_text(f"<p>{name}</p>")
    with serving_reports(tmp_path, "127.0.0.1", 0) as port:
        assert got(port, NAME) == (200, f"<p>{NAME}</p>")
        code, listed = got(port, "")
    assert code == 200
    assert listed.index(newer) < listed.index(NAME)


@pytest.mark.parametrize("path", ["secret.txt", "../secret.txt", "%2e%2e/secret.txt", "folder/", f"folder/{NAME}"])
def test_nothing_else_is_given(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "reports"
    (folder / "folder").mkdir(parents=True)
    for place in (tmp_path / "secret.txt", folder / "secret.txt", folder / "folder" / NAME):
        place.write_text("secret")
    with serving_reports(folder, "127.0.0.1", 0) as port:
        assert got(port, path)[0] == 404
        assert "secret" not in got(port, "")[1]


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with (
        serving_reports(tmp_path, "127.0.0.1", 0) as port,
        pytest.raises(UsageError, match=str(port)),
        serving_reports(tmp_path, "127.0.0.1", port),
    ):
        pass
