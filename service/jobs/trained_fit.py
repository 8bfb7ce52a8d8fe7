"""The fit that a model was trained with (``training.fit`` of its card), which requests without a fit have too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model_store.card import ModelCard
from service.jobs.request import CanvasRequest, GenerateRequest
from service.jobs.sizes import RECTANGLE_PATTERN, sides_of
from service.masks.mask_fit import fault_of_sides
from service.settings import Settings

Range = tuple[float, float]
"""The least and the greatest."""
SAME_SCALE = 1.1
"""Scales within this factor of each other count as the same."""
_Positive = Annotated[float, Field(gt=0)]


class TrainedScale(BaseModel):
    """Pixels of the network for one of an image, and metres for one of the network."""

    model_config = ConfigDict(frozen=True)

    px_per_image_px: tuple[_Positive, ...] | None = Field(None, min_length=1)
    metres_per_px: tuple[_Positive, ...] | None = Field(None, min_length=1)


class TrainedFit(BaseModel):
    """The fit of a model's training; all of it empty where the card does not say, or in another form."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["crop", "stretch", "tiles"] | None = None
    tile_px: int | None = Field(None, ge=1, description="side of a tile in the images' own pixels")
    native_sizes_px: dict[Annotated[str, Field(pattern=RECTANGLE_PATTERN)], int] = Field(
        default_factory=dict, description="the images by their WIDTHxHEIGHT"
    )
    window: Range | None = Field(None, description="levels of deep images that became black and white, if given")
    scale: TrainedScale = TrainedScale()

    @model_validator(mode="after")
    def _consistent(self) -> TrainedFit:
        if (self.kind == "tiles") != (self.tile_px is not None):
            raise ValueError("tiles have a tile_px, and no other fit has one")
        return self

    @classmethod
    def of(cls, card: ModelCard) -> TrainedFit:
        """Reads the card."""
        try:
            return cls.model_validate(card.training.get("fit", {}))
        except ValidationError:
            return cls()

    @property
    def native(self) -> str | None:
        """The size of most images."""
        sizes = self.native_sizes_px
        return max(sizes, key=lambda size: sizes[size], default=None)

    def window_px(self, card: ModelCard) -> int:
        """The window that shows as much as a training tile did, as nearly as the card's sizes allow."""
        if self.tile_px is None:
            return card.default_size_px
        return min(card.sizes_px, key=lambda size: abs(size - (self.tile_px or size)))

    def draws_canvases(self, card: ModelCard) -> bool:
        """Whether windows at the scale of masks are at the scale of training."""
        if self.tile_px is None:
            return False
        return 1 / SAME_SCALE <= self.window_px(card) / self.tile_px <= SAME_SCALE


def with_trained_fit(
    request: GenerateRequest, given: Sequence[str], card: ModelCard, settings: Settings
) -> GenerateRequest:
    """The request with the fit of the model's training, if it names none; as it is where the card does not say.

    A model of stretched images gives twins of their native size, or of each mask's; one of tiles at the masks' own
    scale draws canvases; one of centre squares takes those of masks. A square that the model makes stays one.
    """
    if request.fit is not None:
        return request
    trained, masked, sides = TrainedFit.of(card), "mask" in given, _sides(request)
    square = sides is not None and sides[0] == sides[1] and sides[0] in card.sizes_px
    changes: dict[str, Any] = {}
    if trained.kind == "crop" and masked and (request.size is None or square):
        changes["fit"] = "crop"
    elif trained.kind == "stretch" and not masked and request.size is None:
        native = _native_size(trained, settings)
        changes = {} if native is None else {"fit": "stretch", "size": native}
    elif trained.kind == "stretch" and (masked or not square):
        changes["fit"] = "stretch"
    elif trained.draws_canvases(card) and not square and (masked or request.size is not None):
        windows = {} if request.canvas is None else request.canvas.model_dump(exclude_none=True)
        changes = {"fit": "canvas", "canvas": CanvasRequest(**{"window_px": trained.window_px(card), **windows})}
    return request.model_copy(update=changes)


def _sides(request: GenerateRequest) -> tuple[int, int] | None:
    try:
        return None if request.size is None else sides_of(request.size)
    except ValueError:
        return None  # service.jobs.validate_fit adds the fault


def _native_size(trained: TrainedFit, settings: Settings) -> str | None:
    """The size of most training images, if a request may have it."""
    if trained.native is None:
        return None
    fault = fault_of_sides(*sides_of(trained.native), 0, settings.max_canvas_px)
    return trained.native if fault is None else None
