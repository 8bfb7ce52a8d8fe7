"""The model card with its checks."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from model_store.card.parts import (
    CardLimits,
    ClassEntry,
    Defaults,
    Frozen,
    GuidanceTarget,
    InputName,
    PaletteRef,
    SamplerConvention,
    TextEncoderRef,
    WeightsFile,
)
from model_store.card.words import check_template, check_words, fill_template, join_words

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"


VERSION_PATTERN = r"^\d{1,6}\.\d{1,6}\.\d{1,6}$"


class ModelCard(Frozen):
    """The card of a model. ``card.id`` is ``name@version`` and never changes its meaning."""

    format: Literal[1] = 1
    name: str = Field(pattern=NAME_PATTERN)
    version: str = Field(pattern=VERSION_PATTERN)
    system: Literal["cosimgen", "siamese-diffusion", "pathdiff"]
    title: str
    description: str
    inputs: tuple[InputName, ...]
    input_sets: tuple[tuple[InputName, ...], ...] = Field(
        (), description="which inputs a request may give together; empty: each of `inputs`, alone"
    )
    guidance_targets: tuple[GuidanceTarget, ...] = Field((), description="those a request may choose from, if any")
    classes: tuple[ClassEntry, ...] = Field(min_length=2, max_length=255)
    palette: PaletteRef
    prompt_template: str = Field("A photo of {classes}", max_length=2000)
    example_prompts: tuple[str, ...] = Field(
        (), description="wordings that the model was trained with, the commonest first"
    )
    generation_size_px: int = Field(ge=8)
    sizes_px: tuple[int, ...] = Field(min_length=1)
    default_size_px: int
    sampler: SamplerConvention = SamplerConvention()
    defaults: Defaults = Defaults()
    limits: CardLimits = CardLimits()
    confidence_threshold: float = Field(
        0.1, ge=0, lt=1, description="mask pixels whose nearest colour leads the second by less are `ignore` (255)"
    )
    network: dict[str, Any] = Field(default_factory=dict)
    text_encoder: TextEncoderRef | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    training_data: tuple[dict[str, Any], ...] = ()
    measured: dict[str, Any] = Field(default_factory=dict)
    deviations: tuple[str, ...] = ()
    intended_use: str
    limits_of_use: str
    licence: str
    files: dict[str, WeightsFile] = Field(default_factory=dict)

    @field_validator("files")
    @classmethod
    def _only_plain_safetensors(cls, files: dict[str, WeightsFile]) -> dict[str, WeightsFile]:
        for name in files:
            if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,100}\.safetensors", name):
                raise ValueError(f"file {name!r} is not a plain *.safetensors name; weights are safetensors only")
        return files

    @field_validator("prompt_template")
    @classmethod
    def _only_classes_are_filled_in(cls, template: str) -> str:
        return check_template(template)

    @model_validator(mode="after")
    def _consistent(self) -> ModelCard:
        if [entry.index for entry in self.classes] != list(range(len(self.classes))):
            raise ValueError("classes must be listed by index 0, 1, 2, ... without a gap")
        check_words(self.classes)
        if self.palette.count != len(self.classes):
            raise ValueError(f"palette.count is {self.palette.count}, but there are {len(self.classes)} classes")
        if self.default_size_px not in self.sizes_px:
            raise ValueError(f"default_size_px {self.default_size_px} is not one of sizes_px {list(self.sizes_px)}")
        if any(size < self.generation_size_px or size % self.generation_size_px for size in self.sizes_px):
            raise ValueError(f"sizes_px {list(self.sizes_px)} must be multiples of {self.generation_size_px}")
        return self

    @model_validator(mode="after")
    def _inputs_fit_together(self) -> ModelCard:
        for chosen in self.input_sets:
            if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(self.inputs):
                raise ValueError(
                    f"input_sets has {list(chosen)}; each set takes one or more of {list(self.inputs)}, each once"
                )
            if "classes" in chosen and len(chosen) > 1:
                raise ValueError(
                    f"input_sets has {list(chosen)}; classes stand for a whole prompt, and are given alone"
                )
        if len({frozenset(chosen) for chosen in self.input_sets}) < len(self.input_sets):
            raise ValueError(f"input_sets lists a set twice: {[list(chosen) for chosen in self.input_sets]}")
        return self

    @model_validator(mode="after")
    def _guidance_target_is_listed(self) -> ModelCard:
        if len(set(self.guidance_targets)) < len(self.guidance_targets):
            raise ValueError(f"guidance_targets {list(self.guidance_targets)} names one twice")
        target = self.defaults.guidance_target
        if target is not None and target not in self.guidance_targets:
            raise ValueError(
                f"defaults.guidance_target {target!r} is not one of guidance_targets {list(self.guidance_targets)}"
            )
        return self

    @model_validator(mode="after")
    def _listed_colours_tell_classes_apart(self) -> ModelCard:
        if self.palette.kind == "listed":
            named: dict[tuple[int, int, int], str] = {}
            for entry in self.classes:
                if not all(0 <= channel <= 255 for channel in entry.colour):
                    raise ValueError(
                        f"the colour {list(entry.colour)} of {entry.name!r} must be three values of 0 to 255"
                    )
                if entry.colour in named:
                    raise ValueError(
                        f"{named[entry.colour]!r} and {entry.name!r} have the same colour {list(entry.colour)}"
                    )
                named[entry.colour] = entry.name
        return self

    @property
    def id(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"

    @property
    def queryable(self) -> tuple[str, ...]:
        """The names a request may ask for, in canonical order (by class index)."""
        return tuple(entry.name for entry in self.classes if entry.queryable)

    @property
    def accepted_inputs(self) -> tuple[tuple[InputName, ...], ...]:
        """The sets of inputs that a request may give."""
        return self.input_sets or tuple((name,) for name in self.inputs)

    @property
    def guidance_target(self) -> GuidanceTarget | None:
        """The target of guidance unless a request gives another; None if the model offers no choice."""
        return self.defaults.guidance_target or (self.guidance_targets[0] if self.guidance_targets else None)

    def makes_mask(self, given: Collection[str]) -> bool:
        """Whether an image made from the inputs ``given`` comes with a mask.

        A model that takes no masks, or that paints the classes it is asked for, makes its own. One that follows masks
        has the mask it was given, and none without it.
        """
        return "mask" not in self.inputs or "classes" in self.inputs or "mask" in given

    def find_class(self, word: str) -> ClassEntry | None:
        """The class that ``word`` names (by name or alias, whatever its case), or None."""
        folded = word.strip().casefold()
        for entry in self.classes:
            if folded == entry.name.casefold() or folded in (alias.casefold() for alias in entry.aliases):
                return entry
        return None

    def prompt_for(self, classes: Sequence[str]) -> str:
        """The prompt that stands for a set of classes, in canonical order: "A photo of roads, vegetation and water"."""
        wanted = {entry.index: entry for word in classes if (entry := self.find_class(word)) is not None}
        words = [wanted[index].phrase for index in sorted(wanted)]
        return fill_template(self.prompt_template, join_words(words))
