"""The object store on S3, or on anything that speaks its protocol, through boto3.

Retries and timeouts are bounded: a store that is down gives StoreUnavailable within two minutes, and the caller, not
this module, decides whether to try again. Requests are in :mod:`service.store.s3_bucket`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from datetime import UTC
from itertools import islice
from pathlib import Path
from typing import IO, Any

from botocore.exceptions import ClientError

from service.errors import ObjectDamaged
from service.store.base import ObjectInfo, check_range, check_size
from service.store.checked import READS, content_md5, file_digests, pause
from service.store.keys import check_key, check_prefix, check_start, is_key, is_part
from service.store.keys import content_type as suffix_content_type
from service.store.s3_bucket import SHA256, WRITER, S3Bucket
from service.store.s3_errors import is_missing

PAGE = 1000
"""Keys in one answer to a listing."""


class S3Store:
    """An ObjectStore in ``bucket``, below ``prefix``, with the credentials that boto3 finds.

    ``attempts`` is the maximum number of tries of one request, ``timeout_s`` the wait for each answer.
    """

    def __init__(
        self,
        bucket: str,
        *,
        prefix: str = "",
        endpoint_url: str | None = None,
        public_endpoint_url: str | None = None,
        region: str | None = None,
        attempts: int = 4,
        timeout_s: float = 20.0,
    ) -> None:
        self.bucket = bucket
        self.endpoint_url = endpoint_url
        self.prefix = f"{check_key(prefix)}/" if prefix else ""
        self._bucket = S3Bucket(
            bucket,
            endpoint_url=endpoint_url,
            public_endpoint_url=public_endpoint_url,
            region=region,
            attempts=attempts,
            timeout_s=timeout_s,
            where=f"s3://{bucket}/{self.prefix}",
        )

    def __repr__(self) -> str:
        return f"S3Store('s3://{self.bucket}/{self.prefix}', endpoint_url={self.endpoint_url!r})"

    def put(
        self, key: str, data: bytes, *, content_type: str | None = None, if_absent: bool = False, flush: bool = True
    ) -> ObjectInfo:
        check_size(key, len(data))
        sha256, md5 = hashlib.sha256(data).hexdigest(), content_md5(data)
        return self._put(key, data, len(data), sha256, md5, content_type, if_absent)

    def put_file(
        self,
        key: str,
        path: Path,
        *,
        content_type: str | None = None,
        if_absent: bool = False,
        consume: bool = False,
    ) -> ObjectInfo:
        """Write a whole object from a file; see ObjectStore. The file is read twice, and stays."""
        check_key(key)
        with open(path, "rb") as file:
            size = check_size(key, os.fstat(file.fileno()).st_size)
            sha256, md5 = file_digests(file)
            return self._put(key, file, size, sha256, md5, content_type, if_absent)

    def _put(
        self,
        key: str,
        body: bytes | IO[bytes],
        size: int,
        sha256: str,
        md5: str,
        content_type: str | None,
        if_absent: bool,
    ) -> ObjectInfo:
        writer = secrets.token_hex(16)
        request: dict[str, Any] = {
            "Key": self._full(key),
            "Body": body,
            "ContentLength": size,
            "ContentType": content_type or suffix_content_type(key),
            "ContentMD5": md5,
            "Metadata": {SHA256: sha256, WRITER: writer},
        }
        if if_absent:
            request["IfNoneMatch"] = "*"
        etag, modified = self._bucket.write(request, key, if_absent=if_absent)
        return ObjectInfo(key, size, etag.strip('"'), modified.astimezone(UTC))

    def get(self, key: str, *, start: int | None = None, end: int | None = None) -> bytes:
        first, last = check_range(start, end)
        if last == first:
            # S3 has no empty range; only whether the object exists is left to check.
            if self.head(key) is None:
                raise self._bucket.not_found(key)
            return b""
        for attempt in range(1, READS):
            try:
                return b"".join(self._read(key, 1 << 20, first, last))
            except ObjectDamaged:
                pause(attempt)  # most likely overwritten while it was read
        return b"".join(self._read(key, 1 << 20, first, last))

    def stream(self, key: str, *, chunk_bytes: int = 1 << 16) -> Iterator[bytes]:
        return self._read(key, chunk_bytes, 0, None)

    def head(self, key: str) -> ObjectInfo | None:
        found = self._bucket.head(self._full(key))
        return _info(key, found) if found is not None else None

    def list(self, prefix: str, *, start_after: str | None = None, limit: int | None = None) -> Iterator[ObjectInfo]:
        request: dict[str, Any] = {
            "Prefix": self.prefix + check_prefix(prefix),
            "MaxKeys": min(limit or PAGE, PAGE),
        }
        if check_start(start_after):
            request["StartAfter"] = f"{self.prefix}{start_after}"

        def found() -> Iterator[ObjectInfo]:
            for page in self._bucket.pages(request):
                for entry in page.get("Contents", ()):
                    key = entry["Key"][len(self.prefix) :]
                    if is_key(key):
                        yield _info(key, entry)

        return islice(found(), limit)

    def list_folders(self, prefix: str, *, start_after: str | None = None, limit: int | None = None) -> Iterator[str]:
        above = self.prefix + check_prefix(prefix, whole_parts=True)
        request: dict[str, Any] = {"Prefix": above, "Delimiter": "/", "MaxKeys": min(limit or PAGE, PAGE)}
        if check_start(start_after):
            # '0' follows '/': this sorts after everything in the folder and before every later folder.
            request["StartAfter"] = f"{above}{start_after}0"

        def found() -> Iterator[str]:
            for page in self._bucket.pages(request):
                for entry in page.get("CommonPrefixes", ()):
                    name = entry["Prefix"][len(above) : -1]
                    if is_part(name):
                        yield name

        return islice(found(), limit)

    def delete(self, key: str) -> None:
        try:
            self._bucket.call("delete_object", Key=self._full(key))
        except ClientError as error:
            if not is_missing(error):
                raise self._bucket.unavailable(error) from error

    def sign(self, key: str, *, expires_s: int, content_type: str | None = None, sha256: str | None = None) -> str:
        """A presigned URL; see ObjectStore. It is served with ``content_type``, by default that of the key's suffix.

        S3 serves it, not this service, so ``sha256`` is for the reader to compare.
        """
        media_type = content_type or suffix_content_type(key)
        return self._bucket.sign(self._full(key), expires_s=expires_s, content_type=media_type)

    def check(self) -> None:
        """Raises StoreUnavailable unless the bucket answers.

        It does not write: readiness is checked too often to spend a write on each check.
        """
        self._bucket.check()

    def _full(self, key: str) -> str:
        return self.prefix + check_key(key)

    def _read(self, key: str, chunk_bytes: int, start: int, end: int | None) -> Iterator[bytes]:
        return self._bucket.read(self._full(key), key, chunk_bytes, start, end)


def _info(key: str, entry: dict[str, Any]) -> ObjectInfo:
    size = entry["Size"] if "Size" in entry else entry["ContentLength"]
    return ObjectInfo(key, size, entry["ETag"].strip('"'), entry["LastModified"].astimezone(UTC))
