"""Where results lie: one object store, on S3 or in a folder, and the keys of everything in it."""

from __future__ import annotations

from service.store.base import ObjectInfo, ObjectStore
from service.store.opening import open_store

__all__ = ["ObjectInfo", "ObjectStore", "open_store"]
