"""Training recipe of super-resolution (CoSimGen, sections 3.6 and 3.7.3): MSE and feature distance, at both scales."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from model_store.cosimgen.superres import ESPCN, upscale
from model_store.cosimgen.superres_losses import superres_loss
from model_store.features import FeatureNetwork, open_features
from model_store.weights import to_channels_last
from workers.data.stream import InputOptions
from workers.data.training_set import TrainingSet
from workers.training.checkpoints import (
    check_same_data,
    checkpoint_settings,
    flatten_optimizer,
    load_checkpoint,
    restore_optimizer,
    save_checkpoint,
)
from workers.training.loop import Ema, iteration_generator
from workers.training.superres_data import Pyramid, degrade, patch_batch, read_pyramid, supported_sizes
from workers.training.superres_result import comparison_image, measure, save_result
from workers.training.superres_settings import SuperresTraining
from workers.training.trainer import Trainer, check_gradient


class SuperresTrainer(Trainer):
    """A super-resolution run: pairs at every size, network, optimiser.

    :meth:`step` is one iteration, :meth:`run` all that are left.
    """

    settings: SuperresTraining

    def __init__(
        self,
        data: TrainingSet,
        out: Path,
        settings: SuperresTraining,
        accelerator: Accelerator,
        *,
        features_weights: Path | None = None,
        has_up: bool | None = None,
        input_options: InputOptions | None = None,
    ) -> None:
        data = data.with_fit(settings.fit)
        self.data, self.out, self.settings, self.accelerator = data, Path(out), settings, accelerator
        options = input_options or InputOptions()
        self.turns = 1 if (data.has_up if has_up is None else has_up) else 8
        self.features: FeatureNetwork | None = None
        if settings.perceptual_weight:
            opened = open_features(settings.features, features_weights)
            self.features = to_channels_last(opened, accelerator.device)
        sizes = supported_sizes(data, "train", settings.sizes)
        self.pyramid = read_pyramid(data, "train", sizes, cache_bytes=options.cache_bytes, seed=settings.seed)
        torch.manual_seed(settings.seed)
        self.network = to_channels_last(ESPCN(settings.network))
        self.ema = Ema(self.network, settings.ema_decay)
        self.start = 0
        optimizer = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate)
        self._resume(optimizer)
        self.model, self.optimizer = accelerator.prepare(self.network, optimizer)
        self.ema.shadow = [value.to(accelerator.device) for value in self.ema.shadow]

    @property
    def notices(self) -> Sequence[str]:
        return self.data.notices

    def _resume(self, optimizer: torch.optim.Optimizer) -> None:
        found = load_checkpoint(self.out)
        if found is None:
            return
        self.start, tensors, about = found
        then = checkpoint_settings(self.out, about, SuperresTraining)
        if then.network != self.settings.network:
            raise ValueError(f"{self.out} holds a run of another network ({then.network}); choose another --out")
        check_same_data(self.out, about, self.data.name_and_window, self.settings.fit)
        self.network.load_state_dict(
            {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
        )
        self.ema.shadow = [tensors[f"ema.{name}"] for name, _ in self.network.named_parameters()]
        restore_optimizer(optimizer, tensors, "optimizer.")

    def save(self, iteration: int) -> None:
        """Writes the checkpoint after ``iteration`` iterations (main process only)."""
        if not self.accelerator.is_main_process:
            return
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {
            f"ema.{name}": value
            for (name, _), value in zip(self.network.named_parameters(), self.ema.shadow, strict=True)
        }
        tensors |= flatten_optimizer(self.optimizer, "optimizer.")
        about = {
            "settings": self.settings.model_dump(mode="json"),
            "dataset": self.data.name_and_window,
            "turns": self.turns,
        }
        save_checkpoint(self.out, iteration, tensors, about)

    def batch(self, iteration: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """This process's patches at the iteration's scale: degraded low ``(B, 6, p, p)``, high ``(B, 6, 2p, 2p)``.

        If a higher scale starts from the network's own enlargement, low is of the scale below: ``(B, 6, p/2, p/2)``.
        """
        settings, scales = self.settings, self.pyramid.sizes[:-1]
        scale = iteration % len(scales)
        chained = torch.rand((), generator=generator).item() < settings.chained and scale > 0
        low, high = patch_batch(
            self.pyramid,
            scales[scale - chained],
            batch=max(1, settings.batch_size // self.accelerator.num_processes),
            patch_px=settings.patch_px // (2 if chained else 1),
            turns=self.turns,
            generator=generator,
            factor=4 if chained else 2,
        )
        return degrade(low, noise=settings.noise, blur_px=settings.blur_px, generator=generator), high

    def step(self, iteration: int) -> dict[str, float]:
        """One iteration, at one of the scales in rotation; returns its losses."""
        settings, device = self.settings, self.accelerator.device
        generator = iteration_generator(settings.seed, iteration, self.accelerator.process_index)
        low, high = (v.to(device, memory_format=torch.channels_last) for v in self.batch(iteration, generator))
        if high.shape[-1] == 4 * low.shape[-1]:
            with self.accelerator.autocast():
                low = upscale(self.network, low, 1).float()
        self.set_rate(self.optimizer, iteration)
        with self.accelerator.autocast():
            loss = superres_loss(self.model(low), high, self.features, settings.perceptual_weight)
        self.accelerator.backward(loss.total)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
        check_gradient(norm, iteration)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.network, iteration)
        return {
            "loss": loss.total.item(),
            "mse": loss.mse.item(),
            "perceptual": loss.perceptual.item(),
            "gradient_norm": float(norm),
        }

    def averaged(self) -> ESPCN:
        """A copy of the network with the averaged weights, in evaluation mode."""
        network = ESPCN(self.settings.network).to(self.accelerator.device)
        self.ema.copy_to(network)
        return network.eval()

    def save_samples(self, iteration: int) -> None:
        """Writes ``samples/{iteration}.png``: a few pairs enlarged from the smallest size to the largest."""
        path = self.out / "samples" / f"{iteration:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(comparison_image(self.averaged(), self.held_out(rows=4))).save(path)

    def finish(self, iterations: int, precision: str) -> dict[str, Any]:
        """Measures the averaged weights and writes them with their description; returns the latter.

        Processes other than the main one write nothing, and return a description without figures.
        """
        settings, data = self.settings, self.data
        about: dict[str, Any] = {
            "settings": settings.model_dump(mode="json"),
            "iterations_done": iterations,
            "precision": precision,
            "turns": self.turns,
            "trained_sizes_px": list(self.pyramid.sizes),
            "data": {"name": data.name, "licence": data.licence},
            "fit": data.scale_about(settings.base_px, data.stems("train")),
            "deviations": list(settings.deviations),
        }
        if self.accelerator.is_main_process:
            network = self.averaged().cpu()
            about["measured_on"] = self.held_out_split
            about["measured"] = measure(network, self.held_out())
            save_result(network, self.out, about)
        return about

    @property
    def held_out_split(self) -> str:
        """The test split, or the train split if there is no other."""
        return self.data.held_out_split

    def held_out(self, rows: int | None = None) -> Pyramid:
        """Pairs to look at and measure with, of :attr:`held_out_split`; ``rows`` of them, or all."""
        split = self.held_out_split
        stems = self.data.stems(split)
        chosen = stems if rows is None else stems[:: max(1, len(stems) // rows)][:rows]
        return read_pyramid(self.data, split, self.pyramid.sizes, chosen)


def train_superres(
    data: TrainingSet,
    out: Path,
    settings: SuperresTraining,
    *,
    precision: Literal["no", "bf16", "fp16"] = "no",
    features_weights: Path | None = None,
    has_up: bool | None = None,
    input_options: InputOptions | None = None,
    **intervals: Any,
) -> dict[str, Any]:
    """Trains, or resumes, a run in ``out`` and writes ``superres.safetensors`` and ``superres.json`` there.

    Runs on what ``accelerate`` finds: the CPU, one GPU or several. ``intervals`` go to :meth:`SuperresTrainer.run`.
    Returns what superres.json holds: the settings, and what the averaged weights measure on the test split.
    """
    accelerator = Accelerator(mixed_precision=precision)
    trainer = SuperresTrainer(
        data,
        out,
        settings,
        accelerator,
        features_weights=features_weights,
        has_up=has_up,
        input_options=input_options,
    )
    done = trainer.run(**intervals)
    about = trainer.finish(done, precision)
    accelerator.wait_for_everyone()
    return about
