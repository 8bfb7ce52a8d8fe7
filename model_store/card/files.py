"""Reading and writing of ``card.json``."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from model_store.card.model_card import ModelCard


class CardInvalid(ValueError):
    """An invalid card; the message names the file, the field and what it should be."""


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
