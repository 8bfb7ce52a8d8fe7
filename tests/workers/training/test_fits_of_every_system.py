"""Each system trains with each fit, with worker processes, and without memory for the latents of all images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model_store.cosimgen.superres import ESPCNConfig
from tests.model_store.latent.tiny import AUTOENCODER, DENOISER, LetterTokens
from tests.workers.training.scenes import accelerator, tiny_base, write_scenes
from workers.data.fit import Fit
from workers.data.stream import InputOptions
from workers.data.training_set import TrainingSet
from workers.training.autoencoder import AutoencoderTrainer, preset_autoencoder
from workers.training.latent_base import BaseTrainer, preset_base
from workers.training.pathdiff import PathDiffTrainer, preset_pathdiff
from workers.training.siamese import SiameseTrainer, preset_siamese
from workers.training.superres import SuperresTrainer
from workers.training.superres_settings import preset_superres
from workers.training.trainer import Trainer

FITS = [Fit(kind="stretch"), Fit(kind="tiles", tile_px=24, seen={"square": 0.5})]
SMALL_CACHE = 20_000


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    made = tmp_path_factory.mktemp("scenes")
    return write_scenes(made / "one", 6), write_scenes(made / "two", 6, seed=1)


def losses(run: Trainer) -> list[float]:
    try:
        return [value for iteration in range(2) for value in run.step(iteration).values()]
    finally:
        run.close()


def siamese(folders: tuple[Path, Path], out: Path, fit: Fit, options: InputOptions) -> Trainer:
    settings = preset_siamese("small", tiny_base(), batch_size=2, fit=fit)
    data = TrainingSet.open(folders[0])
    return SiameseTrainer(data, tiny_base(), out, settings, accelerator(), input_options=options)


def pathdiff(folders: tuple[Path, Path], out: Path, fit: Fit, options: InputOptions) -> Trainer:
    settings = preset_pathdiff("small", tiny_base(), 12, batch_size=4, fit=fit.model_copy(update={"seen": {}}))
    texts, masks = TrainingSet.open(folders[0], images_only=True), TrainingSet.open(folders[1])
    return PathDiffTrainer(texts, masks, tiny_base(), out, settings, accelerator(), input_options=options)


def base(folders: tuple[Path, Path], out: Path, fit: Fit, options: InputOptions) -> Trainer:
    settings = preset_base(
        "small", AUTOENCODER, 32, 8, batch_size=2, network=DENOISER, fit=fit.model_copy(update={"seen": {}})
    )
    return BaseTrainer(
        TrainingSet.open(folders[0], images_only=True),
        out,
        settings,
        accelerator(),
        autoencoder=(tiny_base().autoencoder, AUTOENCODER, {"files": {}, "data": [], "licence": "", "deviations": []}),
        tokens=LetterTokens(),
        input_options=options,
    )


def autoencoder(folders: tuple[Path, Path], out: Path, fit: Fit, options: InputOptions) -> Trainer:
    settings = preset_autoencoder(
        "small",
        32,
        batch_size=3,
        network=AUTOENCODER,
        perceptual_weight=0.0,
        fit=fit.model_copy(update={"seen": {}}),
    )
    data = [TrainingSet.open(folder, images_only=True) for folder in folders]
    return AutoencoderTrainer(data, out, settings, accelerator(), input_options=options)


def superres(folders: tuple[Path, Path], out: Path, fit: Fit, options: InputOptions) -> Trainer:
    settings = preset_superres(
        "small",
        base_px=8,
        times=1,
        batch_size=2,
        patch_px=8,
        perceptual_weight=0.0,
        fit=fit,
        network=ESPCNConfig(layers=((3, 16),), residual_blocks=1, activation="relu", skip="bilinear"),
    )
    data = TrainingSet.open(folders[0])
    return SuperresTrainer(data, out, settings, accelerator(), input_options=options)


@pytest.mark.parametrize("fit", FITS, ids=lambda fit: fit.kind)
@pytest.mark.parametrize("system", [siamese, pathdiff, base, autoencoder, superres])
def test_every_system_trains_with_every_fit_and_workers_change_no_loss(system, fit: Fit, folders, tmp_path) -> None:
    torch.manual_seed(0)
    alone = losses(system(folders, tmp_path / "a", fit, InputOptions(workers=0, cache_bytes=SMALL_CACHE)))
    torch.manual_seed(0)
    helped = losses(system(folders, tmp_path / "b", fit, InputOptions(workers=1, cache_bytes=1 << 30)))
    if fit.kind == "tiles" or system in (autoencoder, superres):
        assert alone == helped
    else:
        # latents from a bank, and of one batch at a time: the same but for rounding
        assert alone == pytest.approx(helped, rel=1e-3)
