"""Report on the scale of a set: how large its objects are beside the real ones, and what the model was trained on."""

from __future__ import annotations

from service.augmentations.plan_values import ScaleFigures
from service.augmentations.set_fit import SetFit
from service.jobs.trained_fit import SAME_SCALE, Range

_ENLARGED = 1.5
"""Twins that are so many times larger than what the model draws are visibly less sharp than real images."""
_FOREIGN = 1.5
"""A scale this many times off the training's is one that the model has not learnt."""
_EXAMPLE_PX = 40


def scale_figures(fit: SetFit) -> ScaleFigures:
    """The figures of a plan's scale."""
    return ScaleFigures(
        fit=fit.fit,
        size=fit.size,
        tile_px=fit.tile_px,
        window_px=None if fit.canvas is None else fit.canvas.window_px,
        twin_px_per_real_px=fit.scale,
        network_px_per_real_px=fit.drawn_scale,
        trained_px_per_image_px=fit.trained_scale,
    )


def scale_notes(fit: SetFit) -> list[str]:
    """Sentences on scales that differ from the real items' or from the training's, with both figures and a remedy."""
    notes, trained, drawn, twins = [], fit.trained_scale, fit.drawn_scale, _said(fit.scale)
    if not _same(fit.scale, (1.0, 1.0), SAME_SCALE):
        sides = _said((_EXAMPLE_PX * fit.scale[0], _EXAMPLE_PX * fit.scale[1]), digits=0)
        notes.append(
            f"Twins come at {twins} times the real items' scale: an object of {_EXAMPLE_PX} px has {sides} px in them, "
            f"so a mix of both teaches wrong sizes. Leave size {fit.size} out, and twins are as large as real items."
        )
    metres, trained_metres = fit.drawn_metres, fit.trained_metres
    if metres is not None and trained_metres is not None:
        if not _same(metres, trained_metres, _FOREIGN):
            notes.append(
                f"A pixel of the network stands for {_metres(metres)}, and stood for {_metres(trained_metres)} in "
                f"training: things may look wrong at that scale. {_remedy(fit)}"
            )
    elif trained is not None and not _same(drawn, trained, _FOREIGN):
        notes.append(
            f"The model draws {_said(drawn)} px for each of a real item, and was trained with {_said(trained)}: things "
            f"may look wrong at that scale. {_remedy(fit)}"
        )
    if fit.enlarged > _ENLARGED:
        notes.append(
            f"Twins have up to {fit.enlarged:.1f} times the sides of the model's largest square, which is "
            "stretched to them: they are less sharp than real images. A model trained with --fit tiles draws them at "
            "their own scale."
        )
    return notes


def _remedy(fit: SetFit) -> str:
    if fit.fit == "canvas":
        return "Give fit stretch or crop, or a model trained with --fit tiles at this scale."
    return "Leave fit and size out, or give a model trained on items of this size."


def _same(found: Range, expected: Range, factor: float) -> bool:
    return found[0] >= expected[0] / factor and found[1] <= expected[1] * factor


def _metres(scale: Range) -> str:
    unit, factor = ("m", 1.0) if scale[1] >= 0.001 else ("micrometres", 1e6)
    low, high = (f"{value * factor:.3g}" for value in scale)
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def _said(scale: Range, digits: int = 2) -> str:
    low, high = (f"{value:.{digits}f}" for value in scale)
    return low if low == high else f"{low} to {high}"
