"""Model card: all that a model declares about itself, and all that the service knows of a model.

The card is a frozen value. It fixes the classes and their colours, the sizes, the sampler convention (spacing, offset,
final alpha and clipping change the image that a seed gives), the limits a request is checked against, and where the
model comes from. It is read without torch.
"""

from __future__ import annotations

from model_store.card.files import CardInvalid, load_card, parse_card, write_card
from model_store.card.model_card import NAME_PATTERN, VERSION_PATTERN, ModelCard
from model_store.card.parts import (
    IGNORE_INDEX,
    CardLimits,
    ClassEntry,
    Defaults,
    GuidanceTarget,
    InputName,
    PaletteRef,
    SamplerConvention,
    TextEncoderRef,
    WeightsFile,
)
from model_store.card.words import NamedClass, check_words, join_words

__all__ = [
    "IGNORE_INDEX",
    "NAME_PATTERN",
    "VERSION_PATTERN",
    "CardInvalid",
    "CardLimits",
    "ClassEntry",
    "Defaults",
    "GuidanceTarget",
    "InputName",
    "ModelCard",
    "NamedClass",
    "PaletteRef",
    "SamplerConvention",
    "TextEncoderRef",
    "WeightsFile",
    "check_words",
    "join_words",
    "load_card",
    "parse_card",
    "write_card",
]
