"""Reading training folders: sizes, masks, class sets, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.toy import letters, write_toy_dataset
from workers.training.cosimgen_command import parse_aliases
from workers.training.data import DatasetInvalid, SegmentationFolder, dihedral, majority_resize, present_classes
from workers.training.loop import iteration_generator, learning_rate
from workers.training.prompts import CANONICAL_SHARE, PromptBank


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_toy_dataset(tmp_path / "toy", pairs=6)


def test_images_are_area_averaged_and_masks_take_the_majority(toy: Path) -> None:
    images, masks = SegmentationFolder.open(toy).arrays("train", 8)
    assert images.shape == (6, 8, 8, 3) and masks.shape == (6, 8, 8)
    original = np.asarray(Image.open(toy / "images" / "pair00.png")).reshape(8, 4, 8, 4, 3).mean(axis=(1, 3))
    assert np.abs(images[0] - original).max() < 1.0  # Pillow rounds after each of its two passes
    assert masks[2].tolist() == [[1] * 4 + [2] * 4] * 8


def test_the_majority_rule_never_invents_a_class_between_two_others() -> None:
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[:, 3:] = 6  # half of 0 and 6 would be 3
    small = majority_resize(mask, 2)
    assert small.tolist() == [[0, 6], [0, 6]]
    assert majority_resize(mask, 16).shape == (16, 16)
    assert set(np.unique(majority_resize(mask, 16))) == {0, 6}


def test_a_picture_that_is_no_square_is_cropped_to_its_centre(toy: Path) -> None:
    wide = np.zeros((32, 64, 3), dtype=np.uint8)
    wide[:, 16:48] = 200
    Image.fromarray(wide).save(toy / "images" / "pair00.png")
    Image.fromarray(np.ones((32, 64), dtype=np.uint8)).save(toy / "masks" / "pair00.png")
    images, _ = SegmentationFolder.open(toy).arrays("train", 16)
    assert (images[0] == 200).all()


def test_a_class_is_present_from_half_a_percent_of_the_pixels_on() -> None:
    mask = np.zeros((1, 100, 100), dtype=np.uint8)
    mask[0, 0, :50] = 1
    mask[0, 1, :49] = 2
    assert present_classes(mask, 3).tolist() == [[True, True, False]]


def test_the_eight_turns_are_all_different_and_the_first_changes_nothing() -> None:
    square = np.arange(9).reshape(3, 3)
    assert np.array_equal(dihedral(square, 0), square)
    assert len({dihedral(square, turn).tobytes() for turn in range(8)}) == 8


def break_mask(folder: Path) -> str:
    Image.fromarray(np.full((32, 32), 7, dtype=np.uint8)).save(folder / "masks" / "pair01.png")
    return r"class indices \[7\] that dataset.json does not list"


def colour_mask(folder: Path) -> str:
    Image.fromarray(np.zeros((32, 32, 3), dtype=np.uint8)).save(folder / "masks" / "pair01.png")
    return "is RGB; a mask is a single-channel 8-bit PNG"


def shrink_mask(folder: Path) -> str:
    Image.fromarray(np.ones((16, 16), dtype=np.uint8)).save(folder / "masks" / "pair01.png")
    return r"is \(16, 16\) px and its image \(32, 32\) px"


def lose_image(folder: Path) -> str:
    (folder / "images" / "pair01.png").unlink()
    return "has no image named 'pair01'"


def tear_image(folder: Path) -> str:
    (folder / "images" / "pair01.png").write_bytes(b"\x89PNG torn")
    return "'pair01' in .* cannot be read"


@pytest.mark.parametrize("breaking", [break_mask, colour_mask, shrink_mask, lose_image, tear_image])
def test_a_broken_pair_is_refused_by_name_with_what_is_wrong(toy: Path, breaking) -> None:
    message = breaking(toy)
    with pytest.raises(DatasetInvalid, match=message):
        SegmentationFolder.open(toy).arrays("train", 8)


def test_a_folder_without_classes_or_with_a_gap_in_them_is_refused(toy: Path) -> None:
    about = json.loads((toy / "dataset.json").read_text())
    about["classes"][2]["index"] = 5
    (toy / "dataset.json").write_text(json.dumps(about))
    with pytest.raises(DatasetInvalid, match="without a gap"):
        SegmentationFolder.open(toy)
    (toy / "dataset.json").write_text("{}")
    with pytest.raises(DatasetInvalid, match="needs classes"):
        SegmentationFolder.open(toy)
    (toy / "dataset.json").unlink()
    with pytest.raises(DatasetInvalid, match="does not exist"):
        SegmentationFolder.open(toy)


def test_aliases_name_classes_and_unknown_classes_are_refused(toy: Path) -> None:
    data = SegmentationFolder.open(toy).with_aliases(parse_aliases(("day=daylight, sunshine",)))
    assert data.classes[2].aliases == ("daylight", "sunshine")
    with pytest.raises(DatasetInvalid, match="dusk: no such class"):
        data.with_aliases({"dusk": ("evening",)})
    with pytest.raises(ValueError, match="should look like"):
        parse_aliases(("day",))


def test_texts_name_the_class_set_and_half_of_the_draws_are_the_canonical_prompt(toy: Path) -> None:
    data = SegmentationFolder.open(toy)
    (toy / "captions.jsonl").write_text(json.dumps({"stem": "pair00", "text": "a dark field"}) + "\n")
    present = present_classes(data.arrays("train", 8)[1], 3)
    bank = PromptBank(data, present, data.stems("train"), letters)
    both = bank.texts[np.array([0, 1, 1], dtype=np.uint8).tobytes()]
    assert both[0] == "A photo of night and day"
    assert all("night" in text and "day" in text for text in both)
    assert "a dark field" in bank.texts[np.array([0, 1, 0], dtype=np.uint8).tobytes()]
    drawn = bank.draw(np.repeat([[False, True, True]], 2000, axis=0), torch.Generator().manual_seed(0))
    canonical = (drawn == letters([both[0]])).all(dim=1).float().mean().item()
    assert canonical == pytest.approx(CANONICAL_SHARE, abs=0.04)


def test_the_learning_rate_warms_up_holds_and_falls_to_zero() -> None:
    rates = [learning_rate(i, base=1.0, warmup=10, total=100, decay_from=0.5) for i in (0, 9, 10, 50, 75, 100)]
    assert rates == pytest.approx([0.1, 1.0, 1.0, 1.0, 0.5, 0.0])


def test_every_iteration_and_process_draws_its_own_numbers_and_the_same_ones_again() -> None:
    def first(*key: int) -> float:
        return torch.rand(1, generator=iteration_generator(*key)).item()

    assert first(0, 5, 0) == first(0, 5, 0)
    assert len({first(0, 5, 0), first(0, 6, 0), first(1, 5, 0), first(0, 5, 1)}) == 4
