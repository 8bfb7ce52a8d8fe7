"""Image quality: peak signal-to-noise ratio, and the share of wrong mask pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model_store.card import IGNORE_INDEX


def psnr(a: np.ndarray, b: np.ndarray, value_range: float) -> float:
    """Peak signal-to-noise ratio in dB of two arrays whose values span ``value_range``; infinite if they are equal."""
    error = float(np.mean(np.square(a.astype(np.float64) - b.astype(np.float64))))
    return float("inf") if error == 0.0 else float(10.0 * np.log10(value_range**2 / error))


def error_rate(true: np.ndarray, predicted: np.ndarray, ignore: Sequence[int] = (IGNORE_INDEX,)) -> float:
    """The share of pixels with another class than the true one, pixels whose true class is in ``ignore`` left out."""
    counted = ~np.isin(true, list(ignore))
    return float((true[counted] != predicted[counted]).sum() / counted.sum()) if counted.any() else float("nan")
