"""Registration of a model: a card and its weights become a version, which never changes.

The order makes every crash harmless. The version's size is counted for its tenant; each file is referred to and stored
(:mod:`service.registry.weights`); the registration, with the card, makes the version exist. After a crash before it,
the same registration completes what is there, and the collector removes it if none comes within a day.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from model_store.card import CardInvalid, ModelCard, load_card
from service.errors import CardError, ModelConflict, ObjectNotFound, WeightsError
from service.registry.former_layout import former_versions
from service.registry.registration import Registration, is_deleted, read_registration
from service.registry.safetensors_header import check_safetensors
from service.registry.uses import add_use, model_user
from service.registry.versions import bundled_versions, reserved_for
from service.registry.weights import keep_weights, release_weights
from service.store import keys, model_keys
from service.store.base import ObjectStore
from service.store.immutable import put_once

_READ_BYTES = 1 << 20


def register(
    store: ObjectStore,
    card: ModelCard,
    files: Mapping[str, Path],
    *,
    tenant: str | None,
    candidate: bool = False,
    base: str | None = None,
    by: str | None = None,
    bundled: Path | None = None,
) -> tuple[Registration, bool]:
    """Registers a model for ``tenant``, or for all tenants if it is None; its record, and whether it is new.

    ``files`` are those that the card names. ``base`` is the key of the model that it was trained from, which cannot be
    deleted before it; ``by`` is the id of the API key or the run that registers it. A version that was reserved is
    registered by its run alone. Registering the same card and files again changes nothing, and stores again what has
    been lost. Raises :class:`CardError` or :class:`WeightsError` for what does not fit together,
    :class:`ModelConflict` if the version or the name is taken, :class:`UnknownModel` if the base was deleted, or a
    store's error; then no reader sees any of it, and the call may be repeated.
    """
    check_files(card, files)
    name, version = card.name, card.version
    existing = _existing(store, card, tenant)
    if existing is None:
        _check_free(store, name, version, tenant, by, bundled)
        if base is not None:
            add_use(store, base, model_user(tenant, name, version))
    if tenant is not None:
        # counted before it is there, so that no crash leaves bytes that nobody counts
        store.put(model_keys.tenant_model(tenant, name, version, _size(card)), b"")
    kept = {
        file: keep_weights(store, files[file], expected, owner=tenant, name=name, version=version)
        for file, expected in card.files.items()
    }
    record = Registration(
        owner=tenant,
        model=card.id,
        card=card,
        files=kept,
        candidate=candidate,
        base=base,
        registered_at=datetime.now(UTC),
        registered_by=by,
    )
    if put_once(store, model_keys.registration(tenant, name, version), record.model_dump_json().encode()):
        return record, True
    return _registered_before(store, record), False


def register_folder(
    folder: Path, store: ObjectStore, *, tenant: str | None, candidate: bool = False
) -> tuple[ModelCard, bool]:
    """Registers the model in a folder, as :func:`register` does; its card, and whether it is new."""
    card = read_model_folder(folder)
    record, is_new = register(
        store, card, {name: folder / name for name in card.files}, tenant=tenant, candidate=candidate
    )
    return record.card, is_new


def check_model_folder(folder: Path) -> ModelCard:
    """The card of a model folder, after a check of all its files. Raises :class:`CardError`, :class:`WeightsError`."""
    card = read_model_folder(folder)
    check_files(card, {name: folder / name for name in card.files})
    return card


def read_model_folder(folder: Path) -> ModelCard:
    """The card of a model folder. Raises :class:`CardError`."""
    try:
        return load_card(folder)
    except CardInvalid as error:
        raise CardError(str(error)) from None


def check_files(card: ModelCard, files: Mapping[str, Path]) -> None:
    """Checks that ``files`` are those of the card.

    Raises :class:`CardError` for a card without files, and :class:`WeightsError` for a file that is missing, of another
    length or sha256, or not safetensors.
    """
    if not card.files:
        raise CardError(f"the card of {card.id} names no files; a model has at least one *.safetensors under 'files'")
    for name, expected in card.files.items():
        path = files.get(name)
        if path is None or not path.is_file():
            raise WeightsError(f"{path or name} does not exist, but the card names it; export the model again")
        size = path.stat().st_size
        if size != expected.bytes:
            raise WeightsError(f"{path} has {size} bytes, but the card says {expected.bytes}; export the model again")
        found = file_sha256(path)
        if found != expected.sha256:
            raise WeightsError(
                f"{path} has sha256 {found}, but the card says {expected.sha256}; export the model again"
            )
        try:
            check_safetensors(path)
        except ValueError as error:
            raise WeightsError(f"{path} is not usable as weights: {error}") from None


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _size(card: ModelCard) -> int:
    return sum(file.bytes for file in card.files.values())


def _existing(store: ObjectStore, card: ModelCard, tenant: str | None) -> Registration | None:
    """The record of this very version. Raises :class:`ModelConflict` if it is another, or was deleted."""
    name, version = card.name, card.version
    record = read_registration(store, tenant, name, version)
    if record is not None:
        if is_deleted(store, tenant, name, version):
            raise ModelConflict(
                f"{card.id} was deleted, and a version is never given twice; give this model a higher version"
            )
        if record.card != card:
            raise _other_contents(card)
    return record


def _other_contents(card: ModelCard) -> ModelConflict:
    return ModelConflict(
        f"model {card.id} is already registered, and a version never changes; "
        "give the new one a higher version in its card.json"
    )


def _check_free(
    store: ObjectStore, name: str, version: str, tenant: str | None, by: str | None, bundled: Path | None
) -> None:
    """Raises :class:`ModelConflict` if the name or the version is taken."""
    reserved = reserved_for(store, tenant, name, version)
    if reserved is not None and reserved != by:
        raise ModelConflict(f"{name}@{version} is reserved for {reserved}; give this model a higher version")
    if tenant is None:
        if version in bundled_versions(name, bundled):
            raise ModelConflict(f"model {name}@{version} is bundled with Twinset; give this one a higher version")
        if version in former_versions(store, name):
            _check_same_as_former(store, name, version)
        return
    if is_name_of_all(store, name, bundled):
        raise ModelConflict(
            f"{name!r} is the name of a model of all tenants; give yours another name, such as {'my-' + name[:60]}"
        )


def is_name_of_all(store: ObjectStore, name: str, bundled: Path | None = None) -> bool:
    """Whether a model of all tenants has the name, which is then no tenant's own."""
    shared = next(iter(store.list_folders(model_keys.versions_prefix(None, name), limit=1)), None)
    return bool(bundled_versions(name, bundled) or shared is not None or former_versions(store, name))


def _check_same_as_former(store: ObjectStore, name: str, version: str) -> None:
    try:
        store.get(keys.model_card(name, version))
    except ObjectNotFound:
        return
    raise ModelConflict(
        f"model {name}@{version} is already registered, and a version never changes; "
        "give the new one a higher version in its card.json"
    )


def _registered_before(store: ObjectStore, record: Registration) -> Registration:
    """The record that another call wrote first. Raises :class:`ModelConflict` unless it has the same card.

    What this call stored is released, except for what that record needs.
    """
    owner, name, version = record.owner, record.card.name, record.card.version
    first = read_registration(store, owner, name, version)
    kept = () if first is None else tuple(first.files.values())
    hashes = {file.sha256 for file in record.card.files.values()}
    if owner is not None and (first is None or first.bytes != record.bytes):
        store.delete(model_keys.tenant_model(owner, name, version, record.bytes))
    release_weights(store, hashes, owner=owner, name=name, version=version, keep=kept)
    if first is None or first.card != record.card:
        raise _other_contents(record.card)
    if is_deleted(store, owner, name, version):
        raise ModelConflict(f"{record.model} was deleted a moment ago; give this model a higher version")
    return first
