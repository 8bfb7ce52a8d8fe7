"""Twinset from Python: ``from twinset import Twinset, AsyncTwinset``. All of it is in :mod:`service.client`."""

from __future__ import annotations

from service import __version__, client
from service.client import *  # noqa: F403 - what service.client offers, and no second list of it

__all__ = [*client.__all__, "__version__"]  # noqa: PLE0604
