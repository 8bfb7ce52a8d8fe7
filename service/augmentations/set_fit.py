"""How the twins of a set get their size: at the scale of the real items, unless the request says otherwise.

A model was trained at a scale: so many pixels of its network for one of an image (``training.fit`` of its card). A twin
is drawn from a part of a real mask at a scale like that, and given back at the part's own size. So its objects have the
size in pixels that the real ones have, and what the model draws looks like what it has seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from model_store.card import ModelCard
from service.jobs.sizes import CanvasParameters, Fit, Size, sides_of, size_of
from service.jobs.trained_fit import Range, TrainedFit
from service.jobs.validate_fit import FitRequest, check_fit
from service.kit.frozen import _Frozen
from service.kit.validation import Faults
from service.masks.png_file import MIN_SIDE_PX
from service.settings import Settings

Sides = tuple[int, int]
"""(width, height) in pixels."""


class SetFit(_Frozen):
    """The decided fit of a set.

    ``fit`` crop takes a square of each item: with ``tile_px`` one of that side, else of its shorter side; the others
    take all of it. Without a ``size``, the twin is as large as that part. ``drawn_size`` is the size of the twins of a
    model that draws masks itself.
    """

    fit: Fit
    size: Size | None
    canvas: CanvasParameters | None = None
    tile_px: int | None = None
    drawn_size: Size
    scale: Range = Field(description="pixels of a twin for one of its real item, the least and the most")
    drawn_scale: Range = Field(description="pixels of the network for one of the real item")
    enlarged: float = Field(description="times by which the model's largest square is stretched to a twin, at most")
    trained_scale: Range | None = Field(description="pixels of the network for one of a training image, from the card")
    drawn_metres: Range | None = Field(None, description="metres to a pixel of the network, if the dataset says")
    trained_metres: Range | None = Field(None, description="the same in training, from the card")

    def job_members(self, *, mask: bool) -> dict[str, Any]:
        """Size, fit and windows as a generation job takes them, given masks at the twins' size or none."""
        size = self.size if mask else self.drawn_size
        if self.fit == "crop" and isinstance(self.size, int):
            return {"size": self.size}
        fit: Fit = "canvas" if self.fit == "canvas" else "stretch"
        members: dict[str, Any] = {"fit": fit} if size is None else {"fit": fit, "size": size}
        if self.canvas is not None:
            members["canvas"] = self.canvas.model_dump()
        return members

    def scale_of(self, width: int, height: int) -> list[float]:
        """Pixels of the twin for one of a real item of these sides, along both."""
        if self.size is None:
            return [1.0, 1.0]
        wide, tall = sides_of(self.size)
        if self.fit == "crop":
            width = height = min(width, height, self.tile_px or width)
        return [round(wide / width, 4), round(tall / height, 4)]


