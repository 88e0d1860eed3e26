"""Settings: what an environment may say, and that a connection string's secrets are never shown."""

from typing import Any

import pytest
from pydantic import ValidationError

from readmodel_pipelines.errors import ReadModelError, UsageError
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.settings import Settings, load_settings


def test_every_setting_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {
        "mongodb_uri": "mongodb://h/",
        "api_version": "1",
        "database": "d",
        "events_collection": "e",
        "chats_collection": "chat_read_model",
        "tasks_collection": "task_read_model",
        "repair_queue_collection": "q",
        "failover_seconds": "90",
        "task_source": "task",
        "projections": "some.module,some/file.py",
        "allow_malformed": "version_gap",
        "max_delete_share": "0.5",
        "workers": "7",
        "read_order": "scan",
        "spool_dir": "some/spool",
        "slices": "3",
        "rebuild_valid_days": "2",
        "catch_up_seconds": "9",
        "keep_copy": "false",
        "swap_wait_seconds": "0.5",
        "swap_tries": "12",
        "max_events_per_second": "1000",
        "max_documents_per_second": "100",
        "max_queued_operations": "5",
        "max_replication_lag_seconds": "3",
        "off_peak_window": "23:30-04:00",
        "lease_seconds": "5",
        "repair_lease_seconds": "6",
        "repair_attempts": "3",
        "repair_backoff_seconds": "1.5",
        "repair_backoff_factor": "3",
        "repair_backoff_cap_seconds": "60",
        "repair_batch_size": "7",
        "repair_queue_limit": "10",
        "repair_queue_warning": "5",
        "repair_retention_days": "0.5",
        "grace_seconds": "1",
        "alarm_after_seconds": "60",
        "fresh_minutes": "5",
        "causes_limit": "9",
        "verification_buckets": "14",
        "nightly_cron": "30 1 * * mon-fri",
        "nightly_coverage": "everything",
        "nightly_enqueue_repairs": "true",
        "weekly_cron": "0 4 * * 6",
        "timezone": "Europe/Vienna",
        "owners": "team:chat-and-tasks,jane.doe+oncall@example.co.uk",
        "reports_dir": "some/reports",
        "reports_kept": "9",
        "reports_url": "http://reports.example:9465/",
        "tell_dagster": "true",
        "verified_within_hours": "12",
        "enqueue_limit": "8",
        "enqueue_per_second": "7",
        "dagster_url": "https://user:pw@dagster.example/x",
        "alert_webhook": "https://hooks.example/secret",
        "alert_mail": "smtp://user:pw@mail.example:25?from=a@x.org&to=b@x.org",
        "data_dir": "some/folder",
        "mongod": "some/mongod",
    }
    assert wanted.keys() == Settings.model_fields.keys()
    defaults = load_settings()
    for name, value in wanted.items():
        monkeypatch.setenv(f"READMODEL_{name.upper()}", value)
    settings = load_settings()
    assert [name for name in wanted if getattr(settings, name) == getattr(defaults, name)] == []
    assert settings.mongodb_uri is not None
    assert settings.mongodb_uri.get_secret_value() == "mongodb://h/"


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("READMODEL_MONGODB_URI", "")
    monkeypatch.setenv("READMODEL_DATABASE", "")
    assert (load_settings().mongodb_uri, load_settings().database) == (None, "flowra")


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("unknown_event_type", {"unknown_event_type"}),
        ("version_gap, unknown_event_type", {"unknown_event_type", "version_gap"}),
        (" version_gap ,, ", {"version_gap"}),
        (",", set()),
    ],
)
def test_allowed_kinds_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch, text: str, kinds: set[str]) -> None:
    monkeypatch.setenv("READMODEL_ALLOW_MALFORMED", text)
    assert load_settings().allow_malformed == kinds


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("ALLOW_MALFORMED", "bad_field"), ("ALLOW_MALFORMED", "all"), ("TASK_SOURCE", "Task"), ("API_VERSION", "2")),
        *(("MAX_DELETE_SHARE", share) for share in ("1.1", "-0.1", "nan")),
        *(("LEASE_SECONDS", "0"), ("LEASE_SECONDS", "soon")),
        *(("DATABASE", " "), ("DATABASE", "a$b"), ("EVENTS_COLLECTION", "a$b")),
        *(("OWNERS", "the chat team"), ("OWNERS", "team:chat,")),
        *(("TIMEZONE", zone) for zone in ("Europe", "Europe/Nowhere", "../etc/passwd")),
    ],
)
def test_a_value_that_cannot_be_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"READMODEL_{name}", value)
    monkeypatch.setenv("READMODEL_MONGODB_URI", "mongodb://ann:secret@h/")
    with pytest.raises(UsageError, match=f"READMODEL_{name}: ") as caught:
        load_settings()
    assert "secret" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["a.b", "a b", "a/b"])
