"""Keys of registered models. An owner is a tenant, or ``_shared`` for models of all tenants.

models/{owner}/{name}/{version}/registration.json   the card, where its files lie, who registered it: the commit
                                reserved.json       the version is kept for one run, which will register it
                                promoted.json       the candidate has been promoted
                                deleted.json        unknown from now on; the version is never given again
models/{name}/{version}/card.json  *.safetensors    the former layout, of models of all tenants
weights/{sha256}/{generation:04d}.safetensors       a file's bytes, stored once for all models that have them
                 {generation:04d}.for/{owner}/{name}/{version}   a model that needs them, from before its registration
                 {generation:04d}.closed            its bytes are being removed, or were; others use the next generation
aliases/{owner}/{name}/{alias}/{number:06d}.json    entry ``number`` of an alias' history; the last one counts
shares/by/{owner}/{name}/{tenant}                   the owner shares a model with a tenant, or with ``_all``
shares/with/{tenant}/{owner}/{name}                 the same, by the tenant that may use it: an index of the above
uses/{owner}/{name}/{version}/{id}                  a job, run or model that may need the version
tenants/{tenant}/models/{name}/{version}/{bytes}    the bytes of its files, for the tenant's stored bytes

``_shared`` and ``_all`` have a form that no tenant's name has.
"""

from __future__ import annotations

from service.store.keys import _checked_sha256

SHARED = "_shared"
ALL_TENANTS = "_all"


def owner_part(owner: str | None) -> str:
    """The owner's part in a key; ``None`` is the owner of models of all tenants."""
    return SHARED if owner is None else owner


def owner_of_part(part: str) -> str | None:
    """The owner that a part of a key stands for."""
    return None if part == SHARED else part


def owner_prefix(owner: str | None) -> str:
    return f"models/{owner_part(owner)}/"


def versions_prefix(owner: str | None, name: str) -> str:
    return f"models/{owner_part(owner)}/{name}/"


def registration(owner: str | None, name: str, version: str) -> str:
    """The record that makes the version exist. Written once, after its weights."""
    return f"models/{owner_part(owner)}/{name}/{version}/registration.json"


def reservation(owner: str | None, name: str, version: str) -> str:
    return f"models/{owner_part(owner)}/{name}/{version}/reserved.json"


def promotion(owner: str | None, name: str, version: str) -> str:
    return f"models/{owner_part(owner)}/{name}/{version}/promoted.json"


def deletion(owner: str | None, name: str, version: str) -> str:
    """The mark that the version is deleted. Its registration stays, so that the number is never given again."""
    return f"models/{owner_part(owner)}/{name}/{version}/deleted.json"


def all_weights_prefix() -> str:
    return "weights/"


def weights_prefix(sha256: str) -> str:
    return f"weights/{_checked_sha256(sha256)}/"


def weights(sha256: str, generation: int) -> str:
    """The bytes of a file of models."""
    return f"weights/{_checked_sha256(sha256)}/{generation:04d}.safetensors"


def weights_closed(sha256: str, generation: int) -> str:
    """The mark that no further model may refer to this generation."""
    return f"weights/{_checked_sha256(sha256)}/{generation:04d}.closed"


def weights_references_prefix(sha256: str, generation: int) -> str:
    return f"weights/{_checked_sha256(sha256)}/{generation:04d}.for/"


def weights_reference(sha256: str, generation: int, owner: str | None, name: str, version: str) -> str:
    """The entry of a model that needs the bytes; an empty object, only its key counts."""
    return f"{weights_references_prefix(sha256, generation)}{owner_part(owner)}/{name}/{version}"


def aliases_prefix() -> str:
    return "aliases/"


def aliases_of_name_prefix(owner: str | None, name: str) -> str:
    return f"aliases/{owner_part(owner)}/{name}/"


def alias_prefix(owner: str | None, name: str, alias: str) -> str:
    return f"aliases/{owner_part(owner)}/{name}/{alias}/"


def alias_entry(owner: str | None, name: str, alias: str, number: int) -> str:
    """Entry ``number`` (1, 2, ...) of the alias' history. Written once: of two writers, one gets the number."""
    return f"{alias_prefix(owner, name, alias)}{number:06d}.json"


def shares_by_prefix(owner: str, name: str) -> str:
    return f"shares/by/{owner}/{name}/"


def share_by(owner: str, name: str, tenant: str | None) -> str:
    """The record that the owner shares the model with a tenant; with all of them if ``tenant`` is None."""
    return f"shares/by/{owner}/{name}/{ALL_TENANTS if tenant is None else tenant}"


def shares_with_prefix(tenant: str | None) -> str:
    return f"shares/with/{ALL_TENANTS if tenant is None else tenant}/"


def share_with(tenant: str | None, owner: str, name: str) -> str:
    """The same share among those that the tenant may use; an empty object."""
    return f"{shares_with_prefix(tenant)}{owner}/{name}"


def uses_prefix(owner: str | None, name: str, version: str) -> str:
    return f"uses/{owner_part(owner)}/{name}/{version}/"


def use(owner: str | None, name: str, version: str, user: str) -> str:
    """The entry of a job, a run or a model that may need the version; an empty object."""
    return f"{uses_prefix(owner, name, version)}{user}"


def tenant_models_prefix(tenant: str) -> str:
    return f"tenants/{tenant}/models/"


def tenant_model(tenant: str, name: str, version: str, size: int) -> str:
    """The entry of a registered version, with the bytes of its files in the key."""
    return f"{tenant_models_prefix(tenant)}{name}/{version}/{size}"
