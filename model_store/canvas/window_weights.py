"""The kinds of weights of a canvas's windows, apart from their arithmetic, which needs numpy."""

from __future__ import annotations

from typing import Literal

WindowWeights = Literal["smooth", "uniform"]
"""``smooth``: a window counts most in its middle and almost nothing at its border. ``uniform``: the same everywhere, as
MultiDiffusion's paper has it."""
