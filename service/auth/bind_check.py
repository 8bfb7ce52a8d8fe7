"""No key, no address but loopback: what ``twinset serve`` makes sure of before it answers anybody."""

from __future__ import annotations

import ipaddress
import logging

from service.auth.key_store import KeyStore
from service.errors import SettingsError, StoreError
from service.settings import Settings
from service.store.base import ObjectStore

_log = logging.getLogger("twinset.access")


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach a socket bound to ``address``, an IP address; an unknown form is not."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def require_keys(settings: Settings, store: ObjectStore, address: str) -> Settings:
    """The settings of an API whose socket is bound to ``address``. Raises :class:`SettingsError` if it would be open to
    others.

    On an address that others reach, ``auto`` becomes ``true``, so that nothing which happens to the store later opens
    it. A store that does not answer yet keeps no API from starting: it asks for keys, and has none to let anybody in
    by.
    """
    if is_loopback(address):
        return settings
    if settings.require_keys == "false":
        _log.warning(
            "%s can be reached from other machines, and no key is asked for: TWINSET_REQUIRE_KEYS=false", address
        )
        return settings
    try:
        has_keys = KeyStore(store).any()
    except StoreError as error:
        _log.warning("nobody is let in until the store tells of keys: %s", error.detail)
        has_keys = True
    if not has_keys:
        raise SettingsError(
            f"{address} can be reached from other machines, and the store has no API key that would tell them apart. Make "
            "one with 'twinset keys create --tenant NAME', or listen on 127.0.0.1; where something in front of the API "
            "lets in only those it should, set TWINSET_REQUIRE_KEYS=false"
        )
    return settings.model_copy(update={"require_keys": "true"})
