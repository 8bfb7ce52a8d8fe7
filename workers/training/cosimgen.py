"""CoSimGen's training recipe (section 3.7): diffusion, triplet and adversarial losses, the discriminator first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from model_store.cosimgen.discriminator import Discriminator
from model_store.cosimgen.losses import (
    adversarial_loss,
    alignment_loss,
    derangement,
    diffusion_loss,
    discriminator_loss,
    triplet_loss,
)
from model_store.cosimgen.network import CoSimGenNetwork
from model_store.diffusion.schedule import (
    add_noise,
    alphas_cumprod,
    predicted_x0_and_noise,
    velocity,
)
from model_store.text import load_text_encoder
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
from workers.training.cosimgen_objective import CoSimGenObjective, align_projection
from workers.training.cosimgen_pairs import CoSimGenPairs
from workers.training.cosimgen_settings import CoSimGenTraining
from workers.training.grids import sample_grid
from workers.training.loop import Ema, attention_kernel, iteration_generator, stratified_timesteps
from workers.training.prompts import PromptBank, many_class_sets
from workers.training.trainer import Trainer, check_gradient


class CoSimGenTrainer(Trainer):
    """A CoSimGen run: pairs by iteration, networks, optimisers.

    :meth:`step` is one iteration, :meth:`run` all that are left.
    """

    settings: CoSimGenTraining

    def __init__(
        self,
        data: TrainingSet,
        out: Path,
        settings: CoSimGenTraining,
        accelerator: Accelerator,
        *,
        has_up: bool | None = None,
        encode: Callable[[Sequence[str]], Tensor] | None = None,
        input_options: InputOptions | None = None,
    ) -> None:
        """``has_up`` overrides the dataset's; ``encode`` replaces the sentence transformer.

        Raises ValueError if ``out`` holds a run of another network.
        """
        self.data, self.out = data.with_fit(settings.fit), Path(out)
        self.settings, self.accelerator = settings, accelerator
        options = input_options or InputOptions()
        self._encode = encode or load_text_encoder().encode
        self.turns = 1 if (data.has_up if has_up is None else has_up) else 8
        torch.manual_seed(settings.seed)
        self.network = CoSimGenNetwork(settings.network)
        self.discriminator = Discriminator(settings.discriminator_width)
        self.pairs = CoSimGenPairs(self.data, settings, accelerator, options, self._encode, self.turns)
        self.data, self.streams = self.pairs.data, (self.pairs.stream,)
        self.ema = Ema(self.network, settings.ema_decay)
        self.start, self.aligned = 0, False
        objective = to_channels_last(CoSimGenObjective(self.network))
        to_channels_last(self.discriminator)
        fused = accelerator.device.type in ("cpu", "cuda")
        optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Adam(self._groups(), lr=settings.learning_rate, fused=fused),
            torch.optim.Adam(
                self.discriminator.parameters(), lr=settings.learning_rate, betas=(0.5, 0.999), fused=fused
            ),
        ]
        self._resume(optimizers)
        prepared = accelerator.prepare(objective, self.discriminator, *optimizers)
        self.objective, self.prepared_discriminator, self.optimizer, self.discriminator_optimizer = prepared
        self.ema.shadow = [value.to(accelerator.device) for value in self.ema.shadow]
        self.abar = alphas_cumprod(settings.convention).to(accelerator.device)

    @property
    def notices(self) -> Sequence[str]:
        return self.data.notices

    def _groups(self) -> list[dict[str, Any]]:
        """Class encoder, text encoder, Spectron's class maps, and the rest, each with a gradient norm of its own.

        The triplet drives the encoders hard, which must not scale the U-Net's gradient. A step of Adam moves an
        embedding, or a map, by its rate times the sum of all its inputs: at the U-Net's rate that is further in one
        step than two class sets lie apart. The text alone takes the full rate, for it has to follow the classes.
        """
        groups: dict[str, list[nn.Parameter]] = {"class": [], "text": [], "maps": [], "rest": []}
        for name, parameter in self.network.named_parameters():
            kind = (
                "class" if name.startswith("class_encoder.") else "text" if name.startswith("text_encoder.") else "rest"
            )
            groups["maps" if ".spectron.spatial." in name else kind].append(parameter)
        shares = (self.settings.class_rate, 1.0, self.settings.map_rate, 1.0)
        return [{"params": group, "share": share} for group, share in zip(groups.values(), shares, strict=True)]

    def _resume(self, optimizers: list[torch.optim.Optimizer]) -> None:
        found = load_checkpoint(self.out)
        if found is None:
            return
        self.start, tensors, about = found
        # a run continued beyond its former end moves its classes, and its text has to be aligned again
        self.aligned = about.get("aligned", False) and self.start >= self.settings.iterations
        then = checkpoint_settings(self.out, about, CoSimGenTraining)
        if then.network != self.settings.network:
            raise ValueError(f"{self.out} holds a run of another network ({then.network}); choose another --out")
        check_same_data(self.out, about, self.data.name_and_window, self.settings.fit)
        for module, prefix in ((self.network, "network."), (self.discriminator, "discriminator.")):
            module.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
        self.ema.shadow = [tensors[f"ema.{name}"] for name, _ in self.network.named_parameters()]
        for optimizer, prefix in zip(optimizers, ("optimizer.", "discriminator_optimizer."), strict=True):
            restore_optimizer(optimizer, tensors, prefix)

    def save(self, iteration: int) -> None:
        """Writes the checkpoint after ``iteration`` iterations (main process only)."""
        if not self.accelerator.is_main_process:
            return
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"discriminator.{k}": v for k, v in self.discriminator.state_dict().items()}
        tensors |= {
            f"ema.{name}": value
            for (name, _), value in zip(self.network.named_parameters(), self.ema.shadow, strict=True)
        }
        tensors |= flatten_optimizer(self.optimizer, "optimizer.") | flatten_optimizer(
            self.discriminator_optimizer, "discriminator_optimizer."
        )
        about = {
            "settings": self.settings.model_dump(mode="json"),
            "dataset": self.data.name_and_window,
            "turns": self.turns,
            "pairs": len(self.pairs.stems),
            "aligned": self.aligned,
        }
        save_checkpoint(self.out, iteration, tensors, about)

    def step(self, iteration: int) -> dict[str, float]:
        """One iteration; returns its losses."""
        settings, device = self.settings, self.accelerator.device
        generator = iteration_generator(settings.seed, iteration, self.accelerator.process_index)
        pairs, multi_hot, text = self.pairs.batch(iteration, generator)
        size = len(pairs)
        t = stratified_timesteps(size, len(self.abar), generator, noisy_share=settings.noisy_share)
        noise = torch.randn(pairs.shape, generator=generator)
        dropped = torch.rand(size, generator=generator) < settings.p_uncond
        negatives = derangement(size, generator)
        x0, noise, t, multi_hot, dropped, text = (v.to(device) for v in (pairs, noise, t, multi_hot, dropped, text))
        abar = self.abar[t]
        x = add_noise(x0, noise, abar)
        target = noise if settings.prediction_type == "epsilon" else velocity(x0, noise, abar)
        for optimizer in (self.optimizer, self.discriminator_optimizer):
            self.set_rate(optimizer, iteration)
        with self.accelerator.autocast(), attention_kernel(device):
            output, classes, texts = self.objective(x, t, multi_hot, dropped, text)
        output = output.float()
        x0_hat = predicted_x0_and_noise(x, output, abar, settings.prediction_type)[0].clamp(-1.0, 1.0)
        losses = {
            "diffusion": diffusion_loss(output, target),
            "triplet": triplet_loss(texts.float(), classes.float(), multi_hot, negatives.to(device)),
        }
        total = losses["diffusion"] + losses["triplet"]
        if settings.alignment_weight:
            losses["alignment"] = alignment_loss(texts.float(), classes.float())
            total = total + settings.alignment_weight * losses["alignment"]
        if settings.adversarial_weight:
            losses["discriminator"] = self._discriminator_step(x0, x0_hat.detach())
            losses["adversarial"] = self._adversarial_loss(x0_hat)
            total = total + settings.adversarial_weight * losses["adversarial"]
        self.accelerator.backward(total)
        *_, norm = (
            self.accelerator.clip_grad_norm_(group["params"], settings.clip_norm)
            for group in self.optimizer.param_groups
        )
        check_gradient(norm, iteration)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.network, iteration)
        return {key: value.item() for key, value in losses.items()} | {"gradient_norm": float(norm)}

    def _discriminator_step(self, real: Tensor, fake: Tensor) -> Tensor:
        """Trains the discriminator on real pairs against denoised ones; returns its loss."""
        with self.accelerator.autocast():
            logits = self.prepared_discriminator(torch.cat([real, fake]))
        loss = discriminator_loss(logits[: len(real)], logits[len(real) :])
        self.accelerator.backward(loss)
        self.discriminator_optimizer.step()
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def _adversarial_loss(self, fake: Tensor) -> Tensor:
        """L_adv by the discriminator, which is frozen here: its own parameters receive no gradient."""
        self.discriminator.requires_grad_(False)
        with self.accelerator.autocast():
            loss = adversarial_loss(self.discriminator(fake))
        self.discriminator.requires_grad_(True)
        return loss

    def align_text(self, iterations: int | None = None) -> float:
        """Ends a run: moves the averaged text projection onto the averaged class embeddings, and saves.

        ``iterations`` are those that were done, if they are fewer than the settings'.

        All other weights are frozen. The triplet sees class sets of the data alone, and stops once each text is nearer
        to its own set than to another; this sees every set that a user may ask for, in many words. Returns the
        remaining mean |Z - C|^2.
        """
        network, settings = self.averaged(), self.settings
        rng = np.random.default_rng(settings.seed)
        present = self.pairs.present
        queryable = np.array([entry.queryable for entry in self.data.classes])
        sets = many_class_sets(present, queryable, rng)
        # captions belong to the class sets of their images, so those rows come first and carry the stems
        rows = np.concatenate([present, sets])
        bank = PromptBank(self.data, rows, [*self.pairs.named, *[""] * len(sets)], self._encode, others=24)
        left = align_projection(network, bank, iterations=settings.alignment_iterations, seed=settings.seed)
        self.ema.shadow = [parameter.detach().clone() for parameter in network.parameters()]
        self.aligned = True
        self.save(settings.iterations if iterations is None else iterations)
        return left

    def averaged(self) -> CoSimGenNetwork:
        """A copy of the network with the averaged weights, in evaluation mode."""
        network = to_channels_last(CoSimGenNetwork(self.settings.network), self.accelerator.device)
        self.ema.copy_to(network)
        return network.eval()

    def save_samples(self, iteration: int) -> None:
        """Writes ``samples/{iteration}.png``: pairs sampled for class sets of the training data."""
        chosen = np.random.default_rng(self.settings.seed).choice(len(self.pairs.present), 8)
        with self.accelerator.autocast():
            sample_grid(
                self.averaged(),
                self.settings.convention,
                torch.from_numpy(self.pairs.present[chosen].astype(np.float32)).to(self.accelerator.device),
                self.out / "samples" / f"{iteration:07d}.png",
            )
