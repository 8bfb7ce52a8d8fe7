"""Tests of ``twinset models``: registered models are complete, checked and immutable."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from model_store.card import load_card
from service.cli.model_figures import MAX_ROWS, figures_summary, figures_table
from service.cli.root import run
from service.errors import CardError, ModelConflict, StoreUnavailable, WeightsError
from service.registry.catalogue import Catalogue
from service.registry.register import check_model_folder, register_folder
from service.settings import read_settings
from service.store.base import ObjectInfo
from service.store.folder import FolderStore
from service.store.opening import open_store
from tests.service.api.support import binary_card, mask_card
from tests.service.api.support import register as register_cards
from tests.tiny_model import write_tiny_model


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store", link_secret=b"0" * 16, public_url="http://localhost")


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model's folder that a test may change."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def catalogue(store: FolderStore, tmp_path: Path) -> Catalogue:
    return Catalogue(store, bundled=tmp_path / "no-bundled-models", refresh_s=0.0)


def test_a_model_is_added_listed_and_shown(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TWINSET_DATA_DIR", str(tmp_path / "data"))
    assert run(["models", "add", str(folder)]) == 0
    assert "Added tiny@1.0.0" in capsys.readouterr().out
    assert run(["models", "list", "--json"]) == 0
    assert "tiny@1.0.0" in [f"{c['name']}@{c['version']}" for c in json.loads(capsys.readouterr().out)]
    assert run(["models", "show", "tiny"]) == 0
    text = capsys.readouterr().out
    assert "tiny@1.0.0" in text
    assert "land  ■ water  ■ road" in text
    assert "A photo of land, water and road" in text
    assert run(["models", "show", "tiny@1.0.0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == load_card(folder).model_dump(mode="json")
    assert run(["models", "show", "tinny"]) == 1
    assert "did you mean 'tiny'" in capsys.readouterr().err


def test_texts_of_a_card_do_not_command_the_terminal(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TWINSET_DATA_DIR", str(tmp_path / "data"))
    card, hostile = load_card(folder), "\x1b]0;owned\x07\x1b[2J\u202e"
    texts = ("title", "description", "intended_use", "limits_of_use", "licence")
    changed = json.loads((folder / "card.json").read_text()) | {name: hostile + getattr(card, name) for name in texts}
    (folder / "card.json").write_text(json.dumps(changed | {"example_prompts": [hostile]}))
    assert run(["models", "add", str(folder)]) == 0
    assert run(["models", "list"]) == 0
    assert run(["models", "show", "tiny"]) == 0
    shown = capsys.readouterr().out
    assert r"\x1b]0;owned\x07\x1b[2J\u202e" in shown
    assert not set("\x1b\x07\u202e") & set(shown)


def test_input_combinations_and_guidance_targets_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TWINSET_DATA_DIR", str(tmp_path / "data"))
    register_cards(open_store(read_settings()), mask_card(), binary_card())
    assert run(["models", "show", "tissue"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Takes prompt, or mask, or prompt and mask Classes" in text
    assert "Guidance target text, mask, joint; default text" in text
    assert run(["models", "show", "polyps"]) == 0
    text = capsys.readouterr().out
    assert "A photo of" not in text
    assert "Guidance of" not in text


def test_registering_a_version_again_is_allowed_only_with_equal_content(
    folder: Path, store: FolderStore, tmp_path: Path
) -> None:
    assert register_folder(folder, store, tenant=None)[1] is True
    before = {info.key: info.etag for info in store.list("models/")}
    assert register_folder(folder, store, tenant=None)[1] is False
    write_tiny_model(folder, seed=8)
    with pytest.raises(ModelConflict, match=r"tiny@1.0.0 is already registered, .* higher version"):
        register_folder(folder, store, tenant=None)
    assert {info.key: info.etag for info in store.list("models/")} == before
    write_tiny_model(folder, seed=8, version="1.0.1")
    register_folder(folder, store, tenant=None)
    assert [card.id for card in catalogue(store, tmp_path).cards(tenant=None)] == ["tiny@1.0.1", "tiny@1.0.0"]


def test_files_that_do_not_match_the_card_are_refused(folder: Path, store: FolderStore, tmp_path: Path) -> None:
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(WeightsError, match=r"has sha256 .* but the card says"):
        register_folder(folder, store, tenant=None)
    weights.write_bytes(whole[:-1])
    with pytest.raises(WeightsError, match=f"has {len(whole) - 1} bytes, but the card says {len(whole)}"):
        register_folder(folder, store, tenant=None)
    weights.unlink()
    with pytest.raises(WeightsError, match="does not exist, but the card names it"):
        register_folder(folder, store, tenant=None)
    assert list(store.list("models/")) == []


def test_a_missing_or_invalid_card_is_refused(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "files": {}}))
    with pytest.raises(CardError, match="names no files"):
        check_model_folder(folder)
    (folder / "card.json").write_text(json.dumps({**card, "version": "1"}))
    with pytest.raises(CardError, match="version"):
        check_model_folder(folder)
    (folder / "card.json").unlink()
    with pytest.raises(CardError, match=r"card\.json does not exist"):
        check_model_folder(folder)


class BreakingStore(FolderStore):
    """A folder store whose writes fail from the second on."""

    writes = 0

    def put(self, key: str, data: bytes, **options: Any) -> ObjectInfo:
        self.writes += 1
        if self.writes > 1:
            raise StoreUnavailable("the disk has gone")
        return super().put(key, data, **options)


def test_an_interrupted_registration_leaves_no_model_and_can_be_repeated(folder: Path, tmp_path: Path) -> None:
    breaking = BreakingStore(tmp_path / "store", link_secret=b"0" * 16, public_url="http://localhost")
    with pytest.raises(StoreUnavailable):
        register_folder(folder, breaking, tenant=None)
    store = FolderStore(tmp_path / "store", link_secret=b"0" * 16, public_url="http://localhost")
    # The weights are there, and no registration: no reader has met half a model.
    assert [info.key.rpartition(".")[2] for info in store.list("weights/")][-1] == "safetensors"
    assert list(store.list("models/")) == []
    assert catalogue(store, tmp_path).cards(tenant=None) == ()
    assert register_folder(folder, store, tenant=None)[1] is True


@pytest.mark.parametrize("name", ["cosimgen-dubai", "pathdiff-nuclei", "siamese-nuclei"])
def test_a_bundled_model_fits_a_screen_with_its_figures_as_a_table(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert run(["models", "show", name]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 100
    assert not re.search(r"\bNone\b|see evidence|guidance_", text)
    assert re.search(r"^measure .* by ", text, re.MULTILINE)
    assert re.search(r"^Frechet distance to real +[0-9.]+ +[0-9.]+$", text, re.MULTILINE)


def test_figures_of_any_shape_are_shown_or_left_out() -> None:
    assert figures_table({}) is None
    assert figures_table({"by": 7, "data": None, "seed": 3}) is None
    assert figures_summary({"sampling": {"steps": 5, "guidance_target": None}}) == "steps 5"
    flat = figures_table({"fid": 12.5, "flag": True, "text": "x"})
    assert flat is not None
    assert flat.row_count == 1
    many = figures_table({f"figure_{number}": number for number in range(40)})
    assert many is not None
    assert many.row_count == MAX_ROWS + 1
