"""The scale at which a model was trained, for its card: the fit, the native sizes of its images, pixels and metres."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from workers.data.fit import Fit

_COUNTED_SIZES = 3


def scale_about(
    fit: Fit,
    size_px: int,
    sizes: np.ndarray,
    metres_per_px: float | None,
    window: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """What ``training.fit`` of a card holds, for images of ``sizes`` ``(N, 2)``, (width, height).

    ``window`` has the levels of deep images that became black and white, if they were given.
    """
    counted = Counter(f"{width}x{height}" for width, height in sizes.tolist())
    scale: dict[str, Any] = {"px_per_image_px": _scales(fit, size_px, sizes)}
    if metres_per_px is not None:
        scale["image_metres_per_px"] = metres_per_px
        scale["metres_per_px"] = [metres_per_px / each for each in scale["px_per_image_px"]]
    return {
        **fit.model_dump(mode="json", exclude_defaults=True, exclude={"kind"}),
        "kind": fit.kind,
        "size_px": size_px,
        "native_sizes_px": dict(sorted(counted.items(), key=lambda item: -item[1])[:_COUNTED_SIZES]),
        **({} if window is None else {"window": list(window)}),
        "other_native_sizes": max(0, len(counted) - _COUNTED_SIZES),
        "scale": scale,
    }


def _scales(fit: Fit, size_px: int, sizes: np.ndarray) -> list[float]:
    """Pixels of the network for one of an image, the least and the most; along both sides, if it is stretched."""
    if (scale := fit.scale(size_px)) is not None:
        return [scale] * 2
    sides = sizes if fit.kind == "stretch" else sizes.min(axis=1)
    return [round(size_px / int(sides.max()), 6), round(size_px / int(sides.min()), 6)]
