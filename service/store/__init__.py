"""The object store, on S3 or in a folder, and the keys of all its objects.

base            the protocol that both stores implement
opening         from settings to a store
s3, s3_bucket, s3_errors                                 the store on S3
folder, folder_walk, drafts, adopt_file, disk_errors     the store in a folder
keys, run_keys, round_keys                               where everything lies
signing         links that the API serves itself
checked         reading and writing with checksums
immutable       objects under the hash of their bytes, and records that are written once
"""

from __future__ import annotations

from service.store.base import ObjectInfo, ObjectStore
from service.store.opening import open_store

__all__ = ["ObjectInfo", "ObjectStore", "open_store"]
