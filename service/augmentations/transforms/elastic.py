"""Elastic: a smooth deformation that neither tears nor folds the mask.

A free-form deformation on cubic B-splines: control points on a grid are moved at random. As long as none is moved by
more than 0.48 of their spacing along an axis, the map is one to one (Choi and Lee, *Injectivity Conditions of 2D and 3D
Uniform Cubic B-Spline Functions*, 2000), so that an object stays connected, up to the size of a pixel.
"""

from __future__ import annotations

import numpy as np

from service.augmentations.transforms.base import Segmentation, TransformArguments, TransformContext
from service.augmentations.transforms.parameters import ELASTIC_CELLS, Elastic
from service.augmentations.transforms.sampling import sample


def draw_elastic(
    parameters: Elastic, segmentation: Segmentation, rng: np.random.Generator, context: TransformContext
) -> TransformArguments | None:
    """What :func:`elastic` should do with ``segmentation`` ``(H, W)``; None for nothing."""
    moves = np.round(
        rng.uniform(
            -parameters.max_displacement, parameters.max_displacement, (2, ELASTIC_CELLS + 3, ELASTIC_CELLS + 3)
        ),
        4,
    )
    return {"moves": moves.tolist()} if moves.any() else None


def elastic(segmentation: Segmentation, *, moves: list[list[list[float]]]) -> Segmentation:
    """``(H, W)`` -> ``(H, W)``: each pixel takes the label at its displaced position.

    ``moves`` ``(2, G, G)``: each control point's displacement along rows and columns, as a share of the sides.
    """
    height, width = segmentation.shape
    grid = np.asarray(moves, dtype=np.float64)
    down, across = _basis(height, grid.shape[1]), _basis(width, grid.shape[2])
    rows = np.arange(height)[:, None] + height * (down @ grid[0] @ across.T)
    columns = np.arange(width)[None, :] + width * (down @ grid[1] @ across.T)
    return sample(segmentation, rows, columns)


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
