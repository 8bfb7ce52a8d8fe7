"""Registration of a model: a folder with a card and weights becomes a version in the store, which never changes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from model_store.card import CardInvalid, ModelCard, load_card
from service.errors import CardError, ObjectExists, StoreError, UnknownModel, WeightsError
from service.registry.catalogue import Catalogue
from service.store import keys
from service.store.base import ObjectStore

_READ_BYTES = 1 << 20


def check_model_folder(folder: Path) -> ModelCard:
    """The card of a model folder, after a check that the folder has the files that the card names.

    Raises :class:`CardError` for the card, :class:`WeightsError` for a file that is missing, of another length or of
    another sha256.
    """
    try:
        card = load_card(folder)
    except CardInvalid as error:
        raise CardError(str(error)) from None
    if not card.files:
        raise CardError(f"{folder / 'card.json'} names no files; a model has at least one *.safetensors under 'files'")
    for name, expected in card.files.items():
        path = folder / name
        if not path.is_file():
            raise WeightsError(f"{path} does not exist, but the card names it; export the model again")
        size = path.stat().st_size
        if size != expected.bytes:
            raise WeightsError(f"{path} has {size} bytes, but the card says {expected.bytes}; export the model again")
        found = file_sha256(path)
        if found != expected.sha256:
            raise WeightsError(
                f"{path} has sha256 {found}, but the card says {expected.sha256}; export the model again"
            )
    return card


def register(folder: Path, store: ObjectStore, catalogue: Catalogue) -> tuple[ModelCard, bool]:
    """Copies a model folder into the store, weights first and card last, so that no reader sees half a model.

    Returns the card, and whether it is new: registering the same version again changes nothing. Raises what
    :func:`check_model_folder` does, and :class:`ObjectExists` if the store has the version with other contents.
    """
    card = check_model_folder(folder)
    known = _known(catalogue, card.id)
    if known is not None:
        if known == card:
            return card, False
        raise ObjectExists(
            f"model {card.id} is already registered, and a version never changes; "
            f"give the new one a higher version in {folder / 'card.json'}"
        )
    for name, expected in card.files.items():
        key = keys.model_file(card.name, card.version, name)
        try:
            store.put(key, (folder / name).read_bytes(), if_absent=True)
        except ObjectExists:
            # From a registration that stopped before it wrote the card, or from one that runs now.
            if hashlib.sha256(store.get(key)).hexdigest() != expected.sha256:
                raise ObjectExists(
                    f"{key} is in the store with other bytes, from a registration of {card.id} that was not completed; "
                    "delete it there, or give this model another version"
                ) from None
    card_key = keys.model_card(card.name, card.version)
    try:
        store.put(card_key, (folder / "card.json").read_bytes(), if_absent=True)
    except ObjectExists:
        raise ObjectExists(
            f"{card_key} was registered by another process a moment ago; see 'twinset models show'"
        ) from None
    return card, True


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _known(catalogue: Catalogue, ref: str) -> ModelCard | None:
    try:
        return catalogue.resolve(ref)
    except UnknownModel:
        return None
    except CardError as error:
        raise StoreError(f"{ref} is registered with a broken card: {error.detail}; take another version") from None