def test_a_database_name_that_mongodb_cannot_have_is_refused_in_words(name: str) -> None:
    with (
        pytest.raises((ReadModelError, ValidationError)),
        open_database(Settings(mongodb_uri="mongodb://127.0.0.1:1/", database=name)),
    ):
        raise AssertionError("it was taken")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (None, "embedded server"),
        ("mongodb://h:27017/?replicaSet=rs0", "mongodb://h:27017/?replicaSet=rs0"),
        ("mongodb://ann:secret@h,g:1/db", "mongodb://h,g:1/db"),
        ("mongodb+srv://ann:secret@h/?w=1", "mongodb+srv://h/?w=1"),
        ("mongodb://ann@h/", "mongodb://h/"),
        ("mongodb://ann:s%40cret%2F@h/", "mongodb://h/"),
        ("mongodb://h/?tlsCertificateKeyFilePassword=secret&w=1", "mongodb://h/?tlsCertificateKeyFilePassword=***&w=1"),
        ("mongodb://h/?a=b&PROXYPASSWORD=secret;w=1", "mongodb://h/?a=b&PROXYPASSWORD=***;w=1"),
        (
            "mongodb://h/?tls=true&tlsCertificateKeyFilePassword=se@cr&et&w=1",
            "mongodb://h/?tls=true&tlsCertificateKeyFilePassword=***&w=1",
        ),
        ("mongodb://ann:s%40cret@h/?sslPEMPassword=a@b", "mongodb://h/?sslPEMPassword=***"),
        ("mongodb://h/?authMechanismProperties=AWS_SESSION_TOKEN:secret", "mongodb://h/?authMechanismProperties=***"),
    ],
)
def test_a_connection_string_is_shown_without_its_credentials(uri: str | None, shown: str) -> None:
    assert Settings(mongodb_uri=uri).shown_uri() == shown


@pytest.mark.parametrize(
    "uri",
    [
        *("mongodb://ann:sec@secret@h/", "mongodb://ann:/secret@h/", "mongodb://ann:sec/secret@h:1/db", "ann:secret@h"),
        # Without the @ and what follows it.
        *("mongodb://ann:secret", "mongodb://ann:secret/h", "ann:secret", "mongodb://h,ann:secret?w=1"),
    ],
)
def test_a_password_that_was_not_escaped_is_not_shown_either(uri: str) -> None:
    assert "secret" not in Settings(mongodb_uri=uri).shown_uri()


def test_the_connection_string_is_not_in_the_representation() -> None:
    settings = Settings(mongodb_uri="mongodb://ann:secret@h/")
    assert "secret" not in repr(settings) + str(settings) + settings.model_dump_json()


@pytest.mark.parametrize(
    "names",
    [
        {"chats_collection": "events"},
        {"tasks_collection": "chats_read_model"},
        {"events_collection": "readmodel_leases"},
        {"chats_collection": "system.views"},
    ],
    ids=str,
)
def test_collections_that_would_destroy_one_another_are_refused(names: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="four different collections"):
        Settings(**names)


@pytest.mark.parametrize("cron", ["0 2 * *", "every night", "0 2 * * * *", "@daily", ""])
def test_a_schedule_without_five_fields_of_cron_is_refused(cron: str) -> None:
    with pytest.raises(ValidationError, match="a schedule looks like"):
        Settings(nightly_cron=cron)


@pytest.mark.parametrize("cron", ["*/5 0-6 1,15 jan mon-fri", " 0 2 L * 5#2 "])
def test_cron_is_taken_in_its_forms(cron: str) -> None:
    assert Settings(weekly_cron=cron).weekly_cron == cron.strip()
