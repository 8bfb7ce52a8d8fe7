"""Training of the auxiliary models: turned, mirrored and brightened images, AdamW, one cycle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from workers.data.pixels import dihedral
from workers.evaluation.sampling import images_as_tensor
from workers.training.loop import iteration_generator, learning_rate

OnIteration = Callable[[int, int, float], None]
"""Called with (iterations done, all iterations, loss)."""


class FitSettings(BaseModel):
    """The settings of an auxiliary model's training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(40, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    jitter: float = Field(0.15, ge=0, description="largest change of brightness and of contrast, of the range [-1, 1]")
    seed: int = 0

    def iterations(self, count: int) -> int:
        """The number of batches for ``count`` images."""
        return self.epochs * max(1, count // self.batch_size)


@dataclass(frozen=True)
class Batch:
    """The next rows of the training set, and each one's turn, contrast and brightness."""

    rows: np.ndarray
    turns: list[int]
    change: Tensor

    def images(self, images: np.ndarray, device: torch.device) -> Tensor:
        """The batch of uint8 ``(N, s, s, 3)`` as ``(B, 3, s, s)`` float32 around [-1, 1], changed, channels last."""
        turned = images_as_tensor(self._turned(images)).to(device)
        contrast, brightness = self.change.to(device)
        changed: Tensor = turned * (1 + contrast) + brightness
        return changed.to(memory_format=torch.channels_last)

    def masks(self, masks: np.ndarray, device: torch.device) -> Tensor:
        """The batch of uint8 ``(N, s, s)``: ``(B, s, s)`` int64, turned as the images are."""
        return torch.from_numpy(self._turned(masks)).long().to(device)

    def _turned(self, arrays: np.ndarray) -> np.ndarray:
        return np.stack([dihedral(arrays[row], turn) for row, turn in zip(self.rows, self.turns, strict=True)])


def draw_batches(count: int, settings: FitSettings, *, has_up: bool) -> Iterator[Batch]:
    """The batches of a training on ``count`` images: a new order each epoch, mirrored, and turned if nothing is up."""
    turns = (0, 4) if has_up else tuple(range(8))
    rounds = max(1, count // settings.batch_size)
    order = np.arange(count)
    for iteration in range(settings.iterations(count)):
        generator = iteration_generator(settings.seed, iteration)
        if iteration % rounds == 0:
            order = torch.randperm(count, generator=generator).numpy()
        place = iteration % rounds * settings.batch_size
        rows = order[place : place + settings.batch_size]
        drawn = [turns[i] for i in torch.randint(len(turns), (len(rows),), generator=generator).tolist()]
        yield Batch(rows, drawn, (torch.rand(2, len(rows), 1, 1, 1, generator=generator) * 2 - 1) * settings.jitter)


def fit(
    network: nn.Module,
    count: int,
    settings: FitSettings,
    loss_of: Callable[[Batch], Tensor],
    *,
    has_up: bool,
    on_iteration: OnIteration | None = None,
) -> None:
    """Trains ``network`` on ``count`` images by the loss of each batch, and leaves it in eval mode."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    total = settings.iterations(count)
    for iteration, batch in enumerate(draw_batches(count, settings, has_up=has_up)):
        rate = learning_rate(
            iteration, base=settings.learning_rate, warmup=min(50, total // 10), total=total, decay_from=0.3
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(batch)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if on_iteration is not None:
            on_iteration(iteration + 1, total, loss.item())
    network.eval()
