"""Export of a run on a base to a model folder: all four networks as half floats in one safetensors, and the card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from model_store.card import CardLimits, ClassEntry, Defaults, GuidanceTarget, ModelCard, PaletteRef, write_card
from model_store.latent.base import LatentBase
from model_store.latent.system import PARTS, WEIGHTS_FILE
from workers.data.captions import common_texts, read_texts
from workers.data.training_set import TrainingSet
from workers.training.card_parts import (
    INTENDED_USE,
    LIMITS_OF_USE,
    ExportImpossible,
    joined_licences,
    keep_figures,
    last_log_line,
    versions,
    weights_file,
)
from workers.training.checkpoints import load_checkpoint
from workers.training.controlled import class_palette
from workers.training.instances import instance_maps, seen_instances
from workers.training.latents import latent_data
from workers.training.network_trainer import RunSettings, result_weights
from workers.training.pathdiff import GUIDANCE_SCALE, PathDiffTraining
from workers.training.siamese import GUIDANCE, SiameseTraining

Settings = TypeVar("Settings", bound=RunSettings)
NO_DIAGNOSIS = "No image is fit for diagnosis."
TARGETS: tuple[GuidanceTarget, ...] = ("text", "mask", "joint")


def export_siamese(
    run: Path,
    out: Path,
    base: LatentBase,
    data: TrainingSet,
    *,
    name: str,
    version: str,
    title: str | None = None,
    guidance_scale: float | None = None,
    notes: Sequence[str] = (),
) -> ModelCard:
    """Writes ``out/model.safetensors``, then ``out/card.json``, from a run's checkpoint and its base.

    ``notes`` add what the settings do not say; ``guidance_scale`` is the card's default. Raises
    :class:`ExportImpossible` if the run has no checkpoint, or is of another system or base.
    """
    iteration, tensors, about, settings = _finished(run, base, SiameseTraining)
    card = _card(
        run,
        base,
        data,
        settings,
        training={"iterations": iteration, "notes": list(notes), "turns": about["turns"]},
        name=name,
        version=version,
        system="siamese-diffusion",
        title=title or f"Siamese-Diffusion on {data.name}",
        description=f"Makes images for masks, with an optional prompt, in the look of {data.name}.",
        input_sets=(("mask",), ("prompt", "mask")),
        defaults=Defaults(
            steps=50, guidance_scale=GUIDANCE[settings.preset] if guidance_scale is None else guidance_scale
        ),
        training_data=(
            *base.about["data"],
            latent_data(data.name, data.licence, len(data.stems("train")), "masks and captions"),
        ),
        deviations=tuple(dict.fromkeys(settings.deviations(base, len(data.classes)))),
        example_prompts=common_texts(read_texts(data, data.stems("train"))),
        licence=joined_licences([base.about["licence"], data.licence]),
    )
    return _write(out, base, tensors, card)


def export_pathdiff(
    run: Path,
    out: Path,
    base: LatentBase,
    text_data: TrainingSet,
    mask_data: TrainingSet,
    *,
    name: str,
    version: str,
    title: str | None = None,
    guidance_scale: float | None = None,
    guidance_target: GuidanceTarget = "text",
    notes: Sequence[str] = (),
) -> ModelCard:
    """The same for PathDiff, whose text and masks come from two datasets.

    ``guidance_target``, the card's default, is one of :data:`TARGETS`.
    """
    iteration, tensors, about, settings = _finished(run, base, PathDiffTraining)
    instances = seen_instances(settings.instances, mask_data)
    both = " and ".join(dict.fromkeys([text_data.name, mask_data.name]))
    card = _card(
        run,
        base,
        mask_data,
        settings,
        training={
            "iterations": iteration,
            "notes": list(notes),
            "turns": about["turns"],
            "instances": instances,
            "instance_maps": instance_maps(mask_data) if instances == "maps" else 0,
        },
        name=name,
        version=version,
        system="pathdiff",
        title=title or f"PathDiff on {both}",
        description=f"Makes images for a prompt, for a mask, or for both, in the look of {both}.",
        input_sets=(("prompt",), ("mask",), ("prompt", "mask")),
        guidance_targets=TARGETS,
        defaults=Defaults(
            steps=100,
            guidance_scale=GUIDANCE_SCALE if guidance_scale is None else guidance_scale,
            guidance_target=guidance_target,
        ),
        training_data=(
            *base.about["data"],
            latent_data(text_data.name, text_data.licence, len(text_data.stems()), "captions"),
            latent_data(mask_data.name, mask_data.licence, len(mask_data.stems()), "masks"),
        ),
        deviations=tuple(dict.fromkeys(settings.deviations(base, instances))),
        example_prompts=common_texts(read_texts(text_data, text_data.stems())),
        licence=joined_licences([base.about["licence"], text_data.licence, mask_data.licence]),
    )
    return _write(out, base, tensors, card)


def _finished(
    run: Path, base: LatentBase, kind: type[Settings]
) -> tuple[int, dict[str, Tensor], dict[str, Any], Settings]:
    """(iteration, trained weights, about, settings) of a run's checkpoint."""
    found = load_checkpoint(run)
    if found is None:
        raise ExportImpossible(f"{run} holds no checkpoint to export; train it first")
    iteration, tensors, about = found
    try:
        settings = kind.model_validate(about["settings"])
    except ValidationError:
        raise ExportImpossible(
            f"{run} holds a run of another kind of network, not of {kind.__name__}; give its own command that --out"
        ) from None
    if about["identity"]["base"] != base.fingerprint:
        raise ExportImpossible(f"{run} was trained on another base than {base.about['name']}; give the same --base")
    return iteration, result_weights(tensors), about, settings


