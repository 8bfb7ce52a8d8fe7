"""Twinset from Python: ``from twinset import Twinset, AsyncTwinset``. All of it is in :mod:`service.client`."""

from __future__ import annotations

from service import __version__
from service.client import *  # noqa: F403 - what service.client says it offers, and no list of it kept twice
from service.client import __all__ as _offered

__all__ = ["__version__", *_offered]  # noqa: PLE0604
