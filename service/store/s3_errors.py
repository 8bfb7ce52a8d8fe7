"""Errors of S3 and of the network, as the store's errors with bucket, endpoint and remedy."""

from __future__ import annotations

from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
)

from service.errors import StoreUnavailable

_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or another of boto3's sources of credentials)"
_ACCESS = "give these credentials s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket there"
_ENDPOINT = "check that it runs and that TWINSET_S3_ENDPOINT_URL is right"
_REMEDIES = {
    "NoSuchBucket": "create the bucket, or correct TWINSET_STORE_URL",
    "404": "create the bucket, or correct TWINSET_STORE_URL",
    "AccessDenied": _ACCESS,
    "403": _ACCESS,
    "InvalidAccessKeyId": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "ExpiredToken": "renew the credentials",
    "RequestTimeTooSkewed": "set this machine's clock",
    "PermanentRedirect": "set TWINSET_S3_REGION to the bucket's region",
    "301": "set TWINSET_S3_REGION to the bucket's region",
    "AuthorizationHeaderMalformed": "set TWINSET_S3_REGION to the bucket's region",
    "PreconditionFailed": "the object was overwritten while it was read; read it again",
    "NotImplemented": "use a store that supports conditional writes (If-None-Match)",
}


def unavailable(error: Exception, bucket: str, endpoint_url: str | None) -> StoreUnavailable:
    """A StoreUnavailable for anything that is not about one object."""
    where = f"bucket {bucket!r} at {endpoint_url or 'AWS S3'}"
    if isinstance(error, ClientError):
        code = _code(error)
        said = error.response.get("Error", {}).get("Message") or "no message"
        remedy = _REMEDIES.get(code, "try again; if that does not help, see the store's own log")
        return StoreUnavailable(f"{where} answered {code} ({said}); {remedy}", bucket=bucket)
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return StoreUnavailable(f"{where} needs credentials and there are none; {_CREDENTIALS}", bucket=bucket)
    if isinstance(error, (ReadTimeoutError, ConnectTimeoutError)):
        return StoreUnavailable(f"{where} did not answer in time; {_ENDPOINT}", bucket=bucket)
    if isinstance(error, EndpointConnectionError):
        return StoreUnavailable(f"{where} cannot be reached; {_ENDPOINT}", bucket=bucket)
    return StoreUnavailable(f"{where} failed ({error}); {_ENDPOINT}", bucket=bucket)


def is_missing(error: ClientError) -> bool:
    """Whether the object (not the bucket) is absent. The code of an answer to HEAD is its status."""
    return _code(error) in ("NoSuchKey", "404", "NotFound")


def is_taken(error: ClientError) -> bool:
    """Whether a conditional write found an object under its key."""
    return _code(error) in ("PreconditionFailed", "412")


def is_unsettled(error: ClientError) -> bool:
    """Whether a conditional write conflicted with another one in progress."""
    return _code(error) in ("ConditionalRequestConflict", "409")


def is_torn(error: ClientError) -> bool:
    """Whether the bytes of a write arrived damaged or incomplete."""
    return _code(error) in ("BadDigest", "IncompleteBody")


def may_have_happened(error: Exception) -> bool:
    """Whether a write that ended in ``error`` may have taken effect: the store was reached, its answer is unknown."""
    if isinstance(error, ClientError):
        return error.response["ResponseMetadata"].get("HTTPStatusCode") in (500, 502, 504)
    return not isinstance(
        error, (ConnectTimeoutError, EndpointConnectionError, NoCredentialsError, PartialCredentialsError)
    )


def is_out_of_range(error: ClientError) -> bool:
    """Whether a range starts past the object's end."""
    return _code(error) in ("InvalidRange", "416")


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "no code"))
