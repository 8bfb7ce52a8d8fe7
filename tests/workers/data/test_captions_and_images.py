"""What the latent recipes read: images without masks, their captions, and two datasets that must share no image."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model_store.latent.autoencoder import encode_moments
from tests.model_store.latent.tiny import LetterTokens
from tests.workers.training.scenes import tiny_base, write_scenes
from workers.data.captions import (
    CaptionBank,
    caption_repeats,
    common_texts,
    read_texts,
    repeats_deviation,
)
from workers.data.listings import DatasetInvalid
from workers.data.pixels import as_images, dihedral
from workers.data.training_set import TrainingSet
from workers.data.unpaired import check_unpaired
from workers.evaluation.captions import Caption
from workers.evaluation.captions import read_captions as labels_of_images
from workers.training.latents import LatentBank, noise_latents
from workers.training.prompts import class_captions


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "scenes", 4)


def test_a_stem_may_have_several_texts(scenes: Path) -> None:
    with (scenes / "captions.jsonl").open("a") as file:
        file.write('\n\n{"stem": "scene01", "text": " another text "}\n')
    texts = read_texts(TrainingSet.open(scenes), ("scene01", "scene00"))
    assert texts[0][1] == "another text"
    assert [len(each) for each in texts] == [2, 1]


def test_a_missing_caption_is_reported_by_its_stem_and_never_read_as_the_empty_text(scenes: Path) -> None:
    lines = (scenes / "captions.jsonl").read_text().splitlines()
    (scenes / "captions.jsonl").write_text("\n".join([lines[0], '{"stem": "scene02", "text": "  "}']))
    data = TrainingSet.open(scenes, images_only=True)
    with pytest.raises(
        DatasetInvalid, match=r"has no text for 'scene01' \(and 2 more of 4 images\).* add .*\"stem\": \"scene01\""
    ):
        read_texts(data, data.stems())
    with pytest.raises(DatasetInvalid, match="has no text for 'scene02';"):
        read_texts(data, ("scene00", "scene02"))
    (scenes / "captions.jsonl").unlink()
    with pytest.raises(DatasetInvalid, match="has no text for 'scene00';"):
        read_texts(TrainingSet.open(scenes), ("scene00",))


def test_captions_are_drawn_evenly_and_dropped_ones_are_the_null_text() -> None:
    tokens = LetterTokens()
    bank = CaptionBank([["one", "two"], ["three"]], tokens)
    rows, with_text = [0] * 400 + [1] * 100, torch.tensor([True] * 400 + [False] * 100)
    drawn = bank.draw(rows, with_text, torch.Generator().manual_seed(0))
    assert drawn.shape == (500, 4, 8)
    ones = (drawn[:400] == tokens.encode("one")).flatten(1).all(1).float().mean().item()
    assert ones == pytest.approx(0.5, abs=0.08)
    assert not drawn[400:].any()
    assert tokens.asked.count("two") == 1, "a text is encoded once"


def test_images_need_neither_masks_nor_a_description(scenes: Path) -> None:
    shutil.rmtree(scenes / "masks")
    (scenes / "dataset.json").unlink()
    (scenes / "train.txt").unlink()
    data = TrainingSet.open(scenes, images_only=True)
    assert (data.name, data.has_up, data.held_out_split, len(data.stems())) == ("scenes", True, "train", 4)
    assert data.notices == []
    listing = scenes / "some.txt"
    listing.write_text("scene03\nscene01\n")
    assert TrainingSet.open(scenes, listing, images_only=True).stems() == ("scene03", "scene01")
    listing.write_text("scene03\nscene03\n")
    with pytest.raises(DatasetInvalid, match="lists 'scene03' more than once"):
        TrainingSet.open(scenes, listing, images_only=True)
    listing.write_text("scene09\n")
    with pytest.raises(DatasetInvalid, match=r"has no image named 'scene09', which .*some.txt lists; did you mean"):
        TrainingSet.open(scenes, listing, images_only=True)
    with pytest.raises(DatasetInvalid, match="there is no test split; its splits are: train"):
        data.stems("test")
    (scenes / "images" / "scene00.png").write_bytes(b"torn")
    torn = TrainingSet.open(scenes, images_only=True)
    assert torn.stems() == ("scene01", "scene02", "scene03")
    assert any("1 unreadable, left out" in notice and "images/scene00.png" in notice for notice in torn.notices)
    shutil.rmtree(scenes / "images")
    with pytest.raises(DatasetInvalid, match="holds no images"):
        TrainingSet.open(scenes, images_only=True)


def test_images_are_cut_and_averaged_as_those_with_masks_are(scenes: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8)).save(
        scenes / "images" / "scene00.png"
    )
    Image.fromarray(np.zeros((32, 48), dtype=np.uint8)).save(scenes / "masks" / "scene00.png")
    alone = TrainingSet.open(scenes, images_only=True)
    assert np.array_equal(alone.arrays("train", 16)[0], TrainingSet.open(scenes).arrays("train", 16)[0])


def test_the_same_image_in_both_datasets_is_a_pair_by_whatever_name(scenes: Path, tmp_path: Path) -> None:
    texts, masks = TrainingSet.open(scenes, images_only=True), TrainingSet.open(scenes)
    check_unpaired((texts, ("scene00", "scene01")), (masks, ("scene02", "scene03")))
    with pytest.raises(DatasetInvalid, match=r"'scene01' of .* is the same image as 'scene01' of .*--text-list"):
        check_unpaired((texts, ("scene00", "scene01")), (masks, ("scene02", "scene01")))
    folder = write_scenes(tmp_path / "other", 3, seed=1)
    # the same name for another image is no pair, another name for the same image is
    other = TrainingSet.open(folder)
    check_unpaired((texts, texts.stems()), (other, other.stems()))
    shutil.copy(scenes / "images" / "scene01.png", folder / "images" / "scene02.png")
    other = TrainingSet.open(folder)
    with pytest.raises(DatasetInvalid, match=r"'scene02' of .*other is the same image as 'scene01' of .*scenes"):
        check_unpaired((texts, texts.stems()), (other, other.stems()))


def test_every_turn_of_an_image_has_latents_of_its_own(scenes: Path) -> None:
    base, data = tiny_base(), TrainingSet.open(scenes, images_only=True)
    images, _ = data.arrays("train", 32)
    bank = LatentBank(base.autoencoder, images, 8, batch_size=3)
    assert bank.mean.shape == bank.std.shape == (8, 4, 2, 8, 8)
    with torch.no_grad():
        for turn, row in ((0, 0), (3, 2), (7, 3)):
            mean, std = encode_moments(base.autoencoder, as_images(dihedral(images[row], turn)[None]))
            torch.testing.assert_close(bank.mean[turn, row], mean[0], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(bank.std[turn, row], std[0], rtol=1e-5, atol=1e-5)
    drawn = bank.draw([2, 2, 0], [3, 3, 1], torch.Generator().manual_seed(4))
    noise = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(4))
    wanted = (
        torch.stack([bank.mean[3, 2], bank.mean[3, 2], bank.mean[1, 0]])
        + torch.stack([bank.std[3, 2], bank.std[3, 2], bank.std[1, 0]]) * noise
    )
    torch.testing.assert_close(drawn, wanted)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_noised_latents_and_their_targets_are_the_papers(prediction_type: str) -> None:
    abar_all = torch.linspace(0.99, 0.01, 50)
    z0 = torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    found = noise_latents(z0, abar_all, prediction_type, torch.Generator().manual_seed(2))
    assert sorted((found.t // 10).tolist()) == [0, 1, 2, 3, 4]
    alpha, sigma = (x.sqrt().view(-1, 1, 1, 1) for x in (abar_all[found.t], 1 - abar_all[found.t]))
    torch.testing.assert_close(found.z, alpha * z0 + sigma * found.noise)
    torch.testing.assert_close(
        found.target, found.noise if prediction_type == "epsilon" else alpha * found.noise - sigma * z0
    )


def test_images_with_rare_captions_are_drawn_more_often() -> None:
    texts = [("grey",)] * 16 + [("red", "grey")] * 4
    repeats = caption_repeats(texts, 0.45)
    assert repeats is not None
    np.testing.assert_allclose(repeats, [1.0] * 16 + [(0.45 / 0.2) ** 0.5] * 4)
    assert caption_repeats(texts, 0.0) is None
    assert repeats_deviation(0.0) == []
    assert repeats_deviation(0.45) == [
        "Images whose caption is rarer than 45% are drawn sqrt(0.45 / its share) times as often."
    ]


def test_the_commonest_captions_come_first_and_those_as_common_by_name() -> None:
    texts = (("many", "a cell"), ("few",), ("many",), ("dots",), ("few",))
    assert common_texts(texts) == ("few", "many", "a cell", "dots")
    assert common_texts(texts, max_texts=3) == ("few", "many", "a cell")


def test_odd_lines_of_captions_are_read_alike_for_every_use(scenes: Path) -> None:
    text = (
        '\ufeff{"stem": "scene00", "text": ""}\n\r\n{"stem": "scene00", "text": " two\u2028lines ", "classes": '
        '["square"]}\r\n'
    )
    (scenes / "captions.jsonl").write_text(text, encoding="utf-8")
    data = TrainingSet.open(scenes)
    assert read_texts(data, ["scene00"]) == (("two\u2028lines",),)
    assert labels_of_images(data) == {"scene00": Caption("two\u2028lines")}
    ((stem, found, named),) = class_captions(data, ["scene00"])
    assert named is not None
    assert (stem, found, named.tolist()) == ("scene00", "two\u2028lines", [False, True])


@pytest.mark.parametrize(
    "line",
    [
        '{"stem": ["a"], "text": "x"}',
        '{"stem": "a", "text": null}',
        '{"text": "x"}',
        "null",
        "no json",
        '{"stem": 1, "text": "x"}',
    ],
)
def test_a_line_that_is_no_caption_is_named(scenes: Path, line: str) -> None:
    path = scenes / "captions.jsonl"
    path.write_text(f'{{"stem": "scene00", "text": "x"}}\n{line}\n')
    for images_only in (True, False):
        with pytest.raises(DatasetInvalid, match=r"captions\.jsonl, line 2 is not"):
            TrainingSet.open(scenes, images_only=images_only)
    path.write_text('{"stem": "scene00", "text": "x", "classes": "square"}')
    with pytest.raises(DatasetInvalid, match="has classes 'square'; it should be a list"):
        list(class_captions(TrainingSet.open(scenes), ["scene00"]))
