"""The frozen sentence transformer against the library that its authors run it with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model_store import text
from model_store.text import ALL_MINILM, SentenceTransformer, TextEncoderMissing, load_text_encoder, text_encoder_folder

TEXTS = ["A photo of buildings, roads and water", "", "water " * 400, "Größe: 5 µm — 核"]


def test_embeddings_equal_those_of_sentence_transformers() -> None:
    import sentence_transformers

    reference = sentence_transformers.SentenceTransformer(str(text_encoder_folder()), device="cpu")
    expected = torch.from_numpy(reference.encode(TEXTS, normalize_embeddings=True))
    torch.testing.assert_close(load_text_encoder().encode(TEXTS), expected, rtol=1e-4, atol=1e-5)


def test_a_text_has_the_same_bits_alone_in_company_and_again() -> None:
    encoder = load_text_encoder()
    alone = SentenceTransformer(text_encoder_folder()).encode([TEXTS[0]])
    assert torch.equal(encoder.encode(TEXTS)[:1], alone)
    assert torch.equal(encoder.encode(TEXTS)[:1], alone)
    assert alone.shape == (1, ALL_MINILM.dims)
    assert alone.norm().item() == pytest.approx(1.0, abs=1e-5)


def test_a_folder_without_weights_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TWINSET_TEXT_ENCODER_DIR", str(tmp_path))
    with pytest.raises(TextEncoderMissing, match=r"holds no model.safetensors"):
        text_encoder_folder()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_an_encoder_with_changed_files_is_refused_with_the_file_and_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    whole = text_encoder_folder()
    for each in whole.iterdir():
        if each.is_file():
            (tmp_path / each.name).symlink_to(each)
    (tmp_path / name).unlink()
    data = bytearray((whole / name).read_bytes())
    data[-1] ^= 1
    (tmp_path / name).write_bytes(data)
    monkeypatch.setenv("TWINSET_TEXT_ENCODER_DIR", str(tmp_path))
    monkeypatch.setattr(text, "_loaded", {})
    with pytest.raises(TextEncoderMissing, match=rf"{name} is not all-MiniLM-L6-v2's: .* Install"):
        load_text_encoder()
