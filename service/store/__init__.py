"""Where results lie: one object store, on S3 or in a folder, and the keys of everything in it."""

from __future__ import annotations

from .base import ObjectInfo, ObjectStore
from .opening import open_store

__all__ = ["ObjectInfo", "ObjectStore", "open_store"]
