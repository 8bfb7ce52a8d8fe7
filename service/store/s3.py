"""The object store on S3, or on anything that speaks its protocol, through boto3.

Retries are bounded and so are timeouts: a store that is down gives StoreUnavailable within two minutes, and the
caller, not this module, decides whether to come back. botocore tries again, with growing pauses at random, after
timeouts, resets, 5xx and SlowDown; every request here may be repeated. Bytes are checked on both ways: the store
compares Content-MD5 with what arrives, and what is read whole is compared with the sha256 that was stored along.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from service.errors import (
    ObjectDamaged,
    ObjectExists,
    ObjectNotFound,
    StoreUnavailable,
)
from service.store.base import (
    ObjectInfo,
    check_expiry,
    check_range,
    check_size,
)
from service.store.checked import (
    READS,
    checked_pieces,
    content_md5,
    file_digests,
    pause,
)
from service.store.keys import (
    check_key,
    check_prefix,
    check_start,
    is_key,
    is_part,
)
from service.store.keys import content_type as suffix_content_type
from service.store.s3_errors import (
    is_missing,
    is_out_of_range,
    is_taken,
    is_torn,
    is_unsettled,
    may_have_happened,
    unavailable,
)

READ_RESUMES = 3
"""Times that a broken download goes on from where it broke, before it counts as failed."""
WRITES = 3
"""Times that a write is sent which the store did not get whole, or could not settle with another."""
PAGE = 1000
"""Keys that S3 lists in one answer."""
WRITER = "twinset-writer"
SHA256 = "twinset-sha256"


class S3Store:
    """An ObjectStore in ``bucket``, below ``prefix``. Credentials come from where boto3 finds them.

    ``attempts`` bounds the tries at one request, ``timeout_s`` the wait for each of its answers.
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
        self.prefix = f"{check_key(prefix)}/" if prefix else ""
        self.endpoint_url = endpoint_url
        self._bucket_seen = False
        config: dict[str, Any] = {
            "signature_version": "s3v4",
            "retries": {"mode": "standard", "total_max_attempts": attempts},
            "connect_timeout": min(5.0, timeout_s),
            "read_timeout": timeout_s,
            "max_pool_connections": 64,
        }
        if endpoint_url:
            # Only AWS resolves bucket names as hosts, and only newer stores know its default checksums.
            config |= {
                "s3": {"addressing_style": "path"},
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            }
        session = boto3.session.Session()
        region = region or session.region_name or "us-east-1"

        def client(endpoint: str | None) -> Any:
            return session.client("s3", region_name=region, endpoint_url=endpoint, config=Config(**config))

        self._client = client(endpoint_url)
        self._signer = client(public_endpoint_url) if public_endpoint_url else self._client

    def __repr__(self) -> str:
        return f"S3Store('s3://{self.bucket}/{self.prefix}', endpoint_url={self.endpoint_url!r})"

    def put(self, key: str, data: bytes, *, content_type: str | None = None, if_absent: bool = False) -> ObjectInfo:
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
        try:
            answer = self._write(request)
        except (BotoCoreError, ClientError, ResponseParserError) as error:
            if not if_absent:
                raise self._unavailable(error) from error
            return self._settle(error, writer, key)
        # S3 does not say when it wrote; our clock is near enough until somebody asks it.
        return ObjectInfo(key, size, answer["ETag"].strip('"'), datetime.now(UTC))

    def get(self, key: str, *, start: int | None = None, end: int | None = None) -> bytes:
        first, last = check_range(start, end)
        if last == first:
            # S3 has no empty range; what is left of the question is whether the object is there.
            if self.head(key) is None:
                raise self._not_found(key)
            return b""
        for attempt in range(1, READS):
            try:
                return b"".join(self._read(key, 1 << 20, first, last))
            except ObjectDamaged:
                pause(attempt)  # read torn, most likely
        return b"".join(self._read(key, 1 << 20, first, last))

    def stream(self, key: str, *, chunk_bytes: int = 1 << 16) -> Iterator[bytes]:
        return self._read(key, chunk_bytes, 0, None)

    def head(self, key: str) -> ObjectInfo | None:
        found = self._head(key)
        return _info(key, found) if found is not None else None

    def list(self, prefix: str, *, start_after: str | None = None, limit: int | None = None) -> Iterator[ObjectInfo]:
        request: dict[str, Any] = {
            "Prefix": self.prefix + check_prefix(prefix),
            "MaxKeys": min(limit or PAGE, PAGE),
        }
        if check_start(start_after):
            request["StartAfter"] = f"{self.prefix}{start_after}"

        def found() -> Iterator[ObjectInfo]:
            for page in self._pages(request):
                for entry in page.get("Contents", ()):
                    key = entry["Key"][len(self.prefix) :]
                    if is_key(key):
                        yield _info(key, entry)

        return islice(found(), limit)

    def list_folders(self, prefix: str, *, start_after: str | None = None, limit: int | None = None) -> Iterator[str]:
        above = self.prefix + check_prefix(prefix, whole_parts=True)
        request: dict[str, Any] = {"Prefix": above, "Delimiter": "/", "MaxKeys": min(limit or PAGE, PAGE)}
        if check_start(start_after):
            # '0' follows '/': this is past all that lies in the folder and before every later folder.
            request["StartAfter"] = f"{above}{start_after}0"

        def found() -> Iterator[str]:
            for page in self._pages(request):
                for entry in page.get("CommonPrefixes", ()):
                    name = entry["Prefix"][len(above) : -1]
                    if is_part(name):
                        yield name

        return islice(found(), limit)

    def delete(self, key: str) -> None:
        try:
            self._call("delete_object", Key=self._full(key))
        except ClientError as error:
            if not is_missing(error):
                raise self._unavailable(error) from error

    def sign(self, key: str, *, expires_s: int, content_type: str | None = None, sha256: str | None = None) -> str:
        """A presigned URL; see ObjectStore. What it gives has ``content_type``, by default the suffix's.

        S3 serves it without us, so ``sha256`` is for the reader to compare.
        """
        request = {
            "Bucket": self.bucket,
            "Key": self._full(key),
            "ResponseContentType": content_type or suffix_content_type(key),
        }
        try:
            url: str = self._signer.generate_presigned_url(
                "get_object", Params=request, ExpiresIn=check_expiry(expires_s)
            )
        except BotoCoreError as error:
            raise self._unavailable(error) from error
        return url

    def check(self) -> None:
        """Raise StoreUnavailable unless the bucket answers us.

        Whether we may write to it, only a write can tell; readiness is asked too often to spend one on each.
        """
        try:
            self._call("head_bucket")
        except ClientError as error:
            raise self._unavailable(error) from error

    def _full(self, key: str) -> str:
        return self.prefix + check_key(key)

    def _call(self, operation: str, **request: Any) -> dict[str, Any]:
        """One request, retried by botocore. Raises ClientError if refused, StoreUnavailable if unanswered."""
        try:
            answer: dict[str, Any] = getattr(self._client, operation)(Bucket=self.bucket, **request)
        except (BotoCoreError, ResponseParserError) as error:
            raise self._unavailable(error) from error
        self._bucket_seen = True
        return answer

    def _write(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends a write; once more where the store got it torn, or has another one of the same name under way."""
        for attempt in range(1, WRITES + 1):
            if not isinstance(request["Body"], bytes):
                request["Body"].seek(0)
            try:
                answer: dict[str, Any] = self._client.put_object(Bucket=self.bucket, **request)
            except ClientError as error:
                if attempt == WRITES or not (is_unsettled(error) or is_torn(error)):
                    raise
            else:
                self._bucket_seen = True
                return answer
            pause(attempt)
        raise AssertionError("the last try returns or raises")

    def _settle(self, error: Exception, writer: str, key: str) -> ObjectInfo:
        """What became of a conditional write that ended in ``error``: its answer may have got lost after it took
        effect.

        The object then carries this very write's mark, whether the next try met it or there was none.
        """
        taken = isinstance(error, ClientError) and is_taken(error)
        retried = isinstance(error, ClientError) and error.response["ResponseMetadata"].get("RetryAttempts")
        if retried if taken else may_have_happened(error):
            try:
                found = self._head(key)
            except StoreUnavailable:
                raise self._unavailable(error) from error  # nobody can tell; whoever asks again will learn it
            if found is not None and found.get("Metadata", {}).get(WRITER) == writer:
                return _info(key, found)
            taken = taken or found is not None
        if taken:
            raise ObjectExists(f"{key} exists already in s3://{self.bucket}/{self.prefix}", key=key) from error
        raise self._unavailable(error) from error

    def _head(self, key: str) -> dict[str, Any] | None:
        try:
            return self._call("head_object", Key=self._full(key))
        except ClientError as error:
            if not is_missing(error):
                raise self._unavailable(error) from error
        if not self._bucket_seen:
            # To HEAD, S3 answers the same 404 for a missing bucket; that must not pass for a missing job.
            self.check()
        return None

    def _read(self, key: str, chunk_bytes: int, start: int, end: int | None) -> Iterator[bytes]:
        """The bytes in ``[start, end)``, asked for now and read piece by piece.

        Of a whole object, the last piece is given only if all of them have the sha256 that was stored along.
        """
        answer = self._open(key, start, end, None)
        recorded = answer.get("Metadata", {}).get(SHA256) if answer and not start and end is None else None

        def pieces() -> Iterator[bytes]:
            nonlocal answer
            at, resumes = start, 0
            while answer is not None:
                try:
                    with closing(answer["Body"]) as body:
                        for piece in body.iter_chunks(chunk_bytes):
                            at += len(piece)
                            yield piece
                    return
                except (BotoCoreError, OSError) as error:
                    resumes += 1
                    if resumes > READ_RESUMES:
                        raise self._unavailable(error) from error
                pause(resumes)
                answer = self._open(key, at, end, answer["ETag"])

        if recorded is None:
            return pieces()
        return checked_pieces(pieces(), recorded, key=key, where=f"s3://{self.bucket}/{self.prefix}")

    def _open(self, key: str, start: int, end: int | None, etag: str | None) -> dict[str, Any] | None:
        """The answer with the range, of the version ``etag`` if given; None where nothing lies in it."""
        if end is not None and start >= end:
            return None
        request: dict[str, Any] = {"Key": self._full(key)}
        if start or end is not None:
            request["Range"] = f"bytes={start}-" if end is None else f"bytes={start}-{end - 1}"
        if etag is not None:
            request["IfMatch"] = etag
        try:
            return self._call("get_object", **request)
        except ClientError as error:
            if is_missing(error):
                raise self._not_found(key) from error
            if is_out_of_range(error):
                return None
            raise self._unavailable(error) from error

    def _pages(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        token: dict[str, str] = {}
        while True:
            try:
                page = self._call("list_objects_v2", **request, **token)
            except ClientError as error:
                raise self._unavailable(error) from error
            yield page
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _not_found(self, key: str) -> ObjectNotFound:
        return ObjectNotFound(f"{key} is not in s3://{self.bucket}/{self.prefix}", key=key)

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        return unavailable(error, self.bucket, self.endpoint_url)


def _info(key: str, entry: dict[str, Any]) -> ObjectInfo:
    size = entry["Size"] if "Size" in entry else entry["ContentLength"]
    return ObjectInfo(key, size, entry["ETag"].strip('"'), entry["LastModified"].astimezone(UTC))
