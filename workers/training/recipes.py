"""Recipes: from the options of a system to its trainer, and from the trained run to its result.

``twinset train`` and the workers' trainings go this way both, so the same options give the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from model_store.loading import choose_dtype
from service.datasets.reading.levels import Levels, read_window
from service.trainings.options import (
    AutoencoderOptions,
    BaseOptions,
    CoSimGenOptions,
    PathDiffOptions,
    SiameseOptions,
    SuperresOptions,
    TrainingOptions,
)
from workers.data.fit import Fit, chosen_fit
from workers.data.stream import InputOptions
from workers.data.training_set import TrainingSet

if TYPE_CHECKING:
    from accelerate import Accelerator

    from model_store.card import ModelCard
    from model_store.latent.base import LatentBase
    from workers.training.trainer import Trainer

RUN = ("iterations", "batch_size", "learning_rate", "warmup", "decay_from", "ema_decay", "clip_norm", "seed")
LATENT = (*RUN, "weight_decay")
CAPTIONED = (*LATENT, "repeat_below")


@dataclass(frozen=True)
class Order:
    """What is to be trained, where, and on what. ``parts`` are the folders of earlier results, by their roles.

    ``open_data`` opens a dataset; it is told the source, a file of stems or None, and what else
    :meth:`TrainingSet.open` takes.
    """

    options: TrainingOptions
    data: tuple[str, ...]
    out: Path
    parts: Mapping[str, Path] = field(default_factory=dict)
    lists: tuple[Path | None, ...] = (None, None)
    input: InputOptions = field(default_factory=InputOptions)
    name: str | None = None
    version: str = "1.0.0"
    features_weights: Path | None = None
    clip: Path | None = None
    open_data: Callable[..., TrainingSet] = TrainingSet.open

    def read(self, place: int = 0, *, images_only: bool = False) -> TrainingSet:
        """Dataset ``place`` of the order."""
        return self.open_data(self.data[place], self.lists[place], images_only=images_only, window=self.window)

    @property
    def window(self) -> Levels | None:
        text = self.options.window
        return None if text is None else read_window(text)

    def fit(self, size_px: int) -> Fit | None:
        """The fit of the options for a network's size; None if none of them chooses one."""
        options = self.options
        if options.fit is None and options.tile_px is None and options.scale is None and not options.seen:
            return None
        return chosen_fit(options.fit, options.tile_px, options.scale, dict(options.seen), size_px)


@dataclass(frozen=True)
class Recipe:
    """A built training. ``finish`` writes the result after so many iterations: a model's card, or a part's figures."""

    trainer: Trainer
    finish: Callable[[int], ModelCard | dict[str, Any]]


def mixed_precision(options: TrainingOptions, *, cpu: bool) -> str:
    """The mixed precision of a training on the CPU, or on what ``accelerate`` finds.

    ``auto`` is bfloat16 only where the device has it: CPUs without take ten times as long in it as in float32.
    """
    if options.precision != "auto":
        return options.precision
    device = torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")
    return "bf16" if choose_dtype("auto", device) is torch.bfloat16 else "no"


def build(order: Order, accelerator: Accelerator) -> Recipe:
    """The training of an order, resumed from the checkpoint in its folder if there is one.

    Raises ValueError for options that do not go together, for data that cannot be trained on, and for a folder with
    another run.
    """
    return _BUILDERS[type(order.options)](order, accelerator)


def _cosimgen(order: Order, accelerator: Accelerator) -> Recipe:
    from workers.training.cosimgen import CoSimGenTrainer
    from workers.training.cosimgen_settings import preset_training
    from workers.training.export import export_model, open_superres

    options = order.options
    assert isinstance(options, CoSimGenOptions)
    data = order.read().with_aliases(dict(options.aliases))
    names = ("class_rate", "map_rate", "p_uncond", "adversarial_weight", "alignment_weight", "alignment_iterations")
    changes = options.changes(*RUN, *names, "repeat_below", "presence_margin", "noisy_share")
    settings = preset_training(options.preset, len(data.classes), **changes)
    if (fit := order.fit(settings.network.size_px)) is not None:
        settings = settings.model_copy(update={"fit": fit})
    superres = order.parts.get("superres")
    if superres is not None:
        # refuses one that does not fit before the training, not after it
        open_superres(superres, settings.network.size_px)
    trainer = CoSimGenTrainer(data, order.out, settings, accelerator, has_up=options.has_up, input_options=order.input)

    def finish(done: int) -> ModelCard:
        if settings.alignment_iterations and not trainer.aligned:
            trainer.align_text(done)
        return export_model(
            order.out,
            order.out / "model",
            trainer.data,
            name=order.name or model_name("cosimgen", data.plain_name),
            version=order.version,
            superres=superres,
            title=options.title,
            guidance_scale=options.guidance_scale,
            eta=options.eta,
            notes=options.notes,
        )

    return Recipe(trainer, finish)


def _superres(order: Order, accelerator: Accelerator) -> Recipe:
    from workers.training.superres import SuperresTrainer
    from workers.training.superres_settings import preset_superres

    options = order.options
    assert isinstance(options, SuperresOptions)
    names = ("base_px", "times", "patch_px", "noise", "blur_px", "chained", "features", "perceptual_weight")
    settings = preset_superres(options.preset, **options.changes(*RUN, *names))
    if (fit := order.fit(settings.base_px)) is not None:
        settings = settings.model_copy(update={"fit": fit})
    trainer = SuperresTrainer(
        order.read(),
        order.out,
        settings,
        accelerator,
        features_weights=order.features_weights,
        has_up=options.has_up,
        input_options=order.input,
    )
    return Recipe(trainer, lambda done: trainer.finish(done, accelerator.mixed_precision))


