"""One step of a canvas: what its windows predict, averaged, and the DDIM step of the whole canvas after the last."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model_store.canvas.windows import Windows


@dataclass(eq=False)
class CanvasStep:
    """The windows of a canvas that are done in the present step.

    ``output`` ``(C, h, w)``: the sum of their weighted outputs. They are handed out and added in their order, however
    they are spread over forwards, so that the sum has the same bits in any company.
    """

    windows: Windows
    output: Tensor
    _next: int = 0
    _weights: tuple[Tensor, Tensor] | None = None

    def take(self) -> int | None:
        """The number of the next window of this step; None if all have been handed out."""
        if self._next == len(self.windows):
            return None
        self._next += 1
        return self._next - 1

    def add(self, number: int, output: Tensor) -> Tensor | None:
        """Adds the output ``(C, side, side)`` of window ``number``, after those before it.

        After the last one it returns the average ``(C, h, w)`` of the step, and the next step begins.
        """
        rows, columns = self.windows.place(number)
        self.output[:, rows, columns] += self._weight(number) * output
        if number + 1 < len(self.windows):
            return None
        average, self.output, self._next = self.output, torch.zeros_like(self.output), 0
        return average

    def _weight(self, number: int) -> Tensor:
        """:meth:`Windows.weight`, on the device: products of few bits each, and so the same there."""
        if self._weights is None:
            down, across = (torch.from_numpy(axis).to(self.output.device) for axis in self.windows.axis_weights)
            self._weights = down, across
        row, column = divmod(number, len(self.windows.lefts))
        return self._weights[0][row][:, None] * self._weights[1][column][None, :]
