"""CoSimGen's training objectives: the network's one forward, and the text projection's alignment at the end."""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from torch import Tensor, nn

from model_store.cosimgen.losses import alignment_loss
from model_store.cosimgen.network import CoSimGenNetwork
from workers.training.loop import iteration_generator
from workers.training.prompts import PromptBank


class CoSimGenObjective(nn.Module):
    """The network with everything that training reads from it in one forward, as data parallelism wants it."""

    def __init__(self, network: CoSimGenNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, x: Tensor, t: Tensor, multi_hot: Tensor, dropped: Tensor, text: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Output ``(B, 6, h, w)``, C_emb ``(B, D)`` and Z_emb ``(B, D)``.

        Rows where ``dropped`` ``(B,)`` is true see the null condition.
        """
        classes = self.network.class_encoder(multi_hot)
        null = self.network.class_encoder(torch.zeros_like(multi_hot))
        condition = torch.where(dropped[:, None], null, classes)
        return self.network(x, t, condition), classes, self.network.text_encoder(text)


def align_projection(network: CoSimGenNetwork, bank: PromptBank, *, iterations: int, seed: int) -> float:
    """Trains the text projection alone towards the embeddings of all class sets of ``bank``; all else is frozen.

    Returns the mean |Z - C|^2 over the last 100 iterations.
    """
    network.requires_grad_(False)
    projection = network.text_encoder.requires_grad_(True)
    device = next(network.parameters()).device
    sets = bank.class_sets
    classes = network.class_encoder(torch.from_numpy(sets.astype(np.float32)).to(device))
    optimizer = torch.optim.Adam(projection.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    recent: deque[float] = deque(maxlen=100)
    for iteration in range(iterations):
        generator = iteration_generator(seed, iteration, -1)
        chosen = torch.randint(len(sets), (64,), generator=generator)
        texts = projection(bank.draw(sets[chosen.numpy()], generator).to(device))
        loss = alignment_loss(texts, classes[chosen.to(classes.device)])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        recent.append(loss.item())
    return sum(recent) / max(1, len(recent))
