"""The callback of a job or a run, as its spec records it."""

from __future__ import annotations

from pydantic import Field

from service.kit.frozen import _Frozen


class Callback(_Frozen):
    """The URL that is called when a job or a run has ended. It has no influence on the results."""

    url: str
    service_url: str = Field(description="the API's public address, for the links in the payload")
