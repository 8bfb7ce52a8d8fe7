"""Model card: all that a model declares about itself, and all that the service knows of a model.

The card is a frozen value. It fixes the classes and their colours, the sizes, the sampler convention (spacing, offset,
final alpha and clipping change the image that a seed gives), the limits a request is checked against, and where the
model comes from. It is read without torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
VERSION_PATTERN = r"^\d{1,6}\.\d{1,6}\.\d{1,6}$"
IGNORE_INDEX = 255
"""Mask value of a pixel that belongs to no class with confidence; never a class index."""

InputName = Literal["prompt", "classes", "mask"]
GuidanceTarget = Literal["text", "mask", "joint"]
"""What guidance strengthens, by leaving it out on the other side: the text, the mask, or both."""


class CardInvalid(ValueError):
    """An invalid card; the message names the file, the field and what it should be."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ClassEntry(_Frozen):
    """One class: its index in the mask (0..254), its name, and its colour in the painted mask (RGB, 0..255)."""

    index: int = Field(ge=0, le=254)
    name: str = Field(min_length=1, max_length=120)
    colour: tuple[int, int, int]
    queryable: bool = Field(True, description="false for a class that no request may name (unlabelled background)")
    aliases: tuple[str, ...] = Field((), description="other words for the class, accepted in requests")

    @property
    def phrase(self) -> str:
        """The words for this class in a prompt: its first alias, or its name."""
        return self.aliases[0] if self.aliases else self.name


class PaletteRef(_Frozen):
    """The palette that paints masks; ``fibonacci-rgb`` version 1 is :func:`model_store.masks.palette.fibonacci_rgb`.

    ``listed`` has no formula: the colours are those of the classes, as in the dataset.
    """

    kind: Literal["fibonacci-rgb", "listed"] = "fibonacci-rgb"
    version: int = 1
    count: int = Field(ge=2, le=255)


class SamplerConvention(_Frozen):
    """The DDIM convention, with the field names of diffusers' ``DDIMScheduler``.

    Each field changes the image that a seed gives.
    """

    schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    beta_start: float = Field(1e-4, description="not read by squaredcos_cap_v2, the cosine schedule")
    beta_end: float = 2e-2
    train_timesteps: int = 1000
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    timestep_spacing: Literal["leading", "trailing", "linspace"] = "trailing"
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    clip_sample: bool = True
    clip_sample_range: float = 1.0


class Defaults(_Frozen):
    """The values of a request's parameters that it does not give."""

    steps: int = 50
    guidance_scale: float = 1.0
    eta: float = 0.0
    guidance_target: GuidanceTarget | None = None


class CardLimits(_Frozen):
    """The range a request's values must lie in."""

    steps_min: int = 1
    steps_max: int = 1000
    guidance_min: float = 0.0
    guidance_max: float = 20.0
    max_prompt_tokens: int = 256


class TextEncoderRef(_Frozen):
    """The frozen text encoder, by name; its weights are not part of the model folder."""

    name: str
    dims: int
    max_tokens: int
    chunks: int = Field(1, ge=1, description="chunks of tokens that are read one after another")
    weights_sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="of an encoder that the user brings"
    )


class WeightsFile(_Frozen):
    """A file of the model folder and its fingerprint."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class ModelCard(_Frozen):
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
    prompt_template: str = "A photo of {classes}"
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
        return self.prompt_template.format(classes=join_words(words))


class NamedClass(Protocol):
    """The part of a class that :func:`check_words` reads."""

    @property
    def name(self) -> str: ...

    @property
    def aliases(self) -> Sequence[str]: ...


def check_words(classes: Iterable[NamedClass]) -> None:
    """Raises ValueError if a word, in any case, names two classes: a request with it could mean either."""
    spoken: dict[str, str] = {}
    for entry in classes:
        for word in {entry.name.casefold(), *(alias.casefold() for alias in entry.aliases)}:
            if word in spoken:
                raise ValueError(f"{word!r} names both {spoken[word]!r} and {entry.name!r}")
            spoken[word] = entry.name


def join_words(words: Sequence[str]) -> str:
    """``["a", "b", "c"]`` -> ``"a, b and c"``."""
    if len(words) <= 1:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def parse_card(text: str | bytes, *, where: str) -> ModelCard:
    """Reads a card from JSON text. Raises :class:`CardInvalid` naming ``where`` and each wrong field."""
    try:
        return ModelCard.model_validate(json.loads(text))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'card'}: {e['msg']}" for e in error.errors())
        raise CardInvalid(f"{where} is not a model card: {wrong}") from None
    except ValueError as error:
        raise CardInvalid(f"{where} is not a model card: it is not JSON ({error})") from None


def load_card(folder: Path) -> ModelCard:
    """Reads ``folder/card.json``. Raises :class:`CardInvalid` if it is missing or wrong."""
    path = folder / "card.json"
    if not path.is_file():
        raise CardInvalid(f"{path} does not exist; a model folder holds card.json and its *.safetensors")
    return parse_card(path.read_bytes(), where=str(path))


def write_card(folder: Path, card: ModelCard) -> None:
    """Writes ``card.json`` atomically, indented for reading."""
    fresh = folder / "card.tmp"
    fresh.write_text(json.dumps(card.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    fresh.replace(folder / "card.json")
