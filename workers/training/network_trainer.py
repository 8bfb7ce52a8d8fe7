"""Training of one network, or parts of one, by one optimizer: the base of the latent recipes."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch
from accelerate import Accelerator
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from model_store.weights import to_channels_last
from workers.data.fit import Fit
from workers.data.tiles import PairDraw
from workers.training.checkpoints import (
    check_same_data,
    checkpoint_settings,
    flatten_optimizer,
    load_checkpoint,
    restore_optimizer,
    save_checkpoint,
)
from workers.training.input import Rows
from workers.training.loop import Ema
from workers.training.trainer import Trainer, check_gradient

Network = TypeVar("Network", bound=nn.Module)


class RunSettings(BaseModel):
    """The settings of every run, to which a recipe adds its own; stored in the checkpoint and in the result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Literal["paper", "small"]
    iterations: int = Field(ge=1)
    batch_size: int = Field(16, ge=1, description="images an iteration, over all processes")
    learning_rate: float = Field(2e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0, description="AdamW's")
    warmup: int = Field(0, ge=0, description="iterations of linear warm-up")
    decay_from: float = Field(1.0, ge=0, le=1, description="share of the run after which the rate falls linearly to 0")
    ema_decay: float = Field(
        0.0, ge=0, lt=1, description="of the averaged weights, which are then the result; 0 for no average"
    )
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient; None leaves it as it is")
    seed: int = 0
    fit: Fit = Field(default_factory=Fit, description="how images become the network's square")


class CaptionedRun(RunSettings):
    """A run that draws images with captions."""

    repeat_below: float = Field(
        0.0, ge=0, le=1, description="images whose caption is rarer than this are drawn more often; ours"
    )


class NetworkTrainer(Trainer, Generic[Network]):
    """A run of one network. A subclass builds it, freezes parts of it, and calls :meth:`begin`.

    Checkpoints hold the trained parameters alone; :meth:`identity` tells whether a checkpoint's other parts are the
    same.
    """

    settings: RunSettings
    network: Network

    def __init__(self, out: Path, settings: RunSettings, accelerator: Accelerator) -> None:
        self.out, self.settings, self.accelerator = Path(out), settings, accelerator
        torch.manual_seed(settings.seed)

    def identity(self) -> Mapping[str, Any]:
        """The values that must be the same when a run resumes, by name; plain JSON."""
        return {}

    def about(self) -> Mapping[str, Any]:
        """The members that a checkpoint holds beside settings, identity and :attr:`dataset_name`; plain JSON."""
        return {}

    def check_resumable(self, about: Mapping[str, Any], settings: Any) -> None:
        """Raises CheckpointInvalid for a checkpoint of this ``about`` and ``settings`` that may not be continued."""

    @property
    @abstractmethod
    def dataset_name(self) -> str:
        """What the run is trained on, and resumed on: :attr:`TrainingSet.name_and_window`."""

    def begin(self, network: Network, objective: nn.Module | None = None) -> None:
        """Resumes the checkpoint, if there is one, and gives ``objective`` (which holds the network) to accelerate.

        Raises ValueError if ``out`` holds a run whose :meth:`identity` is another.
        """
        self.network = to_channels_last(network)
        found = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
        self.trained_names, self.trained = tuple(found), nn.ParameterList(found.values())
        self.ema = Ema(self.trained, self.settings.ema_decay) if self.settings.ema_decay else None
        device, rate = self.accelerator.device, self.settings.learning_rate
        optimizer = torch.optim.AdamW(
            self.trained, lr=rate, weight_decay=self.settings.weight_decay, fused=device.type in ("cpu", "cuda")
        )
        self._resume(optimizer)
        self.model, self.optimizer = self.accelerator.prepare(objective or network, optimizer)
        if self.ema:
            self.ema.shadow = [value.to(device) for value in self.ema.shadow]

    def _resume(self, optimizer: torch.optim.Optimizer) -> None:
        checkpoint = load_checkpoint(self.out)
        if checkpoint is None:
            return
        self.start, tensors, about = checkpoint
        then_settings = checkpoint_settings(self.out, about, type(self.settings))
        for name, now in self.identity().items():
            then = about.get("identity", {}).get(name)
            if then != now:
                raise ValueError(f"{self.out} holds a run of another {name} ({then}, now {now}); choose another --out")
        check_same_data(self.out, about, self.dataset_name, self.settings.fit)
        self.check_resumable(about, then_settings)
        with torch.no_grad():
            for name, parameter in zip(self.trained_names, self.trained, strict=True):
                parameter.copy_(tensors[f"network.{name}"])
        if self.ema:
            # a run without an average so far starts one from its current weights
            self.ema.shadow = [
                tensors.get(f"ema.{name}", tensors[f"network.{name}"]).clone() for name in self.trained_names
            ]
        restore_optimizer(optimizer, tensors, "optimizer.")

    def save(self, iteration: int) -> None:
        """Writes the checkpoint after ``iteration`` iterations (main process only)."""
        if not self.accelerator.is_main_process:
            return
        tensors = {f"network.{name}": value for name, value in zip(self.trained_names, self.trained, strict=True)}
        if self.ema:
            tensors |= {f"ema.{name}": value for name, value in zip(self.trained_names, self.ema.shadow, strict=True)}
        tensors |= flatten_optimizer(self.optimizer, "optimizer.")
        about = {"settings": self.settings.model_dump(mode="json"), "identity": dict(self.identity()), **self.about()}
        about["dataset"] = self.dataset_name
        save_checkpoint(self.out, iteration, tensors, about)

    def optimise(self, loss: torch.Tensor, iteration: int) -> float:
        """One step of the optimizer down the gradient of ``loss``; returns the gradient's norm before clipping."""
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(list(self.trained), self.settings.clip_norm or math.inf)
        check_gradient(norm, iteration)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update(self.trained, iteration)
        return float(norm)

    @contextmanager
    def result(self) -> Iterator[Network]:
        """The network with its resulting weights, the averaged ones if there are any, inside the context."""
        trained = [parameter.detach().clone() for parameter in self.trained] if self.ema else None
        training = self.network.training
        try:
            if self.ema:
                self.ema.copy_to(self.trained)
            self.network.eval()
            with torch.no_grad():
                yield self.network
        finally:
            self.network.train(training)
            if trained is not None:
                with torch.no_grad():
                    for parameter, value in zip(self.trained, trained, strict=True):
                        parameter.copy_(value)

    def rows_of(self, rows: Rows, iteration: int) -> list[int | PairDraw]:
        """This process's rows of an iteration's batch."""
        size = max(1, self.settings.batch_size // self.accelerator.num_processes)
        first = (iteration * self.accelerator.num_processes + self.accelerator.process_index) * size
        return [rows[first + offset] for offset in range(size)]


def result_weights(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The resulting weights of a checkpoint by their names in the network: averaged if there are any, else plain."""
    prefix = "ema." if any(name.startswith("ema.") for name in tensors) else "network."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
