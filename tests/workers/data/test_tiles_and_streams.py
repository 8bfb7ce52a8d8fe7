"""Tiles that show rare classes as often as asked, and batches that are the same whatever decodes them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from workers.data.fit import Fit
from workers.data.listings import DatasetInvalid
from workers.data.pairs import FittedPairs, JoinedPairs, whole_pairs
from workers.data.pixels import present_classes
from workers.data.stream import InputOptions, PairStream
from workers.data.tiles import PairDraw, TilePlan
from workers.data.training_set import TrainingSet
from workers.training.input import as_draws, training_rows

TILE_PX = 32


@pytest.fixture(scope="module")
def rare(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    """20 images of 300 x 200 px, half of each of one class; one of them has a spot of a rare one."""
    folder, rng = tmp_path_factory.mktemp("rare"), np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(20):
        mask = np.zeros((200, 300), dtype=np.uint8)
        mask[:, 150:] = 1
        if number == 7:
            mask[180:190, 280:292] = 2
        Image.fromarray(mask).save(folder / "masks" / f"{number:02d}.png")
        image = rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{number:02d}.png")
    classes = [{"index": i, "name": name} for i, name in enumerate(("background", "field", "pond"))]
    about = {"classes": classes, "micrometres_per_px": 0.25}
    (folder / "dataset.json").write_text(json.dumps(about))
    return TrainingSet.open(folder)


def tiles(data: TrainingSet, seen: dict[str, float]) -> tuple[FittedPairs, TilePlan]:
    fitted = data.with_fit(Fit(kind="tiles", tile_px=TILE_PX, seen=seen))
    stems = fitted.stems("train")
    rows = training_rows(fitted, stems, 3)
    assert isinstance(rows, TilePlan)
    return fitted.pairs(16, stems), rows


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_a_rare_class_is_seen_as_often_as_asked(rare: TrainingSet, share: float) -> None:
    pairs, plan = tiles(rare, {"pond": share})
    masks = np.stack([pairs.pair(plan[position])[1] for position in range(2000)])
    shown = present_classes(masks, 3)[:, 2].mean()
    # at random it would be in one tile of 2,000; three standard deviations of 2,000 draws
    by_chance = 0.002
    assert abs(shown - share) <= 3 * (share * (1 - share) / 2000) ** 0.5 + by_chance


def test_without_more_half_of_the_tiles_are_cut_around_classes_evenly(rare: TrainingSet) -> None:
    _, plan = tiles(rare, {})
    around = np.array([plan[position].around for position in range(2000)])
    assert [(around == label).mean() for label in (0, 1, 2)] == pytest.approx([0, 0.25, 0.25], abs=0.03)


def test_a_tile_around_a_class_has_a_pixel_of_it_also_at_the_border_of_the_image(rare: TrainingSet) -> None:
    pairs, plan = tiles(rare, {"pond": 1.0})
    for position in range(50):
        assert (pairs.pair(plan[position])[1] == 2).any()
    assert plan[0] != plan[1]
    assert plan[41] == plan[41]


def test_images_larger_than_the_cache_give_the_same_tiles_from_the_disk(rare: TrainingSet, tmp_path: Path) -> None:
    pairs, plan = tiles(rare, {"pond": 0.5})
    mapped = FittedPairs(
        rare.files,
        pairs.rows,
        Fit(kind="tiles", tile_px=TILE_PX),
        16,
        cache_bytes=100_000,
        scratch=tmp_path / "decoded",
    )
    for position in range(30):
        for one, other in zip(pairs.pair(plan[position]), mapped.pair(plan[position]), strict=True):
            assert np.array_equal(one, other)
    assert list((tmp_path / "decoded").glob("*.npy"))


def test_the_cache_stays_within_its_bytes(rare: TrainingSet) -> None:
    stems = rare.stems("train")
    pairs = rare.pairs(16, stems, cache_bytes=5 * 4 * 16 * 16)
    whole_pairs(pairs, range(len(stems)))
    assert len(pairs._cache) == 5
    assert pairs._held == 5 * 4 * 16 * 16
    assert not pairs.fits_in_cache


@pytest.mark.parametrize("kind", ["crop", "stretch", "tiles"])
def test_the_same_seed_gives_the_same_batches_whatever_the_number_of_workers(rare: TrainingSet, kind: str) -> None:
    data = rare.with_fit(Fit(kind=kind, tile_px=TILE_PX if kind == "tiles" else None))
    stems = data.stems("train")
    rows = training_rows(data, stems, 5)

    def digest(workers: int, first: int = 0) -> list[str]:
        stream = PairStream(
            data.pairs(16, stems),
            lambda iteration: as_draws([rows[iteration * 4 + place] for place in range(4)]),
            InputOptions(workers=workers, cache_bytes=1 << 20),
        )
        found = []
        for iteration in range(first, 6):
            images, masks = stream.batch(iteration)
            found.append(hashlib.sha256(images.tobytes() + masks.tobytes()).hexdigest())
        stream.close()
        return found

    alone = digest(0)
    assert len(set(alone)) == 6
    state = torch.get_rng_state()
    assert digest(1) == digest(3) == alone
    assert torch.equal(torch.get_rng_state(), state), "nothing else is drawn otherwise"
    assert digest(3, first=4) == alone[4:], "a run that resumes draws what comes next"


def test_several_datasets_are_one_after_the_other(rare: TrainingSet) -> None:
    stems = rare.stems("train")
    both = JoinedPairs([rare.pairs(16, stems[:3]), rare.pairs(16, stems[3:5])])
    assert len(both) == 5
    whole = rare.pairs(16, stems)
    for row in range(5):
        assert np.array_equal(both.pair(PairDraw(row))[0], whole.pair(PairDraw(row))[0])


def test_tiles_and_classes_that_cannot_be_are_refused_with_limit_and_remedy(rare: TrainingSet) -> None:
    large = rare.with_fit(Fit(kind="tiles", tile_px=256))
    with pytest.raises(DatasetInvalid, match=r"256 px are larger than '00', which is 300 x 200 px; give a "):
        large.pairs(16, large.stems("train"))
    with pytest.raises(DatasetInvalid, match="--seen lake: no such class; there are background, field, pond"):
        tiles(rare, {"lake": 0.1})


def test_the_fit_the_native_sizes_and_the_scale_are_told_to_the_card(rare: TrainingSet) -> None:
    about = rare.with_fit(Fit(kind="tiles", tile_px=TILE_PX)).scale_about(16, rare.stems("train"))
    assert about["kind"] == "tiles"
    assert about["tile_px"] == TILE_PX
    assert about["native_sizes_px"] == {"300x200": 20}
    assert about["scale"]["px_per_image_px"] == [0.5, 0.5]
    assert about["scale"]["metres_per_px"] == pytest.approx([0.5e-6, 0.5e-6])
    assert rare.scale_about(16, rare.stems("train"))["scale"]["px_per_image_px"] == [0.08, 0.08]
