"""Export of a CoSimGen run to a model folder: averaged weights as half floats in one safetensors, and the card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from model_store.card import ClassEntry, Defaults, ModelCard, PaletteRef, write_card
from model_store.cosimgen.config import CoSimGenConfig
from model_store.cosimgen.losses import ADVERSARIAL_WEIGHT
from model_store.cosimgen.system import GENERATOR_PREFIX, SUPERRES_PREFIX, WEIGHTS_FILE
from model_store.masks.palette import fibonacci_rgb
from model_store.text import ALL_MINILM
from workers.data.pixels import PRESENT_SHARE
from workers.data.training_set import TrainingSet
from workers.training.card_parts import (
    INTENDED_USE,
    LIMITS_OF_USE,
    ExportImpossible,
    fit_deviation,
    keep_figures,
    last_log_line,
    versions,
    weights_file,
)
from workers.training.checkpoints import checkpoint_settings, load_checkpoint
from workers.training.cosimgen_settings import CoSimGenTraining
from workers.training.loop import NOISY_FIFTH
from workers.training.prompts import CANONICAL_TEMPLATE
from workers.training.superres_result import load_result

OPEN_DETAILS = (
    "Spectron's class map comes from one Linear at min(h, limit), enlarged bilinearly; the paper leaves the "
    "projection open, "
    "and where in a block it is added.",
    "F-RGB is a Fibonacci sphere in the RGB cube; the paper gives no formula.",
    "Sampling by DDIM with guidance by the null class (M = 0, dropped in 10 % of training); the paper's sampler is "
    "DDPM.",
    "Masks are decoded without ghost classes, and pixels of low confidence are `ignore` (255).",
)
"""Details that the paper leaves open, as every model of ours settles them."""


def deviations(settings: CoSimGenTraining, superres: dict[str, Any] | None) -> tuple[str, ...]:
    """Where a training differs from the paper, as sentences for the card."""
    network, found = settings.network, list(OPEN_DETAILS)
    paper = CoSimGenConfig(num_classes=network.num_classes)
    if network.size_px != paper.size_px:
        found.append(f"Pairs are generated at {network.size_px} px, not 128.")
    if network.stem != 1:
        found.append(
            f"A space-to-depth stem of {network.stem}: the U-Net starts at {network.size_px // network.stem} px."
        )
    if (network.width, network.multipliers) != (paper.width, paper.multipliers):
        found.append(f"Width {network.width} with multipliers {list(network.multipliers)}, not 64 with 1, 2, 4, 8.")
    if network.attention_sizes:
        found.append(f"Self-attention at feature sizes {list(network.attention_sizes)}.")
    if settings.prediction_type != "epsilon":
        found.append("The network predicts velocity, not noise.")
    if settings.schedule != "linear":
        found.append(
            "The noise follows the cosine schedule, not the linear one, most of whose steps leave nothing of a small "
            "image."
        )
    if settings.alignment_weight:
        found.append(f"An alignment term, {settings.alignment_weight} |Z - sg[C]|^2, beside Textron's triplet.")
    if settings.alignment_iterations:
        found.append(
            f"At the end {settings.alignment_iterations} iterations of that alignment alone, over all class sets."
        )
    if (settings.class_rate, settings.map_rate) != (1.0, 1.0):
        found.append(
            f"The class encoder learns at {settings.class_rate} of the rate, Spectron's class maps at "
            f"{settings.map_rate}."
        )
    tiles = settings.fit.kind == "tiles"
    found += fit_deviation(settings.fit)
    if settings.repeat_below and not tiles:
        found.append(
            f"Class sets rarer than {settings.repeat_below:.0%} of the images are drawn "
            f"sqrt({settings.repeat_below} / frequency) times as often."
        )
    if settings.presence_margin > 1 and not tiles:
        found.append(
            f"Pairs in which a class covers between {PRESENT_SHARE / settings.presence_margin:.2%} and "
            f"{PRESENT_SHARE * settings.presence_margin:.2%} are left out, as it is neither clearly there nor clearly "
            "not."
        )
    if settings.noisy_share != NOISY_FIFTH:
        found.append(
            f"{settings.noisy_share:.0%} of the timesteps are drawn from the noisiest fifth, where the class set is "
            "decided."
        )
    if settings.adversarial_weight != ADVERSARIAL_WEIGHT:
        found.append(f"The adversarial loss weighs {settings.adversarial_weight}, not {ADVERSARIAL_WEIGHT}.")
    if (settings.batch_size, settings.learning_rate) != (24, 2e-4):
        found.append(f"Batch {settings.batch_size} and learning rate {settings.learning_rate}, not 24 and 2e-4.")
    if superres is not None:
        found += superres.get("deviations", [])
    return tuple(found)


def open_superres(folder: Path, size_px: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and weights of a super-resolution for pairs of ``size_px``.

    Raises :class:`ExportImpossible` if it is of another size, missing or damaged.
    """
    about, weights = load_result(folder)
    trained_px = about["settings"]["base_px"]
    if trained_px != size_px:
        raise ExportImpossible(
            f"the super-resolution in {folder} enlarges pairs of {trained_px} px and this model makes {size_px} px; "
            f"train one with `twinset train superres --base-px {size_px}`"
        )
    return about, weights


