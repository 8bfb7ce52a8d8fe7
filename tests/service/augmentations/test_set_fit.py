"""The fit of a set: objects as large as real ones by default, and what differs is said with both figures."""

from __future__ import annotations

from typing import Any

import pytest

from model_store.card import ModelCard
from service.augmentations.request import AugmentationRequest
from service.augmentations.scale_report import scale_figures, scale_notes
from service.augmentations.set_fit import SetFit, Sides, decide_fit
from service.kit.validation import Faults
from service.settings import Settings
from tests.service.augmentations.scenes import MASKS

SETTINGS = Settings(max_canvas_px=1000 * 1000, max_mask_px=2000)


def trained(**fit: Any) -> ModelCard:
    """A card of sizes 16 and 32 px, whose network draws 16 px."""
    return MASKS.model_copy(update={"training": {"fit": fit} if fit else {}})


TILES_32 = trained(kind="tiles", tile_px=32, scale={"px_per_image_px": [0.5, 0.5]})
TILES_64 = trained(kind="tiles", tile_px=64, scale={"px_per_image_px": [0.25, 0.25]})
STRETCHED = trained(kind="stretch", scale={"px_per_image_px": [0.1, 0.2]})
CROPPED = trained(kind="crop", scale={"px_per_image_px": [0.25, 0.25]})


def fit_of(card: ModelCard, *sizes: Sides, **body: Any) -> SetFit:
    request = AugmentationRequest.model_validate({"dataset": "d", "model": "m", "count": 1, **body})
    faults = Faults()
    found = decide_fit(request, card, sizes, SETTINGS, faults)
    faults.raise_if_any()
    return found


@pytest.mark.parametrize(
    ("card", "sizes", "members"),
    [
        # tiles at the items' own scale: canvases as large as the items
        (TILES_32, [(100, 60), (48, 32)], {"fit": "canvas"}),
        # an item smaller than a window, or another scale: tiles of the side that the model was trained on
        (TILES_32, [(100, 60), (48, 31)], {"fit": "stretch"}),
        (TILES_64, [(300, 200)], {"fit": "stretch"}),
        (STRETCHED, [(160, 80)], {"fit": "stretch"}),
        (CROPPED, [(100, 60), (64, 64)], {"fit": "stretch"}),
        (trained(), [(32, 48)], {"size": 32}),  # the model's own square
    ],
)
def test_twins_come_at_the_scale_of_the_real_items(
    card: ModelCard, sizes: list[Sides], members: dict[str, Any]
) -> None:
    fit = fit_of(card, *sizes)
    assert fit.scale == (1.0, 1.0)
    assert all(fit.scale_of(*each) == [1.0, 1.0] for each in sizes)
    sent = fit.job_members(mask=True)
    assert members.items() <= sent.items()
    assert ("size" in sent) == ("size" in members)
    assert not any("real items' scale" in note for note in scale_notes(fit))


def test_a_canvas_has_windows_of_the_training_tiles() -> None:
    fit = fit_of(TILES_32, (100, 60), (48, 32))
    assert fit.canvas is not None
    assert (fit.canvas.window_px, fit.canvas.overlap_px) == (32, 16)
    assert fit.drawn_scale == fit.trained_scale == (0.5, 0.5)
    assert fit.job_members(mask=False)["size"] == "100x60"
    assert scale_notes(fit) == []


def test_tiles_of_another_scale_are_cut_and_given_back_at_their_own() -> None:
    fit = fit_of(TILES_64, (300, 200), (90, 50))
    assert (fit.fit, fit.tile_px, fit.size) == ("crop", 64, None)
    assert fit.drawn_scale == (0.25, 0.32)
    assert fit.job_members(mask=False) == {"fit": "stretch", "size": 64}
    (note,) = scale_notes(fit)
    assert note.startswith("Twins have up to 2.0 times the sides of the model's largest square")


def test_a_size_of_the_model_changes_the_scale_and_is_warned_of_with_both_figures() -> None:
    fit = fit_of(CROPPED, (64, 64), (128, 96), size=32)
    assert fit.job_members(mask=True) == {"size": 32}
    assert fit.scale == (0.3333, 0.5)
    assert fit.scale_of(128, 96) == [0.3333, 0.3333]
    first, *_ = scale_notes(fit)
    assert first == (
        "Twins come at 0.33 to 0.50 times the real items' scale: an object of 40 px has 13 to 20 px in them, so a mix "
        "of both teaches wrong sizes. Leave size 32 out, and twins are as large as real items."
    )


def test_a_scale_that_the_model_has_not_learnt_is_warned_of() -> None:
    canvas = fit_of(STRETCHED, (160, 80), fit="canvas")
    assert canvas.drawn_scale == (0.5, 0.5)
    assert any(
        "draws 0.50 px for each of a real item, and was trained with 0.10 to 0.20" in note
        and "Give fit stretch or crop" in note
        for note in scale_notes(canvas)
    )
    figures = scale_figures(canvas)
    assert (figures.fit, figures.window_px, figures.trained_px_per_image_px) == ("canvas", 32, (0.1, 0.2))


def test_where_both_are_known_scales_are_compared_in_metres() -> None:
    card = trained(kind="crop", scale={"px_per_image_px": [0.25, 0.25], "metres_per_px": [1.2, 1.2]})
    request = AugmentationRequest.model_validate({"dataset": "d", "model": "m", "count": 1})
    near, far = (
        decide_fit(request, card, [(16, 16)], SETTINGS, Faults(), metres_per_px=metres) for metres in (1.0, 0.3)
    )
    assert near.drawn_metres == (1.0, 1.0)
    assert scale_notes(near) == []
    (note,) = scale_notes(far)
    assert note.startswith("A pixel of the network stands for 0.3 m, and stood for 1.2 m in training")
    slide = trained(kind="crop", scale={"px_per_image_px": [1, 1], "metres_per_px": [1e-6, 1e-6]})
    (note,) = scale_notes(decide_fit(request, slide, [(16, 16)], SETTINGS, Faults(), metres_per_px=2.5e-7))
    assert note.startswith(
        "A pixel of the network stands for 0.25 micrometres, and stood for 1 micrometres in training"
    )


@pytest.mark.parametrize(
    ("body", "sizes", "message"),
    [
        ({"fit": "canvas"}, [(31, 64)], "an item is 31 x 64 px: less than a window of 32 px; give a size"),
        ({"fit": "stretch"}, [(1500, 1000)], "1500 x 1000 px; a twin has 1000000 at most"),
        ({"fit": "stretch"}, [(2100, 100)], "2100 x 100 px; a mask's side is 2000 at most"),
        ({"size": "64x48"}, [(64, 64)], "it is no square, and without fit twins are"),
        ({"size": 24}, [(64, 64)], "makes 16, 32 px; take one of these"),
        ({"canvas": {"overlap_px": 4}}, [(64, 64)], "canvas is about windows"),
        ({"fit": "canvas", "canvas": {"window_px": 20}}, [(64, 64)], "canvas.window_px is 20"),
    ],
)
def test_sizes_that_cannot_be_made_are_refused(body: dict[str, Any], sizes: list[Sides], message: str) -> None:
    with pytest.raises(Exception, match=message):
        fit_of(trained(), *sizes, **body)
