"""Raking: weights of masks whose weighted mean meets a target, and which change the given weights the least.

Survey statistics knows this as calibration by raking (Deville and Särndal, *Calibration Estimators in Survey Sampling*,
1992): of all weights that meet the target, those with the least Kullback-Leibler divergence from the prior. They are
``prior * exp(features @ slope)`` up to a factor, cut off where no weight may be larger, and ``slope`` solves a convex
problem with as many unknowns as there are targets, whatever the number of masks. A target that no weights meet gets the
nearest mean that some reach.
"""

from __future__ import annotations

import numpy as np

_SOFTNESS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""What a miss of the target costs is made dearer step by step, each solution the start of the next: so the last one is
soon found."""
_MAX_STEPS = 60
_SOLVED_ON = 50_000
"""Masks that the slope is sought on; of more, every n-th, and all of them for the last touch."""


def rake(
    features: np.ndarray,
    target: np.ndarray,
    scale: np.ndarray,
    prior: np.ndarray | None = None,
    *,
    most: float = 1.0,
) -> np.ndarray:
    """Weights ``(P,)``, adding up to 1 and each at most ``most``, so that ``weights @ features`` is ``target`` as far
    as that can be.

    ``features`` ``(P, K)``, ``target`` ``(K,)``; a miss of ``scale`` ``(K,)`` weighs the same in each. ``prior``
    ``(P,)`` are the weights that are changed the least, all alike if None; what has none gets none. A ``most`` that
    would leave weights short of 1 is raised until it does not. Raises ValueError without a mask of any weight.
    """
    prior = np.ones(len(features)) if prior is None else np.asarray(prior, dtype=np.float64)
    if not (able := prior > 0).any():
        raise ValueError("there is no mask to weigh")
    # about the target, so that at the solution the mean is 0 and no precision is lost in large exponents
    centred = (np.asarray(features, dtype=np.float64)[able] - target) / scale
    log_prior = np.log(prior[able] / prior.sum())
    cap = min(1.0, max(most, 1 / len(centred)))
    slope = np.zeros(centred.shape[1])
    step = -(-len(centred) // _SOLVED_ON)
    for softness in _SOFTNESS:
        slope = _solve(centred[::step], log_prior[::step], slope, softness, min(1.0, cap * step))
    if step > 1:
        slope = _solve(centred, log_prior, slope, _SOFTNESS[-1], cap)
    weights = np.zeros(len(prior))
    weights[able] = _weights(centred @ slope + log_prior, cap)
    return weights


def effective_number(weights: np.ndarray) -> float:
    """How many masks of equal weight are as many as these: the exponential of the weights' entropy, 1 to their
    number."""
    taken = weights[weights > 0]
    return float(np.exp(-(taken * np.log(taken)).sum()))


def _solve(centred: np.ndarray, log_prior: np.ndarray, slope: np.ndarray, softness: float, cap: float) -> np.ndarray:
    """The slope that minimises the dual, by Newton's method from ``slope`` on.

    The dual is max over weights of (weights @ centred) @ slope - KL(weights, prior), plus softness / 2 |slope|^2.
    """
    weights, value = _dual(centred, log_prior, slope, softness, cap)
    for _ in range(_MAX_STEPS):
        gradient = weights @ centred + softness * slope
        free = np.where(weights < cap * (1 - 1e-12), weights, 0.0)
        mass = max(float(free.sum()), 1e-300)
        mean = free @ centred
        curvature = (centred * free[:, None]).T @ centred - np.outer(mean, mean) / mass
        direction = np.linalg.solve(curvature + softness * np.eye(len(slope)), gradient)
        decrement = float(gradient @ direction)
        if decrement < 1e-12:
            break
        length = 1.0
        while True:
            tried = slope - length * direction
            weights_there, value_there = _dual(centred, log_prior, tried, softness, cap)
            if value_there <= value - 1e-4 * length * decrement or length < 1e-6:
                break
            length /= 2
        if value_there >= value:
            break
        slope, weights, value = tried, weights_there, value_there
    return slope


def _dual(
    centred: np.ndarray, log_prior: np.ndarray, slope: np.ndarray, softness: float, cap: float
) -> tuple[np.ndarray, float]:
    """The weights of a slope, and the dual's value there."""
    exponents = centred @ slope + log_prior
    weights = _weights(exponents, cap)
    taken = weights > 0
    value = float((weights[taken] * (exponents[taken] - np.log(weights[taken]))).sum())
    return weights, value + softness / 2 * float(slope @ slope)


def _weights(exponents: np.ndarray, cap: float) -> np.ndarray:
    """Weights in proportion to exp(exponents), but none above ``cap``: the largest are cut, and the others share what
    is left."""
    raised = np.exp(exponents - exponents.max())
    weights = raised / raised.sum()
    if weights.max() <= cap:
        return weights
    order = np.argsort(-exponents, kind="stable")
    # in logarithms: what the others share among them may be far too small to add up
    rest = np.logaddexp.accumulate(exponents[order][::-1])[::-1]
    left = 1 - cap * np.arange(len(order))
    # exponents are as large as a miss is dear, and so is the rounding of their differences
    fits = np.log(np.maximum(left, 1e-300)) + (exponents[order] - rest) <= np.log(cap) + 1e-9
    fits[-1] = True
    cut = int(np.argmax(fits))
    weights = np.empty(len(order))
    weights[order[:cut]] = cap
    others = np.exp(exponents[order[cut:]] - exponents[order[cut]])
    weights[order[cut:]] = others * (max(0.0, left[cut]) / others.sum())
    return weights
