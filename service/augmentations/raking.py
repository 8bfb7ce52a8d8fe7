"""Raking: weights of masks whose weighted mean meets a target while changing the prior weights the least.

Survey statistics knows this as calibration by raking (Deville and Särndal, *Calibration Estimators in Survey Sampling*,
1992): of all weights that meet the target, those with the least Kullback-Leibler divergence from the prior. They are
``prior * exp(features @ slope)`` up to a factor, cut off where no weight may be larger, and ``slope`` solves a convex
problem with as many unknowns as there are targets, whatever the number of masks. If no weights meet the target, they
reach the nearest possible mean.
"""

from __future__ import annotations

import numpy as np

_SOFTNESS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""The penalty of a miss is increased step by step, each solution being the start of the next, for fast convergence."""
_MAX_STEPS = 60
_MAX_SOLVED_MASKS = 50_000
"""The slope is solved on at most so many masks, taking every n-th of more; a last solve uses all."""


def rake(
    features: np.ndarray,
    target: np.ndarray,
    scale: np.ndarray,
    prior: np.ndarray | None = None,
    *,
    max_weight: float = 1.0,
) -> np.ndarray:
    """Weights ``(P,)`` for which ``weights @ features`` is as near to ``target`` as possible.

    They add up to 1, and none is above ``max_weight``, which is raised if they could not add up to 1 otherwise.
    ``features`` ``(P, K)``, ``target`` ``(K,)``; a miss of ``scale`` ``(K,)`` costs the same in each component.
    ``prior`` ``(P,)``: the weights to change the least, equal ones if None; a mask with prior 0 gets weight 0. Raises
    ValueError if no mask has a prior weight.
    """
    prior = np.ones(len(features)) if prior is None else np.asarray(prior, dtype=np.float64)
    if not (able := prior > 0).any():
        raise ValueError("there is no mask to weigh")
    # centred on the target: at the solution the mean is 0, and no precision is lost in large exponents
    centred = (np.asarray(features, dtype=np.float64)[able] - target) / scale
    log_prior = np.log(prior[able] / prior.sum())
    cap = min(1.0, max(max_weight, 1 / len(centred)))
    slope = np.zeros(centred.shape[1])
    step = -(-len(centred) // _MAX_SOLVED_MASKS)
    for softness in _SOFTNESS:
        slope = _solve(centred[::step], log_prior[::step], slope, softness, min(1.0, cap * step))
    if step > 1:
        slope = _solve(centred, log_prior, slope, _SOFTNESS[-1], cap)
    weights = np.zeros(len(prior))
    weights[able] = _weights(centred @ slope + log_prior, cap)
    return weights


def effective_number(weights: np.ndarray) -> float:
    """The effective number of masks: the exponential of the weights' entropy, 1 to the number of masks."""
    taken = weights[weights > 0]
    return float(np.exp(-(taken * np.log(taken)).sum()))


def _solve(centred: np.ndarray, log_prior: np.ndarray, slope: np.ndarray, softness: float, cap: float) -> np.ndarray:
    """The slope that minimises the dual, by Newton's method starting at ``slope``.

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
    """Weights proportional to exp(exponents), none above ``cap``: the largest are cut, the others share the rest."""
    raised = np.exp(exponents - exponents.max())
    weights: np.ndarray = raised / raised.sum()
    if weights.max() <= cap:
        return weights
    order = np.argsort(-exponents, kind="stable")
    # in logarithms: the rest may be far too small to be added up
    rest = np.logaddexp.accumulate(exponents[order][::-1])[::-1]
    left = 1 - cap * np.arange(len(order))
    # exponents grow with the penalty of a miss, and so do the rounding errors of their differences
    fits = np.log(np.maximum(left, 1e-300)) + (exponents[order] - rest) <= np.log(cap) + 1e-9
    fits[-1] = True
    cut = int(np.argmax(fits))
    weights = np.empty(len(order))
    weights[order[:cut]] = cap
    others = np.exp(exponents[order[cut:]] - exponents[order[cut]])
    weights[order[cut:]] = others * (max(0.0, left[cut]) / others.sum())
    return weights
