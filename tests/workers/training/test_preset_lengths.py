"""The service's table of presets against the trainers' own, and its options against the trainers' settings."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import annotated_types
import pytest
from pydantic import BaseModel

from model_store.latent.autoencoder import pathdiff_autoencoder, small_autoencoder
from model_store.latent.base import LatentBase
from model_store.latent.denoiser import small_denoiser
from service.trainings.options import OPTIONS, SystemName
from service.trainings.presets import PRESETS, planned_length
from service.trainings.work import TrainingStage
from workers.training.autoencoder import AutoencoderTraining, preset_autoencoder
from workers.training.cosimgen_settings import CoSimGenTraining, preset_training
from workers.training.latent_base import BaseTraining, preset_base
from workers.training.pathdiff import PathDiffTraining, preset_pathdiff
from workers.training.siamese import SiameseTraining, preset_siamese
from workers.training.superres_settings import SuperresTraining, preset_superres

IMAGES = 1000
SETTINGS: dict[SystemName, type[BaseModel]] = {
    "cosimgen": CoSimGenTraining,
    "superres": SuperresTraining,
    "autoencoder": AutoencoderTraining,
    "base": BaseTraining,
    "siamese-diffusion": SiameseTraining,
    "pathdiff": PathDiffTraining,
}
OF_THE_SERVICE = {"preset", "fit", "features"}
"""Options whose kind differs: names instead of values."""


def a_base() -> LatentBase:
    """What the presets of mask systems ask of a base."""
    parts = {"autoencoder_config": small_autoencoder(), "denoiser_config": small_denoiser(16)}
    return cast(LatentBase, SimpleNamespace(**parts))


def trainers_settings(system: SystemName, preset: str) -> Any:
    match system:
        case "cosimgen":
            return preset_training(preset, 3)
        case "superres":
            return preset_superres(preset)
        case "autoencoder":
            return preset_autoencoder(preset, 128)
        case "base":
            paper = preset == "paper"
            shape = pathdiff_autoencoder() if paper else small_autoencoder()
            return preset_base(preset, shape, 256, 512 if paper else 384, paper="pathdiff")
        case "siamese-diffusion":
            return preset_siamese(preset, a_base())
        case "pathdiff":
            return preset_pathdiff(preset, a_base(), IMAGES)


@pytest.mark.parametrize(("system", "preset"), [(system, name) for system, all_ in PRESETS.items() for name in all_])
def test_the_table_of_presets_is_that_of_the_trainers(system: SystemName, preset: str) -> None:
    data = ("a@1",) * (2 if system == "pathdiff" else 1)
    found = trainers_settings(system, preset)
    stage = TrainingStage(system=system, data=data, options={"preset": preset})
    assert planned_length(stage, IMAGES) == (found.iterations, found.batch_size)
    changed = stage.model_copy(update={"options": {"preset": preset, "iterations": 7, "batch_size": 3}})
    assert planned_length(changed, IMAGES) == (7, 3)


def test_every_preset_of_the_options_is_in_the_table() -> None:
    for system, options in OPTIONS.items():
        presets = options.model_json_schema()["properties"]["preset"]["enum"]
        assert set(PRESETS[system]) == set(presets), system


def limits(model: type[BaseModel], name: str) -> Iterator[tuple[str, Any]]:
    """The limits of a field, also of one that may be None."""
    for mark in model.model_fields[name].metadata:
        for kind in (annotated_types.Ge, annotated_types.Gt, annotated_types.Le, annotated_types.Lt):
            if isinstance(mark, kind):
                name_of_limit = kind.__name__.lower()
                yield name_of_limit, getattr(mark, name_of_limit)


@pytest.mark.parametrize("system", SETTINGS)
def test_options_have_the_names_and_limits_of_the_trainers_settings(system: SystemName) -> None:
    options, settings = OPTIONS[system], SETTINGS[system]
    # the run, the shape and the data are settings that no option of this name sets
    set_by_presets = {"network", "convention", "hint", "prediction_type", "schedule", "discriminator_width"}
    assert set(settings.model_fields) - set(options.model_fields) <= set_by_presets
    shared = set(settings.model_fields) & set(options.model_fields) - OF_THE_SERVICE
    assert shared >= {"iterations", "batch_size", "learning_rate", "seed"}
    for name in sorted(shared):
        theirs, ours = dict(limits(settings, name)), dict(limits(options, name))
        # an API bounds what is unbounded, and no number below 0 is a seed
        extra = {limit: value for limit, value in ours.items() if limit not in theirs}
        assert theirs.items() <= ours.items(), name
        assert set(extra) <= {"le", "lt"} or name == "seed", name
