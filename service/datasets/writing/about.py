"""Information for an export's card that its items do not hold: title, models, parameters, training data."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from model_store.card import ModelCard
from service.kit.frozen import _Frozen


class TrainingData(_Frozen):
    """A dataset that a model was trained on; its licence may bind the images generated from it."""

    name: str
    licence: str = "not stated"


class ModelAbout(_Frozen):
    """A model that generated items, as its card describes it."""

    id: str = Field(description="name@version")
    title: str = ""
    licence: str = "not stated"
    intended_use: str = ""
    limits_of_use: str = ""
    training_data: tuple[TrainingData, ...] = ()

    @classmethod
    def of_card(cls, card: ModelCard) -> ModelAbout:
        """The card's fields that an export's card repeats."""
        # a card lists a dataset for each of its uses
        data = dict.fromkeys(
            TrainingData(name=str(entry.get("name", "unnamed")), licence=str(entry.get("licence", "not stated")))
            for entry in card.training_data
        )
        return cls(
            id=card.id,
            title=card.title,
            licence=card.licence,
            intended_use=card.intended_use,
            limits_of_use=card.limits_of_use,
            training_data=tuple(data),
        )


class ExportAbout(_Frozen):
    """The title, models, parameters and seeds of an export.

    ``parameters`` are those that all synthetic items share; ``real_data`` are the datasets of the real items.
    """

    title: str = "Image-mask pairs"
    models: tuple[ModelAbout, ...] = ()
    parameters: dict[str, Any] = Field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    real_data: tuple[TrainingData, ...] = ()
    notes: tuple[str, ...] = ()
