"""Number types of the commands' options."""

from __future__ import annotations

import math
import re
from typing import Any

import click


class FiniteFloat(click.FloatRange):
    """A finite number, optionally within a range. Click's own type accepts ``nan``, which JSON cannot express."""

    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parses the number. Raises a usage error if it is invalid, ``nan``, ``inf`` or outside the range."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number

    def _describe_range(self) -> str:
        return "" if self.min is None and self.max is None else super()._describe_range()


# generic in click 8.4 and later, and not before
class SizeInPixels(click.ParamType):  # type: ignore[type-arg]
    """The side of a square in pixels, or WIDTHxHEIGHT; a number stays one."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Parses the size. Raises a usage error for anything else."""
        text = str(value).lower()
        if not re.fullmatch(r"[1-9][0-9]{0,5}(x[1-9][0-9]{0,5})?", text):
            self.fail(f"{value!r} is no size; give pixels, as 256, or WIDTHxHEIGHT, as 854x480.", param, ctx)
        return text if "x" in text else int(text)
