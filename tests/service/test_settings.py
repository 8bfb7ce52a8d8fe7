"""Settings: their sources, their limits, how they are shown; and the tree of errors."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from service import errors
from service.cli.settings_table import describe
from service.kit.setting_values import MASK
from service.settings import ENV_PREFIX, Settings, get_settings, read_settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def test_defaults_run_on_one_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = read_settings()
    assert settings.data_dir == tmp_path / "twinset-data"
    assert settings.store_url == f"file://{tmp_path}/twinset-data/store"
    assert settings.model_cache_dir == tmp_path / "twinset-data" / "model-cache"
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.broker_url == "redis://127.0.0.1:6379/0"
    assert settings.max_body_bytes == 16 * 1024 * 1024


def test_folders_follow_the_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINSET_DATA_DIR", "/srv/my twins")
    settings = read_settings()
    assert settings.store_url == "file:///srv/my%20twins/store"
    assert settings.model_cache_dir == Path("/srv/my twins/model-cache")


def test_the_environment_and_then_arguments_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINSET_PORT", "9000")
    monkeypatch.setenv("TWINSET_CHUNK_SIZE", "3")
    monkeypatch.setenv("TWINSET_S3_REGION", "")
    monkeypatch.setenv("TWINSET_LOG_LEVEL", "DEBUG")
    settings = read_settings(chunk_size=5)
    assert (settings.port, settings.chunk_size, settings.s3_region, settings.log_level) == (
        9000,
        5,
        None,
        "debug",
    )


def test_files_of_the_secrets_folder_are_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "twinset_link_secret").write_text("from-a-file-0123456789\n")
    (tmp_path / "TWINSET_BROKER_URL").write_text("redis://:word@redis:6379/0\n")
    (tmp_path / "another").write_text("of another program")
    monkeypatch.setenv("TWINSET_SECRETS_DIR", str(tmp_path))
    settings = read_settings()
    assert settings.link_secret is not None
    assert settings.link_secret.get_secret_value() == "from-a-file-0123456789"
    assert settings.broker_url == "redis://:word@redis:6379/0"
    monkeypatch.setenv("TWINSET_BROKER_URL", "redis://elsewhere:6379/0")
    assert read_settings().broker_url == "redis://elsewhere:6379/0"


def test_a_wrong_secret_in_a_file_is_named_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "twinset_link_secret").write_text("short")
    monkeypatch.setenv("TWINSET_SECRETS_DIR", str(tmp_path))
    with pytest.raises(errors.SettingsError, match=r"TWINSET_LINK_SECRET: .*openssl rand") as raised:
        read_settings()
    assert "short" not in raised.value.detail


def test_a_secrets_folder_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINSET_SECRETS_DIR", str(tmp_path / "none"))
    with pytest.raises(errors.SettingsError, match=rf"TWINSET_SECRETS_DIR={tmp_path}/none: there is no such folder"):
        read_settings()


def test_settings_are_read_once_and_do_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = get_settings()
    monkeypatch.setenv("TWINSET_PORT", "9000")
    assert get_settings() is settings
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("PORT", "99999", r"TWINSET_PORT=99999: .*less than or equal to 65535"),
        ("PORT", "eighty", r"TWINSET_PORT=eighty: .*integer"),
        (
            "STORE_URL",
            "/data/store",
            r"TWINSET_STORE_URL=/data/store: .*write file:///absolute/folder or s3://bucket/prefix",
        ),
        ("STORE_URL", "file://relative/store", r"TWINSET_STORE_URL=file://relative/store: "),
        ("BROKER_URL", "http://x", r"TWINSET_BROKER_URL=http://x: it must begin with redis://"),
        (
            "BROKER_URL",
            "redis://h:99999/0",
            r"TWINSET_BROKER_URL=redis://h:99999/0: the port must be a number, 1 to 65535",
        ),
        ("BROKER_URL", "redis://h:six", r"TWINSET_BROKER_URL=redis://h:six: the port must be a number, 1 to 65535"),
        (
            "BROKER_URL",
            "redis://h:6379/jobs",
            r"TWINSET_BROKER_URL=redis://h:6379/jobs: the database must be a number",
        ),
        ("BROKER_URL", "unix://", r"TWINSET_BROKER_URL=unix://: .*write unix:///path"),
        ("BATCH_SHAPE", "1", r"TWINSET_BATCH_SHAPE=1: write 2 to 4096 rows"),
        ("DEVICE", "tpu", r"TWINSET_DEVICE=tpu: write auto, cpu, cuda, or cuda:N"),
        ("DTYPE", "int8", r"TWINSET_DTYPE=int8: .*'bfloat16'"),
        ("LEASE_S", "0", r"TWINSET_LEASE_S=0: .*greater than or equal to 1"),
        ("MAX_COUNT", "0", r"TWINSET_MAX_COUNT=0: "),
        (
            "S3_ENDPOINT_URL",
            "minio:9000",
            r"TWINSET_S3_ENDPOINT_URL=minio:9000: write https://host or http://host:port",
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_limit(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(f"TWINSET_{variable}", value)
    with pytest.raises(errors.SettingsError, match=message):
        read_settings()


@pytest.mark.parametrize(
    "url", ["redis://box", "redis://:pw@[::1]:6379/2", "rediss://user:pw@box:6380/", "unix:///run/redis.sock"]
)
def test_brokers_are_reached_by_tcp_by_tls_and_by_a_socket(url: str) -> None:
    assert read_settings(broker_url=url).broker_url == url


def test_a_wrong_data_folder_does_not_hide_behind_what_follows_from_it() -> None:
    with pytest.raises(errors.SettingsError, match=r"TWINSET_DATA_DIR=3: .*path") as caught:
        read_settings(data_dir=3)
    assert "STORE_URL" not in caught.value.detail


def test_all_faults_are_reported_at_once_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINSET_PORT", "-1")
    monkeypatch.setenv("TWINSET_LINK_SECRET", "hunter2")
    monkeypatch.setenv("TWINSET_API_KEY", "hunter 2")
    with pytest.raises(errors.SettingsError) as caught:
        read_settings()
    assert "TWINSET_PORT=-1" in caught.value.detail
    assert "TWINSET_LINK_SECRET: " in caught.value.detail
    assert "TWINSET_API_KEY: " in caught.value.detail
    assert "hunter2" not in caught.value.detail
    assert "hunter 2" not in caught.value.detail


def test_every_setting_is_described_with_its_variable_and_default() -> None:
    rows = {row.name: row for row in describe(read_settings(port=9000))}
    assert list(rows) == list(Settings.model_fields)
    assert (rows["port"].env, rows["port"].value, rows["port"].default) == ("TWINSET_PORT", "9000", "8000")
    for row in rows.values():
        assert len(row.description) > 20
        assert row.description.endswith(".")
        if row.name.endswith("_s"):
            assert "seconds" in row.description
        if row.name != "port":
            assert row.value == row.default


def test_numbers_are_described_with_the_range_they_may_have() -> None:
    for name, field in Settings.model_fields.items():
        if field.annotation not in (int, float):
            continue
        limits = {type(limit).__name__: limit for limit in field.metadata}
        low, high = limits["Ge"].ge, limits["Le"].le
        described = re.search(r"([\d.]+)-(\d+)", field.description or "")
        assert described, name
        assert float(described[2]) == high, name
        # A 0 that means "choose" is described apart from the range.
        assert float(described[1]) == low or (low == 0 and "; 0 " in (field.description or "")), name
        assert low <= field.default <= high


def test_secrets_are_masked() -> None:
    settings = read_settings(
        link_secret=SecretStr("a very secret secret"),
        api_key=SecretStr("tws_another_secret_secret"),
        broker_url="redis://user:pass:word@host:6379/1",
        s3_endpoint_url="https://key:hidden@minio:9000",
    )
    rows = {row.name: row for row in describe(settings)}
    assert rows["link_secret"].value == MASK
    assert rows["link_secret"].default == ""
    assert rows["broker_url"].value == f"redis://user:{MASK}@host:6379/1"
    assert rows["s3_endpoint_url"].value == f"https://key:{MASK}@minio:9000"
    assert rows["api_key"].value == MASK
    assert rows["api_key"].default == ""
    assert "secret secret" not in repr(settings)
    assert "secret_secret" not in repr(settings)


def test_the_error_tree_is_the_one_its_module_draws() -> None:
    drawn = dict(re.findall(r"(\w+) +(\d{3})  [a-z-]+", errors.__doc__ or ""))
    found = {}
    pending = [errors.TwinsetError]
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        if kind.__module__ == errors.__name__:
            found[kind.__name__] = str(kind.status)
            assert re.search(rf"{kind.__name__} +{kind.status}  {kind.slug}\b", errors.__doc__ or "")
    assert drawn == found


def test_an_error_becomes_a_problem_document() -> None:
    problem = errors.UnknownClass(
        "no class 'watr'; did you mean 'water'?", nearest="water", status="not this"
    ).problem()
    assert problem == {
        "type": "/problems/unknown-class",
        "title": "The model knows no such class",
        "status": 422,
        "detail": "no class 'watr'; did you mean 'water'?",
        "nearest": "water",
    }
