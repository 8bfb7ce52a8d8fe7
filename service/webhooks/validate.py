"""A request's ``callback_url``, held against the rules before anything is accepted."""

from __future__ import annotations

from service.errors import SettingsError
from service.kit.validation import Faults
from service.settings import Settings
from service.webhooks.secrets import NO_SECRET, webhook_keys
from service.webhooks.spec import Callback
from service.webhooks.urls import UrlRefused, parse_target


def admit_callback(url: str | None, settings: Settings, faults: Faults) -> Callback | None:
    """The callback asked for, if one is; notes what is wrong with it.

    Where secrets are made by ourselves the first callback has it made, so that it can be read before the job ends.
    """
    if url is None:
        return None
    try:
        parse_target(url, private_allowed=settings.webhook_allow_private)
    except UrlRefused as refused:
        # the URL is not quoted: what is wrong with it may be that it holds a password
        faults.add_plain("/callback_url", f"callback_url is refused: {refused}")
    try:
        webhook_keys(settings)
    except SettingsError as error:
        if error.detail != NO_SECRET:
            raise
        faults.add_plain("/callback_url", f"callback_url cannot be taken: {NO_SECRET}; or leave it out")
    return Callback(url=url, service_url=settings.public_url)
