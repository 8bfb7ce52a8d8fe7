"""The image of a plan shows the plan's figures, for few classes and many."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from service.augmentations.plan_chart import MAX_EXAMPLES, draw_plan, examples, first_entries
from service.augmentations.plan_report import report
from service.augmentations.plan_values import ClassShares
from tests.service.augmentations.scenes import DRAWS, MASKS
from tests.service.augmentations.test_plan import ALL, plan_of


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as opened:
        assert opened.format == "PNG"
        assert opened.mode == "RGB"
        return np.asarray(opened)


def area(image: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((image == np.array(colour)).all(axis=-1).sum())


def test_bars_are_as_long_as_the_shares_and_examples_as_the_masks() -> None:
    plan = plan_of(count=50, balance={"water": 0.12}, masks={"transforms": ALL})
    shown = examples(plan, first_entries(plan))
    assert len(shown) == MAX_EXAMPLES
    assert all("flip" in one.how or one.how for one in shown)
    png = draw_plan(report(plan), shown, MASKS.classes, title="Tiles")
    assert png == draw_plan(report(plan), examples(plan, first_entries(plan)), MASKS.classes, title="Tiles")
    bare = pixels(draw_plan(report(plan), [], MASKS.classes))
    shares = {one.name: one for one in report(plan).classes}
    roof, water = (
        int((bare[:, 218:] == np.array(shares[name].colour)).all(axis=-1).any(axis=0).sum())
        for name in ("roof", "water")
    )
    assert (water + 2) / (roof + 2) == pytest.approx(shares["water"].planned / shares["roof"].planned, rel=0.1)
    water = area(bare, shares["water"].colour)
    tiles = pixels(png)
    made = sum(int((mask == 3).sum()) for one in shown for mask in (one.real, one.made)) * (128 // 32) ** 2
    assert abs(area(tiles, shares["water"].colour) - water - made) <= 0.02 * made


def test_any_plan_can_be_drawn() -> None:
    drawn = plan_of(DRAWS, count=50, balance="inverse", balance_by="images")
    assert examples(drawn, first_entries(drawn)) == []
    few = plan_of(count=5, masks={"real": 1})
    assert {one.how for one in examples(few, first_entries(few))} == {"unchanged"}
    many = report(drawn).model_copy(
        update={
            "classes": tuple(
                ClassShares(
                    index=number,
                    name=f"class {number} of a very long name indeed that does not fit",
                    colour=(number, 255 - number, 60),
                    real=0.0,
                    target=None if number % 2 else number / 32640,
                    feasible=0.0,
                    planned=0.0,
                    met=number % 3 > 0,
                )
                for number in range(254)
            ),
            "notes": ("A sentence of " + "many words " * 60, "x" * 4000),
        }
    )
    assert max(pixels(draw_plan(many, examples(few, first_entries(few)), MASKS.classes, title="T" * 900)).shape) < 3000
    assert pixels(draw_plan(report(drawn).model_copy(update={"classes": ()}), [], DRAWS.classes)).size
