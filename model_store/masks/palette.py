"""The F-RGB palette: class colours spread over the RGB cube by the golden angle (CoSimGen, section 4).

The paper names the palette and not its formula. Ours, version 1, is a Fibonacci sphere inscribed in the cube: for class
``i`` of ``K``, ``z = 1 - 2 (i + 1/2) / K`` and ``phi = i * pi * (3 - sqrt 5)``, mapped from [-1, 1]^3 to [0, 255]^3.
"""

from __future__ import annotations

import math

import numpy as np

GOLDEN_ANGLE = math.pi * (3.0 - math.sqrt(5.0))
PALETTE_KIND = "fibonacci-rgb"
PALETTE_VERSION = 1


def fibonacci_rgb(count: int) -> np.ndarray:
    """The colours of ``count`` classes, as a ``(count, 3)`` uint8 array; all differ.

    Raises ValueError unless 2 <= count <= 255 (class 255 is the mask's `ignore`).
    """
    if not 2 <= count <= 255:
        raise ValueError(f"a palette holds 2 to 255 classes, not {count}")
    index = np.arange(count, dtype=np.float64)
    z = 1.0 - 2.0 * (index + 0.5) / count
    radius = np.sqrt(1.0 - z * z)
    phi = index * GOLDEN_ANGLE
    unit = np.stack([radius * np.cos(phi), radius * np.sin(phi), z], axis=1)
    return np.rint((unit + 1.0) * 127.5).astype(np.uint8)


def least_distance(colours: np.ndarray) -> float:
    """The least Euclidean distance between two of ``(K, 3)`` colours, in 8-bit steps (0..441.7)."""
    points = colours.astype(np.float64)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    return float(distances[np.triu_indices(len(points), 1)].min())


def paint(mask: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Paints class indices ``(..., H, W)`` with ``(K, 3)`` colours -> ``(..., H, W, 3)`` float32 in [-1, 1].

    A pixel of no class (255, or any index of K or more) is painted mid-grey, equally far from every colour of the
    sphere, so that it decodes to no class with confidence. Network inputs are painted by this function.
    """
    table = np.zeros((256, 3), dtype=np.float32)
    table[: len(colours)] = colours.astype(np.float32) / 127.5 - 1.0
    painted: np.ndarray = table[mask]
    return painted


def nearest_class(painted: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The inverse of :func:`paint`: ``(..., H, W, 3)`` in [-1, 1] -> nearest colours' indices ``(..., H, W)`` uint8."""
    points = colours.astype(np.float32) / 127.5 - 1.0
    # |x - p|^2 up to |x|^2, which is the same for every p
    scores = np.square(points).sum(axis=1) - 2.0 * painted.astype(np.float32) @ points.T
    nearest: np.ndarray = scores.argmin(axis=-1)
    return nearest.astype(np.uint8)
