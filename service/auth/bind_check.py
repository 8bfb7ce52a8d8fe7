"""Check of the address that an API listens on: without an API key it must be a loopback address."""

from __future__ import annotations

import ipaddress
import logging

from service.auth.key_store import KeyStore
from service.errors import SettingsError, StoreError
from service.settings import Settings
from service.store.base import ObjectStore

_log = logging.getLogger("twinset.access")


def is_loopback(address: str) -> bool:
    """Whether ``address`` is an IP address that only this machine can reach. False for a text of another form."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def require_keys(settings: Settings, store: ObjectStore, address: str) -> Settings:
    """The settings of an API whose socket is bound to ``address``.

    Raises :class:`SettingsError` if other machines could use the API without a key. On an address that other machines
    reach, ``auto`` becomes ``true``, so that nothing that happens to the store later opens the API. If the store does
    not answer yet, the API starts and requires keys.
    """
    if is_loopback(address):
        return settings
    if settings.require_keys == "false":
        _log.warning(
            "%s can be reached from other machines, and no API key is required: TWINSET_REQUIRE_KEYS=false", address
        )
        return settings
    try:
        has_keys = KeyStore(store).any()
    except StoreError as error:
        _log.warning(
            "API keys are required, but the store cannot be read, so all requests are refused until it can: %s",
            error.detail,
        )
        has_keys = True
    if not has_keys:
        raise SettingsError(
            f"{address} can be reached from other machines, and the store has no API key. Create one with "
            "'twinset keys create --tenant NAME', or listen on 127.0.0.1; if a proxy in front of the API authenticates "
            "requests, set TWINSET_REQUIRE_KEYS=false"
        )
    return settings.model_copy(update={"require_keys": "true"})