def decide_fit(
    request: FitRequest,
    card: ModelCard,
    sizes: Sequence[Sides],
    settings: Settings,
    faults: Faults,
    *,
    metres_per_px: float | None = None,
) -> SetFit:
    """The fit of a set of items with these ``sizes``, and ``metres_per_px`` if known. Adds what is wrong to ``faults``.

    Without ``fit`` and ``size``: a model of tiles at the items' own scale draws canvases as large as they are. Other
    models draw squares of what they were trained on, or the whole item if that was stretched; they are given back at
    the size that they have in the item.
    """
    trained = TrainedFit.of(card)
    fit, size, tile_px = request.fit, request.size, None
    if fit is None and size is None and request.canvas is None:
        fit, tile_px = _native(card, trained, sizes, settings)
    canvas = None
    if request.fit is not None or size is not None or request.canvas is not None:
        checked = check_fit(request, ("mask",), card, settings, faults)
        size = None if size is None else checked.size
        canvas = None if request.canvas is None else checked.canvas
    fit = fit or "crop"
    if fit == "canvas" and canvas is None:
        window_px = trained.window_px(card)
        canvas = CanvasParameters(window_px=window_px, overlap_px=window_px // 2, weights="smooth")
    if fit == "crop" and size is None:
        tile_px = tile_px or trained.tile_px
    parts = [_part(fit, tile_px, each) for each in sizes] or [(card.default_size_px, card.default_size_px)]
    if fit == "crop" and size is None and len(set(parts)) == 1 and parts[0][0] in card.sizes_px:
        size = parts[0][0]  # the model's own square
    if size is None:
        _check_parts(fit, parts, canvas, settings, faults)
    twins = parts if size is None else [sides_of(size)] * len(parts)
    drawn = _drawn(card, canvas, parts, twins)
    metres = None if metres_per_px is None else _range([[metres_per_px / each for each in drawn]])
    counted = Counter(parts)
    return SetFit(
        fit=fit,
        size=size,
        canvas=canvas,
        tile_px=tile_px,
        drawn_size=size if size is not None else size_of(*max(counted, key=lambda part: counted[part])),
        scale=_range([wide / part[0], tall / part[1]] for part, (wide, tall) in zip(parts, twins, strict=True)),
        enlarged=1.0 if canvas is not None else round(max(max(map(max, twins)) / max(card.sizes_px), 1.0), 4),
        drawn_scale=drawn,
        trained_scale=_known(trained.scale.px_per_image_px),
        drawn_metres=metres,
        trained_metres=_known(trained.scale.metres_per_px),
    )


def _native(card: ModelCard, trained: TrainedFit, sizes: Sequence[Sides], settings: Settings) -> tuple[Fit, int | None]:
    """The fit that keeps the scale, and the side of tiles."""
    if trained.kind == "stretch":
        return "stretch", None
    if trained.tile_px is None:
        return "crop", None
    window_px = trained.window_px(card)
    fits = all(
        min(each) >= window_px and max(each) <= settings.max_mask_px and each[0] * each[1] <= settings.max_canvas_px
        for each in sizes
    )
    if fits and trained.draws_canvases(card):
        return "canvas", None
    return "crop", trained.tile_px


def _part(fit: Fit, tile_px: int | None, sides: Sides) -> Sides:
    """The part of an item that its twin shows, in the item's own pixels."""
    if fit != "crop":
        return sides
    side = min(*sides, tile_px or min(sides))
    return side, side


def _drawn(card: ModelCard, canvas: CanvasParameters | None, parts: Sequence[Sides], twins: Sequence[Sides]) -> Range:
    """Pixels of the network for one of a real item: of its whole part, or of a window of the twin."""
    base = card.generation_size_px
    if canvas is None:
        return _range([base / width, base / height] for width, height in parts)
    return _range(
        [base / canvas.window_px * wide / width, base / canvas.window_px * tall / height]
        for (width, height), (wide, tall) in zip(parts, twins, strict=True)
    )


def _known(values: tuple[float, ...] | None) -> Range | None:
    return None if values is None else _range([values])


def _range(pairs: Any) -> Range:
    values = [value for pair in pairs for value in pair]
    return float(f"{min(values):.4g}"), float(f"{max(values):.4g}")


def _check_parts(
    fit: Fit, parts: Sequence[Sides], canvas: CanvasParameters | None, settings: Settings, faults: Faults
) -> None:
    """Adds a fault for items whose twins would be too small or too large at their own size."""
    least, what = (canvas.window_px, "window") if canvas is not None else (MIN_SIDE_PX, "twin")
    small = min(parts, key=min)
    large = max(parts, key=lambda each: each[0] * each[1])
    long = max(parts, key=max)
    where = "/fit"
    if min(small) < least:
        detail = f"fit is {fit}, and an item is {small[0]} x {small[1]} px: less than a {what} of {least} px"
        faults.add_plain(where, f"{detail}; give a size, or another fit, or leave such items out with splits")
    if large[0] * large[1] > settings.max_canvas_px:
        detail = f"fit is {fit}, and an item is {large[0]} x {large[1]} px; a twin has {settings.max_canvas_px} at most"
        faults.add_plain(where, f"{detail} (TWINSET_MAX_CANVAS_PX); give a size, or cut the items into tiles")
    elif max(long) > settings.max_mask_px:
        detail = (
            f"fit is {fit}, and an item is {long[0]} x {long[1]} px; a mask's side is {settings.max_mask_px} at most"
        )
        faults.add_plain(where, f"{detail} (TWINSET_MAX_MASK_PX); give a size, or cut the items into tiles")
