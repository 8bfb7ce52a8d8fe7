"""PathDiff's mask condition: a coloured label map with object edges, or the null mask; and its shallow CNN."""

from __future__ import annotations

import torch
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

HINT_CHANNELS = 7
"""Three of colour, three of edges (the same one three times, as the authors have it), and one that says whether there
is a label."""


class PathDiffHintConfig(BaseModel):
    """The shape of the shallow CNN; it is stored in the card.

    Every width after the first halves the side: (16, 32, 96) is f4.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    widths: tuple[int, ...] = Field((16, 32, 96), min_length=1)
    out_channels: int = Field(192, ge=1)

    @property
    def factor(self) -> int:
        """The mask's side over the features'."""
        return 1 << (len(self.widths) - 1)


def build_hint(config: PathDiffHintConfig) -> nn.Module:
    """``(B, 7, H, W)`` -> ``(B, out, H/f, W/f)``; zero until trained."""
    return ControlNetConditioningEmbedding(config.out_channels, HINT_CHANNELS, config.widths)


def object_edges(labels: Tensor) -> Tensor:
    """Pixels beside one of another label, ``(B, H, W)`` bool; labels ``(B, H, W)`` are of classes or of instances."""
    edges = torch.zeros_like(labels, dtype=torch.bool)
    across, down = labels[:, :, 1:] != labels[:, :, :-1], labels[:, 1:] != labels[:, :-1]
    edges[:, :, 1:] |= across
    edges[:, :, :-1] |= across
    edges[:, 1:] |= down
    edges[:, :-1] |= down
    return edges


def mask_hint(indices: Tensor, colours: Tensor, instances: Tensor | None = None) -> Tensor:
    """The hint of masks: ``(B, 7, H, W)`` float32.

    indices ``(B, H, W)`` int64 class indices, 255 where there is no label; colours ``(K, 3)`` in [0, 1]; instances
    ``(B, H, W)`` int64, if they are known: then touching objects of one class have an edge between them too. Colours
    are normalised to [-1, 1] (the authors feed 0..255), edges and validity are 0 or 1.
    """
    known = indices < len(colours)
    painted = (colours[indices.clamp(max=len(colours) - 1)] * 2.0 - 1.0) * known[..., None]
    edges = object_edges(indices if instances is None else instances << 8 | indices) & known
    return (
        torch.cat([painted, edges[..., None].expand(*edges.shape, 3), known[..., None]], dim=-1)
        .permute(0, 3, 1, 2)
        .contiguous()
    )


def null_hint(count: int, size_px: int, device: torch.device | str = "cpu") -> Tensor:
    """The null mask, ``(count, 7, size, size)``: no pixel has a label.

    Ours: a validity of 0, which no real label has, however dark.
    """
    return torch.zeros(count, HINT_CHANNELS, size_px, size_px, device=device)
