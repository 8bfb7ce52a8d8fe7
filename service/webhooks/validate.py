"""Validation of a request's ``callback_url``."""

from __future__ import annotations

from service.errors import SettingsError
from service.kit.validation import Faults
from service.settings import Settings
from service.webhooks.secrets import NO_SECRET, webhook_keys
from service.webhooks.spec import Callback
from service.webhooks.urls import UrlRefused, parse_target


def admit_callback(url: str | None, settings: Settings, faults: Faults) -> Callback | None:
    """The callback of a request, if it has one; what is wrong with it is recorded in ``faults``.

    Where the service creates its own webhook secret, the first callback creates it, so that it can be read before the
    job ends.
    """
    if url is None:
        return None
    try:
        parse_target(url, private_allowed=settings.webhook_allow_private)
    except UrlRefused as refused:
        # the URL is not quoted: it may contain a password
        faults.add_plain("/callback_url", f"callback_url is refused: {refused}")
    try:
        webhook_keys(settings)
    except SettingsError as error:
        if error.detail != NO_SECRET:
            raise
        faults.add_plain("/callback_url", f"callback_url cannot be taken: {NO_SECRET}; or leave it out")
    return Callback(url=url, service_url=settings.public_url)
