"""References to models, as people write them and as records keep them.

    polyps                the newest version: the tenant's own, or one of all tenants
    polyps@1.2.0          a version
    polyps@stable         the version that an alias stands for
    acme:polyps@1.2.0     a model that the tenant acme shares

A key names a version wherever the tenant is not known: ``polyps@1.2.0`` is a model of all tenants, and
``acme:polyps@1.2.0`` is one of acme's, for any tenant. Names, versions and aliases have forms that exclude each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model_store.card import NAME_PATTERN, VERSION_PATTERN
from service.kit.tenants import is_tenant

ALIAS_PATTERN = r"^[a-z][a-z0-9_-]{0,62}$"
ALIAS_FORM = "1 to 63 lower-case letters, digits, _ and -, the first a letter"
NAME_FORM = "1 to 63 lower-case letters, digits and hyphens, the first a letter or digit"
_NAME = re.compile(NAME_PATTERN.rstrip("$") + r"\Z")
_VERSION = re.compile(VERSION_PATTERN.rstrip("$") + r"\Z", re.ASCII)
_ALIAS = re.compile(ALIAS_PATTERN.rstrip("$") + r"\Z")


@dataclass(frozen=True)
class ModelReference:
    """A reference in its parts. At most one of ``version`` and ``alias`` is given."""

    name: str
    owner: str | None = None
    version: str | None = None
    alias: str | None = None


def parse_reference(text: str) -> ModelReference | None:
    """The reference; None for any other text."""
    owner, colon, rest = text.rpartition(":")
    name, at, chosen = rest.partition("@")
    if (colon and not is_tenant(owner)) or not is_model_name(name):
        return None
    known_owner = owner if colon else None
    if not at:
        return ModelReference(name, known_owner)
    if is_version(chosen):
        return ModelReference(name, known_owner, version=chosen)
    return ModelReference(name, known_owner, alias=chosen) if is_alias(chosen) else None


def model_key(owner: str | None, model: str) -> str:
    """The key of ``name@version`` of an owner."""
    return model if owner is None else f"{owner}:{model}"


def recorded_key(record: Mapping[str, Any]) -> str:
    """The key of the model that a stored request names by its members ``model`` and ``model_owner``."""
    return model_key(record.get("model_owner"), str(record["model"]).rpartition(":")[2])


def split_key(key: str) -> tuple[str | None, str, str]:
    """Owner, name and version of a key. Raises ValueError for any other text."""
    found = parse_reference(key)
    if found is None or found.version is None:
        raise ValueError(f"{key!r} is not name@version, or owner:name@version")
    return found.owner, found.name, found.version


def owner_named_in(text: str) -> str | None:
    """The owner that a reference names; None if it names none. The operator may use any tenant's model."""
    found = parse_reference(text)
    return None if found is None else found.owner


def is_model_name(text: str) -> bool:
    """Whether ``text`` has the form of a model's name."""
    return _NAME.match(text) is not None


def is_version(text: str) -> bool:
    """Whether ``text`` has the form of a version."""
    return _VERSION.match(text) is not None


def is_alias(text: str) -> bool:
    """Whether ``text`` has the form of an alias. No version has it."""
    return _ALIAS.match(text) is not None


def version_order(version: str) -> tuple[int, ...]:
    """Sort key of a version, by number: 1.10.0 comes after 1.9.0."""
    return tuple(int(part) for part in version.split("."))
