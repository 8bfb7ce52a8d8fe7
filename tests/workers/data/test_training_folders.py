"""A folder as a training set: sizes, masks, class sets, and what is left out or refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from model_store.masks.resize import majority_resize
from service.datasets.reading.levels import Levels
from tests.workers.fakes import tiny_card
from tests.workers.training.toy import letters, write_toy_dataset
from workers.data.listings import DatasetInvalid
from workers.data.pixels import dihedral, present_classes
from workers.data.training_set import TrainingSet
from workers.evaluation.options import fit_of, window_of
from workers.training.loop import iteration_generator, learning_rate
from workers.training.prompts import CANONICAL_SHARE, PromptBank


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_toy_dataset(tmp_path / "toy", pairs=6)


def test_images_are_area_averaged_and_masks_take_the_majority(toy: Path) -> None:
    images, masks = TrainingSet.open(toy).arrays("train", 8)
    assert images.shape == (6, 8, 8, 3)
    assert masks.shape == (6, 8, 8)
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


def test_an_image_that_is_not_square_is_cropped_to_its_centre(toy: Path) -> None:
    wide = np.zeros((32, 64, 3), dtype=np.uint8)
    wide[:, 16:48] = 200
    Image.fromarray(wide).save(toy / "images" / "pair00.png")
    Image.fromarray(np.ones((32, 64), dtype=np.uint8)).save(toy / "masks" / "pair00.png")
    images, _ = TrainingSet.open(toy).arrays("train", 16)
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
    return r"unknown labels.*images/pair01.png: .*holds 7"


def colour_mask(folder: Path) -> str:
    Image.fromarray(np.full((32, 32, 3), (9, 70, 8), dtype=np.uint8)).save(folder / "masks" / "pair01.png")
    return "pair01.png: it is a colour image, but the other masks hold class indices"


def shrink_mask(folder: Path) -> str:
    Image.fromarray(np.ones((16, 16), dtype=np.uint8)).save(folder / "masks" / "pair01.png")
    return "size differs.*the image is 32 x 32 px, its mask 16 x 16"


def lose_image(folder: Path) -> str:
    (folder / "images" / "pair01.png").unlink()
    return "missing partner.*masks/pair01.png"


def tear_image(folder: Path) -> str:
    (folder / "images" / "pair01.png").write_bytes(b"\x89PNG torn")
    return "unreadable.*images/pair01.png"


@pytest.mark.parametrize("breaking", [break_mask, colour_mask, shrink_mask, lose_image, tear_image])
def test_a_broken_pair_is_left_out_and_named_as_check_names_it(toy: Path, breaking) -> None:
    message = breaking(toy)
    data = TrainingSet.open(toy)
    assert data.stems("train") == ("pair00", "pair02", "pair03", "pair04", "pair05")
    assert any(re.search(message, notice) for notice in data.notices), data.notices
    assert data.prepared.report.skipped


def test_a_folder_without_classes_or_with_a_gap_in_them_is_refused(toy: Path) -> None:
    about = json.loads((toy / "dataset.json").read_text())
    about["classes"][2]["index"] = 5
    (toy / "dataset.json").write_text(json.dumps(about))
    with pytest.raises(DatasetInvalid, match="without gaps"):
        TrainingSet.open(toy)
    (toy / "dataset.json").write_text("{}")
    with pytest.raises(DatasetInvalid, match=r"dataset\.json is not a valid list of classes"):
        TrainingSet.open(toy)
    (toy / "dataset.json").unlink()
    with pytest.raises(DatasetInvalid, match="no list of its classes; give one"):
        TrainingSet.open(toy)
    (toy / "classes.txt").write_text("all\n")
    with pytest.raises(DatasetInvalid):
        TrainingSet.open(toy)


def test_aliases_name_classes_and_unknown_classes_are_refused(toy: Path) -> None:
    data = TrainingSet.open(toy).with_aliases({"day": ("daylight", "sunshine")})
    assert data.classes[2].aliases == ("daylight", "sunshine")
    with pytest.raises(DatasetInvalid, match="dusk: no such class"):
        data.with_aliases({"dusk": ("evening",)})


def test_texts_name_the_class_set_and_half_of_the_draws_are_the_canonical_prompt(toy: Path) -> None:
    (toy / "captions.jsonl").write_text(json.dumps({"stem": "pair00", "text": "a dark field"}) + "\n")
    data = TrainingSet.open(toy)
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


def test_16_bit_grey_is_read_as_the_image_that_it_is(toy: Path) -> None:
    path = toy / "images" / "pair01.png"
    grey = Image.open(path).convert("L")
    grey.convert("RGB").save(path)
    eight, _ = TrainingSet.open(toy).arrays("train", 16)
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(path)
    sixteen, _ = TrainingSet.open(toy).arrays("train", 16)
    assert np.array_equal(eight, sixteen)
    assert eight[1].max() < 255


def test_masks_in_black_and_white_that_stand_for_two_classes_are_read_and_for_three_refused(toy: Path) -> None:
    for path in (toy / "masks").iterdir():
        Image.fromarray(np.where(np.asarray(Image.open(path)) == 2, 255, 0).astype(np.uint8)).save(path)
    message = r"are black and white \(0 and 255\), .*but 3 are listed: nothing, night, day"
    with pytest.raises(DatasetInvalid, match=message):
        TrainingSet.open(toy)
    about = json.loads((toy / "dataset.json").read_text())
    (toy / "dataset.json").write_text(json.dumps(about | {"classes": about["classes"][:2]}))
    _, masks = TrainingSet.open(toy).arrays("train", 16)
    assert set(np.unique(masks)) == {0, 1}


def test_masks_without_a_class_to_learn_are_refused(toy: Path) -> None:
    for path in (toy / "masks").iterdir():
        Image.fromarray(np.zeros((32, 32), dtype=np.uint8)).save(path)
    data = TrainingSet.open(toy)
    counts = data.pairs(16, data.stems("train")).counts(3)
    message = r"none of the 6 masks .* class 1 \(night\), 2 \(day\) at 16 px, only 0; .*255 means ignore"
    with pytest.raises(DatasetInvalid, match=message):
        data.check_learnable(counts, 16)


def test_images_that_exif_data_turn_are_read_upright_and_said(toy: Path) -> None:
    stored = np.zeros((32, 32, 3), dtype=np.uint8)
    stored[:, :16] = 200  # bright on the left; turned clockwise, on top
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    (toy / "images" / "pair00.png").unlink()
    Image.fromarray(stored).save(toy / "images" / "pair00.jpg", exif=exif, quality=95)
    shown = np.ones((32, 32), dtype=np.uint8)
    shown[:16] = 2
    Image.fromarray(shown).save(toy / "masks" / "pair00.png")
    data = TrainingSet.open(toy)
    images, masks = data.arrays("train", 16)
    assert (images[0, :7] > 150).all()
    assert (images[0, 9:] < 50).all()
    assert (masks[0] == np.repeat([2, 1], 8)[:, None]).all()
    [notice] = [each for each in data.notices if "turned" in each]
    assert "1 turned, read" in notice
    assert "upright" in notice
    # the same in a folder of images alone
    alone = TrainingSet.open(toy, images_only=True)
    assert np.array_equal(alone.arrays("train", 16, ["pair00"])[0], images[:1])


def test_a_mask_of_the_stored_pixels_is_turned_with_its_image(toy: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    (toy / "images" / "pair00.png").unlink()
    Image.fromarray(np.zeros((32, 48, 3), dtype=np.uint8)).save(toy / "images" / "pair00.jpg", exif=exif)
    stored = np.ones((32, 48), dtype=np.uint8)
    stored[:, :24] = 2
    Image.fromarray(stored).save(toy / "masks" / "pair00.png")
    _, masks = TrainingSet.open(toy).arrays("train", 16)
    assert (masks[0] == np.repeat([2, 1], 8)[:, None]).all()


def test_a_class_that_no_training_mask_shows_is_not_queryable_and_said(toy: Path) -> None:
    data = TrainingSet.open(toy)
    assert data.trained_on(np.array([False, True, True])) is data
    trained = data.trained_on(np.array([True, True, False]))
    assert [entry.queryable for entry in trained.classes] == [False, True, False]
    assert "no training mask shows day" in trained.notices[-1]
    with pytest.raises(DatasetInvalid, match="shows night, day, so there is nothing to learn"):
        data.trained_on(np.array([True, False, False]))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classes": [{"index": 0, "name": 1}, {"index": 1, "name": "a"}]}, "name is text"),
        (
            {"classes": [{"index": 0, "name": "a"}, {"index": 1, "name": "b", "aliases": "cell"}]},
            "aliases a list of text",
        ),
        ({"has_up": "no"}, "has_up 'no'; it should be true or false"),
    ],
)
def test_members_of_dataset_json_that_are_of_another_kind_are_named(
    toy: Path, changed: dict[str, object], message: str
) -> None:
    about = json.loads((toy / "dataset.json").read_text())
    (toy / "dataset.json").write_text(json.dumps(about | changed))
    with pytest.raises(DatasetInvalid, match=message):
        TrainingSet.open(toy)


def test_a_dataset_json_with_nulls_and_a_byte_order_mark_is_read(toy: Path) -> None:
    about = json.loads((toy / "dataset.json").read_text()) | {"name": None, "licence": None, "has_up": None}
    (toy / "dataset.json").write_text(json.dumps(about), encoding="utf-8-sig")
    data = TrainingSet.open(toy)
    assert (data.name, data.licence, data.has_up) == ("toy", "", True)
    (toy / "dataset.json").write_text("[]")
    with pytest.raises(DatasetInvalid, match="is a JSON list; it should be an object"):
        TrainingSet.open(toy)
    (toy / "dataset.json").write_text(json.dumps(about)[:-1] + ', "classes": []}')
    with pytest.raises(DatasetInvalid, match="'classes' twice in one object"):
        TrainingSet.open(toy)


def test_invalid_lists_of_stems_are_refused_with_the_reason(toy: Path) -> None:
    listing = toy / "train.txt"
    listing.write_text("pair01\r\npair00\r\n", encoding="utf-8-sig")
    assert TrainingSet.open(toy).stems("train") == ("pair01", "pair00")
    listing.write_text("pair00\npair00\n")
    with pytest.raises(DatasetInvalid, match="lists 'pair00' more than once"):
        TrainingSet.open(toy)
    listing.write_text("pair00\n", encoding="utf-16")
    with pytest.raises(DatasetInvalid, match=r"train\.txt .*UTF-8"):
        TrainingSet.open(toy)
    listing.write_text("pair00.png\nno-such\n")
    data = TrainingSet.open(toy)
    assert data.stems("train") == ("pair00",)
    assert any("no-such" in notice and "no such image" in notice for notice in data.notices)


def test_two_images_of_one_stem_and_a_missing_mask_are_left_out(toy: Path) -> None:
    Image.open(toy / "images" / "pair00.png").save(toy / "images" / "pair00.jpg")
    (toy / "masks" / "pair01.png").unlink()
    data = TrainingSet.open(toy)
    assert data.stems("train") == ("pair02", "pair03", "pair04", "pair05")
    with pytest.raises(DatasetInvalid, match="has no image named 'pair00'"):
        data.arrays("train", 16, ["pair00"])


def test_what_is_held_out_is_not_trained_on(toy: Path) -> None:
    (toy / "test.txt").write_text("pair05\npair03\n")
    with pytest.raises(DatasetInvalid, match=r"'pair03' and 1 more of .* stand in train.txt and in test.txt"):
        TrainingSet.open(toy).check_held_out()
    (toy / "train.txt").unlink()
    remaining = ("pair00", "pair01", "pair02", "pair04")
    data = TrainingSet.open(toy)
    assert data.stems("train") == remaining
    assert data.stems("test") == ("pair05", "pair03")
    assert TrainingSet.open(toy, images_only=True).stems() == remaining
    data.check_held_out()
    (toy / "test.txt").write_text("\n".join(f"pair{i:02d}" for i in range(6)))
    for images_only in (False, True):
        with pytest.raises(DatasetInvalid, match="has no train images"):
            TrainingSet.open(toy, images_only=images_only).stems("train")


def test_the_window_of_a_training_is_on_its_card_and_real_images_are_measured_through_it(toy: Path) -> None:
    for number in range(6):
        levels = np.full((32, 32), 4000 + number, dtype=np.uint16)
        Image.fromarray(levels).save(toy / "images" / f"pair{number:02d}.png")
    trained = TrainingSet.open(toy, window=Levels(0, 4095))
    card = tiny_card(training={"fit": trained.scale_about(8, trained.stems())})
    assert card.training["fit"]["window"] == [0, 4095]
    measured = TrainingSet.open(toy, window=window_of(card), fit=fit_of(card))
    assert np.array_equal(measured.arrays("train", 8)[0], trained.arrays("train", 8)[0])
    assert window_of(tiny_card()) is None
