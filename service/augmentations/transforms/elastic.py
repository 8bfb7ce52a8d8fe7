"""Elastic: the scene bent smoothly, neither torn nor folded.

A free-form deformation on cubic B-splines: control points on a grid are moved at random. As long as none is moved by
more than 0.48 of their spacing along an axis, the map is one to one (Choi and Lee, *Injectivity Conditions of 2D and 3D
Uniform Cubic B-Spline Functions*, 2000), so that what was one object stays one, up to the pixels' size.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from service.augmentations.transforms.base import Drawn, Strengths, TransformContext
from service.augmentations.transforms.sampling import sample

CELLS = 4
"""Of the grid along each side; control points lie one beyond it on either side."""
MOST = 0.48 / CELLS


class Elastic(Strengths):
    """Control points are moved evenly along both axes."""

    most: float = Field(
        0.06, ge=0, le=MOST, description=f"Most that a control point is moved, as a share of the side, 0..{MOST:g}."
    )

    def draw(self, labels: np.ndarray, rng: np.random.Generator, scene: TransformContext) -> Drawn | None:
        moves = np.round(rng.uniform(-self.most, self.most, (2, CELLS + 3, CELLS + 3)), 4)
        return {"moves": moves.tolist()} if moves.any() else None


def elastic(labels: np.ndarray, *, moves: list[list[list[float]]]) -> np.ndarray:
    """``(H, W)`` -> ``(H, W)``. ``moves`` ``(2, G, G)``: each control point's move along rows and columns, as shares of
    the sides.

    A pixel takes the label of where the bent grid finds it.
    """
    height, width = labels.shape
    grid = np.asarray(moves, dtype=np.float64)
    down, across = _basis(height, grid.shape[1]), _basis(width, grid.shape[2])
    rows = np.arange(height)[:, None] + height * (down @ grid[0] @ across.T)
    columns = np.arange(width)[None, :] + width * (down @ grid[1] @ across.T)
    return sample(labels, rows, columns)


def _basis(length: int, points: int) -> np.ndarray:
    """The weight ``(length, points)`` of each control point at each pixel: uniform cubic B-splines."""
    place = (np.arange(length) + 0.5) / length * (points - 3)
    cell = np.minimum(place.astype(int), points - 4)
    t = place - cell
    pieces = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    weights = np.zeros((length, points))
    for number, piece in enumerate(pieces):
        weights[np.arange(length), cell + number] = piece / 6
    return weights