def _card(
    run: Path,
    base: LatentBase,
    data: TrainingSet,
    settings: SiameseTraining | PathDiffTraining,
    *,
    training: dict[str, Any],
    licence: str,
    **fields: Any,
) -> ModelCard:
    """The card without its files."""
    size, colours, turns = base.size_px, class_palette(len(data.classes)).tolist(), training.pop("turns")
    known = ("kind", "name", "files", "iterations", "precision", "settings", "measured", "scheduler")
    return ModelCard(
        inputs=("prompt", "mask"),
        classes=tuple(
            ClassEntry(
                index=c.index, name=c.name, colour=tuple(colours[c.index]), queryable=c.queryable, aliases=c.aliases
            )
            for c in data.classes
        ),
        palette=PaletteRef(kind="listed", count=len(data.classes)),
        generation_size_px=size,
        sizes_px=(size,),
        default_size_px=size,
        sampler=base.convention,
        limits=CardLimits(max_prompt_tokens=base.tokens.ref.max_tokens),
        network={
            "autoencoder": base.autoencoder_config.model_dump(mode="json"),
            "denoiser": base.denoiser_config.model_dump(mode="json"),
            "hint": settings.hint.model_dump(mode="json"),
        },
        text_encoder=base.tokens.ref,
        training=training
        | {
            "settings": settings.model_dump(mode="json", exclude={"hint"}),
            "augmentation": "flips and right-angle turns"
            if turns in (8, [8, 8])
            else "none"
            if turns in (1, [1, 1])
            else f"turns {turns}",
            "fit": data.scale_about(size, data.stems()),
            "last_log_line": last_log_line(run / "log.jsonl"),
            "base": {key: base.about[key] for key in known if key in base.about} | {"fingerprint": base.fingerprint},
            "versions": versions("torch", "accelerate", "diffusers", "twinset"),
        },
        intended_use=INTENDED_USE,
        limits_of_use=f"{LIMITS_OF_USE} {NO_DIAGNOSIS}",
        licence=licence or "as the training data",
        **fields,
    )


def _write(out: Path, base: LatentBase, trained: dict[str, Tensor], card: ModelCard) -> ModelCard:
    """Writes the weights, the trained ones in place of the base's, and then the card with their fingerprint."""
    frozen: dict[str, nn.Module] = {"autoencoder": base.autoencoder, "unet": base.unet}
    weights = {
        f"{part}.{name}": value for part, module in frozen.items() for name, value in module.state_dict().items()
    } | trained
    assert {name.split(".", 1)[0] for name in weights} == set(PARTS)
    out.mkdir(parents=True, exist_ok=True)
    path = out / WEIGHTS_FILE
    save_file(
        {k: v.detach().cpu().to(torch.float16).contiguous() for k, v in weights.items()},
        path,
        metadata={"format": "pt"},
    )
    card = card.model_copy(update={"files": {WEIGHTS_FILE: weights_file(path)}})
    card = keep_figures(card, out)
    write_card(out, card)
    return card
