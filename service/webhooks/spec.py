"""Where a job or a run says that it has ended."""

from __future__ import annotations

from pydantic import Field

from service.kit.frozen import _Frozen


class Callback(_Frozen):
    """Where to say that a job, or a run, has ended. It decides on nothing that is made."""

    url: str
    service_url: str = Field(description="the API's address as its clients know it, for the links in what is said")