def export_model(
    run: Path,
    out: Path,
    data: TrainingSet,
    *,
    name: str,
    version: str,
    superres: Path | None = None,
    title: str | None = None,
    guidance_scale: float | None = None,
    eta: float = 0.0,
    notes: Sequence[str] = (),
) -> ModelCard:
    """Writes ``out/model.safetensors`` and ``out/card.json`` from a run's checkpoint. Weights first, card last.

    ``superres`` is a folder of ``twinset train superres``; without one the model makes its generated size alone.
    ``notes`` say what the settings do not; ``guidance_scale`` and ``eta`` are the card's defaults. Raises
    :class:`ExportImpossible` if the run has no checkpoint or the super-resolution does not fit.
    """
    found = load_checkpoint(run)
    if found is None:
        raise ExportImpossible(f"{run} holds no checkpoint to export")
    iteration, tensors, about = found
    settings = checkpoint_settings(run, about, CoSimGenTraining)
    weights = {GENERATOR_PREFIX + k[len("ema.") :]: v for k, v in tensors.items() if k.startswith("ema.")}
    network: dict[str, Any] = {"generator": settings.network.model_dump(mode="json")}
    upscaler: dict[str, Any] | None = None
    sizes = [settings.network.size_px]
    if superres is not None:
        upscaler, enlarging = open_superres(superres, sizes[0])
        weights |= {SUPERRES_PREFIX + k: v for k, v in enlarging.items()}
        network["superres"] = upscaler["network"]
        sizes += [sizes[0] * 2**times for times in range(1, upscaler["settings"]["times"] + 1)]
    out.mkdir(parents=True, exist_ok=True)
    path = out / WEIGHTS_FILE
    save_file({k: v.to(torch.float16).contiguous() for k, v in weights.items()}, path, metadata={"format": "pt"})
    colours = fibonacci_rgb(len(data.classes)).tolist()
    card = ModelCard(
        name=name,
        version=version,
        system="cosimgen",
        title=title or f"CoSimGen on {data.name}",
        description="Makes an image and its segmentation mask together, from a prompt or from classes, in the look "
        f"of {data.name}.",
        inputs=("prompt", "classes"),
        classes=tuple(
            ClassEntry(
                index=c.index, name=c.name, colour=tuple(colours[c.index]), queryable=c.queryable, aliases=c.aliases
            )
            for c in data.classes
        ),
        palette=PaletteRef(count=len(data.classes)),
        prompt_template=CANONICAL_TEMPLATE,
        generation_size_px=sizes[0],
        sizes_px=tuple(sizes),
        default_size_px=sizes[-1],
        sampler=settings.convention,
        defaults=Defaults(steps=50, guidance_scale=1.0 if guidance_scale is None else guidance_scale, eta=eta),
        network=network,
        text_encoder=ALL_MINILM,
        training={
            "iterations": iteration,
            "notes": list(notes),
            "settings": settings.model_dump(mode="json", exclude={"network"}),
            "augmentation": "flips and right-angle turns" if about["turns"] == 8 else "none",
            "fit": data.scale_about(sizes[0], data.stems("train")),
            "last_log_line": last_log_line(run / "log.jsonl"),
            "superres": {k: v for k, v in upscaler.items() if k not in ("network", "deviations")} if upscaler else None,
            "versions": versions("torch", "accelerate", "twinset"),
        },
        training_data=(
            {
                "name": data.name,
                "split": "train",
                "pairs": about.get("pairs", len(data.stems("train"))),
                "licence": data.licence,
            },
        ),
        deviations=deviations(settings, upscaler),
        intended_use=INTENDED_USE,
        limits_of_use=LIMITS_OF_USE,
        licence=data.licence or "as the training data",
        files={WEIGHTS_FILE: weights_file(path)},
    )
    card = keep_figures(card, out)
    write_card(out, card)
    return card
