"""How one twin is drawn where it need not be the model's square: what is denoised, and what is made of it.

plain, crop   the model's square, as it is; masks come as squares already
stretch       the mask is squeezed to the model's square, and the square is drawn and stretched to the twin's size
canvas        overlapping windows of the model's size over the whole twin, each with its part of the mask
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model_store.canvas.windows import Windows
from model_store.interface import ConditionRequest, GuidanceInputs, MaskInput, System
from model_store.masks.decode import Twin
from model_store.masks.resize import majority_resize, resize_instances
from service.jobs.spec import JobSpec
from workers.models.loaded_model import LoadedModel


@dataclass(frozen=True, eq=False)
class Drawing:
    """One twin of ``width`` x ``height`` px.

    ``request``: its condition, with its mask as it is stored. ``scale_px``: the size at which the model's square, or a
    window, is decoded. ``windows``: of a canvas, in the units that are denoised.
    """

    request: ConditionRequest
    width: int
    height: int
    scale_px: int
    windows: Windows | None = None

    @classmethod
    def of(cls, spec: JobSpec, index: int, request: ConditionRequest, system: System) -> Drawing:
        """The drawing of sample ``index``."""
        width, height = spec.sides(index)
        if spec.canvas is not None:
            layout, side = spec.canvas, system.sample_shape[-1]
            unit = layout.window_px // side
            # the last pixels of a canvas that is no multiple of the unit are cut off
            overlap = min(side - 1, -(-layout.overlap_px // unit))
            windows = Windows(-(-height // unit), -(-width // unit), side, overlap, layout.weights)
            return cls(request, width, height, layout.window_px, windows)
        if spec.fit == "stretch":
            # the smallest that covers the twin, for nothing that the model draws shall be thrown away
            sizes = sorted(system.card.sizes_px)
            scale_px = next((size for size in sizes if size >= max(width, height)), sizes[-1])
            return cls(request, width, height, scale_px)
        return cls(request, width, height, width)

    def guidance_inputs(self, model: LoadedModel) -> GuidanceInputs | Sequence[GuidanceInputs]:
        """What the model sees of the request: once, or for each window. Raises what the system raises."""
        mask, square = self.request.mask, model.card.generation_size_px
        if mask is None or (self.windows is None and mask.indices.shape == (square, square)):
            return model.guidance_inputs(self.request)
        if self.windows is None:
            return model.guidance_inputs(self._with(mask.indices, mask.instances, square))
        side = self.windows.side
        fine = self.windows.scaled(self.scale_px // side)
        height, width = mask.indices.shape
        beyond = ((0, fine.height - height), (0, fine.width - width))
        whole = np.pad(mask.indices, beyond, mode="edge")
        numbered = None if mask.instances is None else np.pad(mask.instances, beyond, mode="edge")
        places = (fine.place(number) for number in range(len(fine)))
        return tuple(
            model.guidance_inputs(self._with(whole[place], None if numbered is None else numbered[place], square))
            for place in places
        )

    def twin(self, system: System, x0: Tensor) -> Twin:
        """The twin of a denoised sample ``(C, h, w)``."""
        if self.windows is None:
            [drawn] = system.decode(x0[None], self.scale_px)
            return stretched(drawn, self.width, self.height)
        [drawn] = system.decode(x0[None], self.scale_px, self.windows)
        place = slice(self.height), slice(self.width)
        mask, confidence = (None if part is None else part[place] for part in (drawn.mask, drawn.confidence))
        return Twin(drawn.image[place], mask, confidence)

    def _with(self, indices: np.ndarray, instances: np.ndarray | None, square: int) -> ConditionRequest:
        """The request with this part of its mask, at the model's square."""
        labels = majority_resize(indices, square)
        numbered = None if instances is None else resize_instances(instances, indices, labels)
        return replace(self.request, mask=MaskInput.of(np.ascontiguousarray(labels), numbered))


def stretched(twin: Twin, width: int, height: int) -> Twin:
    """The twin at another size: its image by bicubic interpolation, each pixel of its mask from the nearest one."""
    if twin.image.shape[:2] == (height, width):
        return twin
    pixels = torch.from_numpy(twin.image).permute(2, 0, 1)[None].float()
    image = F.interpolate(pixels, size=(height, width), mode="bicubic", align_corners=False, antialias=True)
    rows, columns = nearest(twin.image.shape[0], height), nearest(twin.image.shape[1], width)
    mask, confidence = (None if part is None else part[rows[:, None], columns] for part in (twin.mask, twin.confidence))
    return Twin(image[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy(), mask, confidence)


def nearest(length: int, wanted: int) -> np.ndarray:
    """For each of ``wanted`` places the nearest of ``length``, ``(wanted,)``."""
    return (np.arange(wanted) * 2 + 1) * length // (2 * wanted)
