"""Requests to one S3 bucket: bounded retries, writes that settle conflicts, reads that resume.

botocore retries timeouts, resets, 5xx and SlowDown, with growing random pauses; every request here may be repeated.
Both directions are checked: the store compares Content-MD5 with the bytes that arrive, and an object that is read whole
is compared with the sha256 stored in its metadata.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from service.errors import ObjectExists, ObjectNotFound, StoreUnavailable
from service.store.base import check_expiry
from service.store.checked import checked_pieces, pause
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
"""How often a broken download is resumed before it counts as failed."""
WRITES = 3
"""How often a write is sent that arrived damaged, or that conflicts with another one in progress."""
WRITER = "twinset-writer"
SHA256 = "twinset-sha256"


class S3Bucket:
    """A bucket at an endpoint. Errors of S3 and of the network leave it as the store's errors.

    ``attempts`` is the maximum number of tries of one request, ``timeout_s`` the wait for each answer.
    """

    def __init__(
        self,
        name: str,
        *,
        endpoint_url: str | None,
        public_endpoint_url: str | None,
        region: str | None,
        attempts: int,
        timeout_s: float,
        where: str,
    ) -> None:
        self.name = name
        self.endpoint_url = endpoint_url
        self._where = where
        self._seen = False
        config: dict[str, Any] = {
            "signature_version": "s3v4",
            "retries": {"mode": "standard", "total_max_attempts": attempts},
            "connect_timeout": min(5.0, timeout_s),
            "read_timeout": timeout_s,
            "max_pool_connections": 64,
        }
        if endpoint_url:
            # Only AWS resolves bucket names as hosts, and only newer stores support its default checksums.
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

    def call(self, operation: str, **request: Any) -> dict[str, Any]:
        """One request, retried by botocore. Raises ClientError if refused, StoreUnavailable if unanswered."""
        try:
            answer: dict[str, Any] = getattr(self._client, operation)(Bucket=self.name, **request)
        except (BotoCoreError, ResponseParserError) as error:
            raise self.unavailable(error) from error
        self._seen = True
        return answer

    def write(self, request: dict[str, Any], key: str, *, if_absent: bool) -> tuple[str, datetime]:
        """Sends a write. Returns the new object's ETag and time.

        Raises ObjectExists (``if_absent`` only) and StoreUnavailable.
        """
        try:
            # S3 does not return the time of the write; this machine's clock is close enough until head() is called.
            return self._send(request)["ETag"], datetime.now(UTC)
        except (BotoCoreError, ClientError, ResponseParserError) as error:
            if not if_absent:
                raise self.unavailable(error) from error
            written = self._settle(error, request["Metadata"][WRITER], request["Key"], key)
            return written["ETag"], written["LastModified"]

    def head(self, full_key: str) -> dict[str, Any] | None:
        """S3's answer to HEAD; None where there is no such object."""
        try:
            return self.call("head_object", Key=full_key)
        except ClientError as error:
            if not is_missing(error):
                raise self.unavailable(error) from error
        if not self._seen:
            # S3 answers HEAD with the same 404 for a missing bucket, which must not be taken for a missing job.
            self.check()
        return None

    def check(self) -> None:
        """Raises StoreUnavailable unless the bucket answers."""
        try:
            self.call("head_bucket")
        except ClientError as error:
            raise self.unavailable(error) from error

    def read(self, full_key: str, key: str, chunk_bytes: int, start: int, end: int | None) -> Iterator[bytes]:
        """The bytes in ``[start, end)``: requested at the call, read piece by piece, resumed where a connection breaks.

        Of a whole object, the last piece comes only if the bytes have the sha256 stored with them.
        """
        answer = self._open(full_key, key, start, end, None)
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
                        raise self.unavailable(error) from error
                pause(resumes)
                answer = self._open(full_key, key, at, end, answer["ETag"])

        if recorded is None:
            return pieces()
        return checked_pieces(pieces(), recorded, key=key, where=self._where)

    def pages(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The pages of a listing."""
        token: dict[str, str] = {}
        while True:
            try:
                page = self.call("list_objects_v2", **request, **token)
            except ClientError as error:
                raise self.unavailable(error) from error
            yield page
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def sign(self, full_key: str, *, expires_s: int, content_type: str) -> str:
        """A presigned URL for GET, at the public endpoint where there is one."""
        request = {"Bucket": self.name, "Key": full_key, "ResponseContentType": content_type}
        try:
            url: str = self._signer.generate_presigned_url(
                "get_object", Params=request, ExpiresIn=check_expiry(expires_s)
            )
        except BotoCoreError as error:
            raise self.unavailable(error) from error
        return url

    def not_found(self, key: str) -> ObjectNotFound:
        """The error for a key without an object."""
        return ObjectNotFound(f"{key} is not in {self._where}", key=key)

    def unavailable(self, error: Exception) -> StoreUnavailable:
        """The store's error for one of botocore's."""
        return unavailable(error, self.name, self.endpoint_url)

    def _send(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends a write; again where it arrived damaged, or another write of the same key was in progress."""
        for attempt in range(1, WRITES + 1):
            if not isinstance(request["Body"], bytes):
                request["Body"].seek(0)
            try:
                answer: dict[str, Any] = self._client.put_object(Bucket=self.name, **request)
            except ClientError as error:
                if attempt == WRITES or not (is_unsettled(error) or is_torn(error)):
                    raise
            else:
                self._seen = True
                return answer
            pause(attempt)
        raise AssertionError("the last try returns or raises")

    def _settle(self, error: Exception, writer: str, full_key: str, key: str) -> dict[str, Any]:
        """The answer to HEAD for a conditional write that ended in ``error`` but took effect.

        The answer may have been lost after the write took effect. The object then carries this write's mark, whether
        botocore's retry found the key taken or there was no retry. Raises ObjectExists or StoreUnavailable.
        """
        taken = isinstance(error, ClientError) and is_taken(error)
        retried = isinstance(error, ClientError) and error.response["ResponseMetadata"].get("RetryAttempts")
        if retried if taken else may_have_happened(error):
            try:
                found = self.head(full_key)
            except StoreUnavailable:
                raise self.unavailable(error) from error  # not known now; the caller's next try will find out
            if found is not None and found.get("Metadata", {}).get(WRITER) == writer:
                return found
            taken = taken or found is not None
        if taken:
            raise ObjectExists(f"{key} exists already in {self._where}", key=key) from error
        raise self.unavailable(error) from error

    def _open(self, full_key: str, key: str, start: int, end: int | None, etag: str | None) -> dict[str, Any] | None:
        """S3's answer with the range, of version ``etag`` if given; None where the range holds no bytes."""
        if end is not None and start >= end:
            return None
        request: dict[str, Any] = {"Key": full_key}
        if start or end is not None:
            request["Range"] = f"bytes={start}-" if end is None else f"bytes={start}-{end - 1}"
        if etag is not None:
            request["IfMatch"] = etag
        try:
            return self.call("get_object", **request)
        except ClientError as error:
            if is_missing(error):
                raise self.not_found(key) from error
            if is_out_of_range(error):
                return None
            raise self.unavailable(error) from error
