"""The models that travel with the package: whole, small enough, measured, and they make what is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model_store import bundled_folder
from model_store.card import load_card
from model_store.diffusion.ddim import DDIM
from model_store.diffusion.sampling import sample
from model_store.interface import (
    ConditionRequest,
    MaskInput,
    System,
    stack_conditions,
)
from model_store.loading import check_files, load_system
from model_store.masks.decode import Twin

DUBAI = max(path.parent for path in bundled_folder().glob("cosimgen-dubai/*/card.json"))


def folders() -> list[Path]:
    return sorted(path.parent for path in bundled_folder().glob("*/*/card.json"))


@pytest.mark.parametrize("folder", folders(), ids=lambda path: path.parent.name)
def test_a_bundled_model_is_whole_in_its_place_and_no_larger_than_20_megabytes(folder: Path) -> None:
    card = load_card(folder)
    check_files(folder, card)
    assert (card.name, card.version) == (folder.parent.name, folder.name)
    assert sum(file.bytes for file in card.files.values()) <= 20_000_000
    assert card.training_data
    assert card.intended_use
    assert card.limits_of_use
    assert card.deviations


def test_the_figures_on_the_card_of_cosimgen_dubai_are_of_that_model_at_its_defaults() -> None:
    card = load_card(DUBAI)
    measured = card.measured
    assert measured["model"] == card.id
    assert measured["weights_sha256"] == card.files["model.safetensors"].sha256
    assert measured["count"] == 200
    assert measured["size_px"] == card.default_size_px
    assert {k: v for k, v in measured["sampling"].items() if v is not None} == card.defaults.model_dump(
        exclude_none=True
    )
    for way in ("classes", "prompts"):
        assert {"ppv", "converse", "confident_share", "agreement"} <= set(measured["by"][way])


@pytest.fixture(scope="module")
def dubai() -> System:
    torch.set_num_threads(1)
    return load_system(DUBAI, device="cpu")


def make(system: System, request: ConditionRequest, seeds: range) -> list[Twin]:
    """Twins in few steps, at the generated size."""
    guidance_inputs = system.guidance_inputs(request)
    made = sample(
        system.forward,
        DDIM(system.card.sampler),
        stack_conditions([guidance_inputs.cond] * len(seeds)),
        stack_conditions([guidance_inputs.uncond] * len(seeds)),
        seeds,
        system.sample_shape,
        steps=10,
        guidance_scale=system.card.defaults.guidance_scale,
    )
    return system.decode(made, system.card.generation_size_px)


def shares(system: System, request: ConditionRequest, word: str, seeds: range) -> np.ndarray:
    """The share of each mask's pixels that are of the class ``word`` names."""
    entry = system.card.find_class(word)
    assert entry is not None
    return np.array([(twin.mask == entry.index).mean() for twin in make(system, request, seeds)])


@pytest.mark.parametrize(
    "request_",
    [
        ConditionRequest(classes=("Land (unpaved area)", "Water")),
        ConditionRequest(prompt="A photo of unpaved land and water"),
    ],
    ids=["classes", "prompt"],
)
def test_water_is_made_when_requested_by_class_or_by_words_and_not_otherwise(
    dubai: System, request_: ConditionRequest
) -> None:
    dry = ConditionRequest(classes=("Land (unpaved area)", "Road"))
    assert shares(dubai, request_, "water", range(4)).mean() > 0.05
    assert shares(dubai, dry, "water", range(4)).mean() < 0.02


def test_every_size_of_the_card_is_made_and_no_other(dubai: System) -> None:
    x0 = torch.zeros(1, *dubai.sample_shape)
    for size in dubai.card.sizes_px:
        (twin,) = dubai.decode(x0, size)
        assert twin.image.shape == (size, size, 3)
        assert twin.mask.shape == (size, size)
    with pytest.raises(ValueError, match="makes sizes"):
        dubai.decode(x0, 96)


NUCLEI = [path for path in folders() if path.parent.name.endswith("-nuclei")]


@pytest.mark.parametrize("folder", NUCLEI, ids=lambda path: path.parent.name)
def test_the_figures_on_a_nuclei_model_s_card_are_of_that_model_at_its_defaults(folder: Path) -> None:
    card = load_card(folder)
    assert (card.measured["model"], card.measured["weights_sha256"]) == (
        card.id,
        card.files["model.safetensors"].sha256,
    )
    assert {k: v for k, v in card.measured["sampling"].items() if v is not None} == card.defaults.model_dump(
        exclude_none=True
    )
    assert {"mask", "mask+caption"} <= card.measured["by"].keys()
    assert card.measured["text_control"]["images"] == 120


@pytest.mark.parametrize("folder", NUCLEI, ids=lambda path: path.parent.name)
def test_nuclei_are_where_the_mask_has_them_and_look_as_the_text_says(folder: Path) -> None:
    """In fluorescence nuclei shine on black; stained, they are dark on a bright background."""
    torch.set_num_threads(1)
    system = load_system(folder, device="cpu")
    y, x = np.mgrid[:128, :128]
    inside = (x % 43 - 21) ** 2 + (y % 43 - 21) ** 2 < 12**2
    mask = MaskInput.of(inside.astype(np.uint8))
    contrast, background = {}, {}
    for prompt in system.card.example_prompts:
        look = prompt.split()[1]
        if look in contrast:
            continue
        images = np.stack(
            [twin.image for twin in make(system, ConditionRequest(prompt=prompt, mask=mask), range(2))]
        ).mean(axis=-1)
        background[look] = images[:, ~inside].mean()
        contrast[look] = images[:, inside].mean() - background[look]
    assert contrast.keys() == {"fluorescence", "H&E", "brightfield"}
    assert contrast["fluorescence"] > 5
    assert background["fluorescence"] < 40
    assert max(contrast["H&E"], contrast["brightfield"]) < -30
    assert min(background["H&E"], background["brightfield"]) > 120
