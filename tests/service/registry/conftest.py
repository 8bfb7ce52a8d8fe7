"""Both stores, for the tests of the registry."""

from __future__ import annotations

from tests.service.store.conftest import aws, bucket, folder_store, s3_endpoint, s3_store, store

__all__ = ["aws", "bucket", "folder_store", "s3_endpoint", "s3_store", "store"]
