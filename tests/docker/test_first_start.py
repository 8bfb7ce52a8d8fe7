"""First start and settings of the composition, without an engine."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from service.settings import read_settings
from tests.readmes import ROOT


@pytest.fixture(scope="module")
def first_start() -> ModuleType:
    spec = importlib.util.spec_from_file_location("first_start", ROOT / "docker" / "first_start.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_secrets_are_random_and_those_that_are_there_stay(first_start: ModuleType, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        first_start.write_secrets(folder)
    written = {path.name: path.read_text() for path in one.iterdir()}
    assert len(written) == 10
    assert not any((other / name).read_text() == text for name, text in written.items())
    (one / "twinset_link_secret").unlink()
    first_start.write_secrets(one)
    changed = {path.name for path in one.iterdir() if path.read_text() != written[path.name]}
    assert changed == {"twinset_link_secret"}


def test_what_is_written_fits_together(
    first_start: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "valkey_password").write_text("a-word-of-ours\n")
    first_start.write_secrets(tmp_path)
    assert (tmp_path / "valkey.conf").read_text() == "requirepass a-word-of-ours\n"
    monkeypatch.setenv("TWINSET_SECRETS_DIR", str(tmp_path))
    settings = read_settings()
    assert settings.broker_url == "redis://:a-word-of-ours@valkey:6379/0"
    assert settings.webhook_secret is not None
    assert settings.webhook_secret.get_secret_value() == (tmp_path / "twinset_webhook_secret").read_text().strip()
    credentials = json.loads((tmp_path / "s3.json").read_text())["identities"][0]["credentials"][0]
    for name in ("accessKey", "secretKey"):
        assert credentials[name] in (tmp_path / "aws_credentials").read_text()


def test_the_example_of_settings_names_every_variable_with_its_default() -> None:
    compose = (ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8")
    used = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", compose))
    example = (ROOT / "docker" / ".env.example").read_text(encoding="utf-8")
    assert dict(re.findall(r"^#([A-Z][A-Z0-9_]*)=(.*)$", example, re.MULTILINE)) == used | {
        "COMPOSE_PROFILES": "observability"
    }
