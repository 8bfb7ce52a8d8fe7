"""The secrets that sign webhooks: from the setting, or created on first use in the data folder.

The default tenant's webhooks are signed with these directly, those of other tenants with a key derived from secret and
tenant: anyone who can check a signature can also make one, so two tenants must not share a key.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from service.errors import SettingsError
from service.kit.tenants import DEFAULT_TENANT
from service.kit.webhook_secrets import new_secret, parse_secrets
from service.settings import Settings
from service.store.signing import load_or_create_secret

SECRET_FILE = "webhook-secret"
NO_SECRET = (
    "webhooks are signed, and this service has no secret to sign them with; set TWINSET_WEBHOOK_SECRET "
    "to the same value for the API and its workers"
)


def webhook_keys(settings: Settings) -> tuple[bytes, ...]:
    """The keys of all active secrets. Raises :class:`SettingsError` where there are none, or they cannot be read.

    A secret is created only beside a folder store, whose API and workers share the data folder. On S3 each process
    would create its own, and receivers could not check signatures.
    """
    if settings.webhook_secret is not None:
        return parse_secrets(settings.webhook_secret.get_secret_value())
    if not settings.store_url.startswith("file:"):
        raise SettingsError(NO_SECRET)
    path = settings.data_dir / SECRET_FILE
    text = load_or_create_secret(
        path, make=new_secret, name="webhook secret", setting="TWINSET_WEBHOOK_SECRET"
    ).decode()
    try:
        return parse_secrets(text)
    except ValueError as error:
        raise SettingsError(
            f"the webhook secret at {path} is not valid: {error}; or delete it to get a new one"
        ) from None


def tenant_keys(keys: Sequence[bytes], tenant: str) -> tuple[bytes, ...]:
    """The keys that sign a tenant's webhooks: ``keys`` for the default tenant, else 32-byte keys derived from them."""
    if tenant == DEFAULT_TENANT:
        return tuple(keys)
    return tuple(hmac.new(key, f"twinset-callback-v1:{tenant}".encode(), hashlib.sha256).digest() for key in keys)
