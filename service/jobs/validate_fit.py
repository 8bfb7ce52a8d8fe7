"""Checks of a request's size, fit and canvas against the model's card, and how its masks are brought to that size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from model_store.card import ModelCard
from service.jobs.request import CanvasRequest
from service.jobs.sizes import CanvasParameters, Fit, sides_of, size_of
from service.kit.validation import Faults, join_list
from service.masks.mask_fit import MaskFit, fault_of_sides
from service.settings import Settings

MAX_OVERLAP = 0.75
"""The largest part of a window's side by which windows overlap: each pixel is then in 16 of them."""
_FITS = "stretch (drawn as a square) or canvas (drawn as large as it is, by windows)"


@dataclass(frozen=True)
class Fitted:
    """Size, fit and windows of a job, every default filled in, and the fit of its masks."""

    size: int | str | None
    fit: Fit | None
    canvas: CanvasParameters | None
    masks: MaskFit


class FitRequest(Protocol):
    """A request with a size and a fit: of a job, or of an augmentation set."""

    @property
    def size(self) -> int | str | None: ...
    @property
    def fit(self) -> Fit | None: ...
    @property
    def canvas(self) -> CanvasRequest | None: ...


def check_fit(request: FitRequest, given: Sequence[str], card: ModelCard, settings: Settings, faults: Faults) -> Fitted:
    """The fit of a request. Adds what is wrong to ``faults``; the values are to be used only if there are none."""
    sides = _sides(request, faults)
    if request.canvas is not None and request.fit != "canvas":
        faults.add_plain("/canvas", f"canvas is about windows, and fit is {request.fit or 'left out'}; give fit canvas")
    if request.fit == "crop" and "mask" not in given:
        faults.add("fit", "crop", "it cuts the centre square out of masks, and none is given; leave fit out")
    if request.fit in (None, "crop"):
        side = _square(request.fit, sides, card, faults)
        return Fitted(side, request.fit, None, MaskFit(request.fit, side, side))
    if sides is None and request.size is None and "mask" not in given:
        faults.add_plain("/size", f"fit is {request.fit}, and nothing says how large; give size, as 854x480")
    canvas = _canvas(request.canvas or CanvasRequest(), card, faults) if request.fit == "canvas" else None
    window_px = 0 if canvas is None else canvas.window_px
    if sides is not None and (fault := fault_of_sides(*sides, window_px, settings.max_canvas_px)):
        faults.add_plain("/size", f"size is {fault}")
        sides = None
    width, height = sides or (None, None)
    size = None if sides is None else size_of(*sides)
    return Fitted(size, request.fit, canvas, MaskFit(request.fit, width, height, window_px, settings.max_canvas_px))


def _sides(request: FitRequest, faults: Faults) -> tuple[int, int] | None:
    """(width, height) of the request; None without a size, and for a text that says none."""
    if request.size is None:
        return None
    try:
        sides = sides_of(request.size)
    except ValueError:
        faults.add("size", request.size, "give the side of a square in pixels, or WIDTHxHEIGHT as 854x480")
        return None
    return sides


def _square(fit: Fit | None, sides: tuple[int, int] | None, card: ModelCard, faults: Faults) -> int:
    """The side of the model's square that is asked for, one of the card's sizes."""
    if sides is None:
        return card.default_size_px
    width, height = sides
    sizes = join_list([str(size) for size in card.sizes_px])
    if width != height:
        why = "fit crop gives squares" if fit == "crop" else "it is no square, and without fit twins are"
        faults.add("size", size_of(width, height), f"{why}; take one of {sizes} px, or fit {_FITS}")
        return card.default_size_px
    if width not in card.sizes_px:
        remedy = "" if fit == "crop" else f", or give fit: {_FITS}"
        faults.add("size", width, f"{card.id} makes {sizes} px; take one of these{remedy}")
        return card.default_size_px
    return width


def _canvas(asked: CanvasRequest, card: ModelCard, faults: Faults) -> CanvasParameters:
    window_px = asked.window_px if asked.window_px is not None else card.default_size_px
    if window_px not in card.sizes_px:
        sizes = join_list([str(size) for size in card.sizes_px])
        faults.add_plain("/canvas/window_px", f"canvas.window_px is {window_px}; {card.id} makes {sizes} px, take one")
    overlap_px = asked.overlap_px if asked.overlap_px is not None else window_px // 2
    limit = int(window_px * MAX_OVERLAP)
    if not 0 <= overlap_px <= limit:
        remedy = f"windows of {window_px} px overlap by 0 to {limit} px, and by {window_px // 2} if it is left out"
        faults.add_plain("/canvas/overlap_px", f"canvas.overlap_px is {overlap_px}; {remedy}")
    return CanvasParameters.model_construct(window_px=window_px, overlap_px=overlap_px, weights=asked.weights)
