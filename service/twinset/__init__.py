"""Import name of the Python client: ``from twinset import Twinset, AsyncTwinset``. See :mod:`service.client`."""

from __future__ import annotations

from service import __version__, client
from service.client import *  # noqa: F403 - exports exactly what service.client does

__all__ = [*client.__all__, "__version__"]