def _autoencoder(order: Order, accelerator: Accelerator) -> Recipe:
    from workers.training.autoencoder import AutoencoderTrainer, preset_autoencoder

    options = order.options
    assert isinstance(options, AutoencoderOptions)
    settings = preset_autoencoder(
        options.preset,
        options.size_px,
        paper=options.paper,
        fit=order.fit(options.size_px),
        **options.changes(*LATENT, "kl_weight", "features", "perceptual_weight"),
    )
    trainer = AutoencoderTrainer(
        [order.read(place, images_only=True) for place in range(len(order.data))],
        order.out,
        settings,
        accelerator,
        features_weights=order.features_weights,
        has_up=options.has_up,
        input_options=order.input,
    )
    return Recipe(trainer, lambda done: trainer.finish(done, accelerator.mixed_precision))


def _base(order: Order, accelerator: Accelerator) -> Recipe:
    from model_store.latent.loading import load_autoencoder
    from model_store.latent.stable_diffusion import clip_tokens
    from model_store.latent.text import MiniLMTokens
    from workers.training.latent_base import BaseTrainer, preset_base

    options = order.options
    assert isinstance(options, BaseOptions)
    folder = order.parts["autoencoder"]
    autoencoder = load_autoencoder(folder)
    size_px = options.size_px or autoencoder[2].get("settings", {}).get("size_px")
    if size_px is None:
        raise ValueError(f"{folder} does not say the size of its images; give it by --size")
    tokens = MiniLMTokens(options.tokens) if order.clip is None else clip_tokens(order.clip, options.chunks)
    settings = preset_base(
        options.preset,
        autoencoder[1],
        size_px,
        tokens.ref.dims,
        paper=options.paper,
        fit=order.fit(size_px),
        **options.changes(*CAPTIONED, "p_uncond"),
    )
    trainer = BaseTrainer(
        order.read(images_only=True),
        order.out,
        settings,
        accelerator,
        autoencoder=autoencoder,
        tokens=tokens,
        has_up=options.has_up,
        input_options=order.input,
    )
    return Recipe(trainer, lambda done: trainer.finish(done, accelerator.mixed_precision))


def _siamese(order: Order, accelerator: Accelerator) -> Recipe:
    from workers.training.latent_export import export_siamese
    from workers.training.siamese import PAPER_PX, SiameseTrainer, preset_siamese

    options = order.options
    assert isinstance(options, SiameseOptions)
    data = order.read().with_aliases(dict(options.aliases))
    base = _loaded_base(order, options, PAPER_PX)
    names = ("p_uncond", "consistency", "augmentation", "consistency_weight")
    settings = preset_siamese(
        options.preset,
        base,
        dhi=options.dhi,
        fit=order.fit(base.size_px),
        **options.changes(*CAPTIONED, *names),
    )
    trainer = SiameseTrainer(
        data, base, order.out, settings, accelerator, has_up=options.has_up, input_options=order.input
    )
    return Recipe(
        trainer,
        lambda done: export_siamese(
            order.out,
            order.out / "model",
            base,
            trainer.data,
            name=order.name or model_name("siamese", data.plain_name),
            version=order.version,
            title=options.title,
            guidance_scale=options.guidance_scale,
            notes=options.notes,
        ),
    )


def _pathdiff(order: Order, accelerator: Accelerator) -> Recipe:
    from workers.training.latent_export import export_pathdiff
    from workers.training.pathdiff import PAPER_PX, PathDiffTrainer, preset_pathdiff

    options = order.options
    assert isinstance(options, PathDiffOptions)
    texts, masks = order.read(0, images_only=True), order.read(1).with_aliases(dict(options.aliases))
    base = _loaded_base(order, options, PAPER_PX)
    settings = preset_pathdiff(
        options.preset,
        base,
        len(texts.stems()) + len(masks.stems()),
        fit=order.fit(base.size_px),
        **options.changes(*CAPTIONED, "p_uncond", "p_split", "instances"),
    )
    trainer = PathDiffTrainer(
        texts, masks, base, order.out, settings, accelerator, has_up=options.has_up, input_options=order.input
    )
    return Recipe(
        trainer,
        lambda done: export_pathdiff(
            order.out,
            order.out / "model",
            base,
            trainer.text_data,
            trainer.mask_data,
            name=order.name or model_name("pathdiff", masks.plain_name),
            version=order.version,
            title=options.title,
            guidance_scale=options.guidance_scale,
            guidance_target=options.guidance_target,
            notes=options.notes,
        ),
    )


def _loaded_base(order: Order, options: SiameseOptions | PathDiffOptions, paper_px: int) -> LatentBase:
    from model_store.latent.loading import load_base

    base = load_base(order.parts["base"], chunks=options.chunks)
    return base.at_size(options.size_px or (paper_px if options.preset == "paper" else base.size_px))


def model_name(system: str, dataset: str) -> str:
    """The default name of a model: ``siamese-kvasir-seg`` for ``kvasir_seg``, without characters that no name has."""
    import re

    words = re.findall(r"[a-z0-9]+", dataset.lower())
    return "-".join([system, *words])[:63].rstrip("-")


_BUILDERS: dict[type[TrainingOptions], Callable[[Order, Accelerator], Recipe]] = {
    CoSimGenOptions: _cosimgen,
    SuperresOptions: _superres,
    AutoencoderOptions: _autoencoder,
    BaseOptions: _base,
    SiameseOptions: _siamese,
    PathDiffOptions: _pathdiff,
}
