"""What is S3's own: presigned links, prefixes in a shared bucket, media types, missing buckets."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from service.errors import InvalidKey, StoreUnavailable
from service.store.s3 import S3Store


def test_a_signed_link_is_fetched_by_anyone(s3_store: S3Store) -> None:
    key = "jobs/a b+c&d=e?f#g%20/\u00e9.png"
    s3_store.put(key, b"png bytes")
    url = s3_store.sign(key, expires_s=60)
    answer = httpx.get(url)
    assert answer.status_code == 200
    assert answer.content == b"png bytes"
    assert answer.headers["content-type"] == "image/png"
    query = parse_qs(urlsplit(url).query)
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Expires"] == ["60"]
    answer = httpx.get(s3_store.sign(key, expires_s=60, content_type="application/x-twin"))
    assert answer.headers["content-type"] == "application/x-twin"


def test_links_are_signed_for_the_endpoint_that_clients_know(bucket: str, s3_endpoint: str) -> None:
    store = S3Store(bucket, endpoint_url=s3_endpoint, public_endpoint_url="https://files.example.org")
    store.put("a/b", b"x")
    assert store.sign("a/b", expires_s=60).startswith(f"https://files.example.org/{bucket}/a/b?")


def test_a_store_without_prefix_and_one_below_a_prefix_share_a_bucket(bucket: str, s3_endpoint: str) -> None:
    whole = S3Store(bucket, endpoint_url=s3_endpoint)
    part = S3Store(bucket, prefix="team/twins", endpoint_url=s3_endpoint)
    part.put("jobs/j1/spec.json", b"x")
    whole.put("jobs/j2/spec.json", b"y")
    assert [found.key for found in whole.list("")] == ["jobs/j2/spec.json", "team/twins/jobs/j1/spec.json"]
    assert [found.key for found in part.list("")] == ["jobs/j1/spec.json"]
    assert list(part.list_folders("")) == ["jobs"]
    assert part.head("jobs/j2/spec.json") is None


def test_the_media_type_is_stored_with_the_object(s3_store: S3Store, s3_endpoint: str) -> None:
    import boto3

    s3_store.put("a/manifest.jsonl", b"{}")
    s3_store.put("a/b", b"{}", content_type="application/x-twin")
    client = boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1")
    kinds = [
        client.head_object(Bucket=s3_store.bucket, Key=f"team/twins/{key}")["ContentType"]
        for key in ("a/manifest.jsonl", "a/b")
    ]
    assert kinds == ["application/x-ndjson", "application/x-twin"]


def test_folder_markers_of_other_tools_are_passed_over(bucket: str, s3_endpoint: str) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1")
    for key in ("jobs/", "jobs/j1/spec.json", "jobs//x", "jobs/.hidden"):
        client.put_object(Bucket=bucket, Key=key, Body=b"")
    store = S3Store(bucket, endpoint_url=s3_endpoint)
    assert [found.key for found in store.list("")] == ["jobs/j1/spec.json"]
    assert list(store.list_folders("jobs/")) == ["j1"]


def test_a_missing_bucket_is_unavailable_and_not_an_absent_object(s3_endpoint: str, aws: None) -> None:
    store = S3Store("no-such-bucket", endpoint_url=s3_endpoint)
    for use in (
        store.check,
        lambda: store.head("a/b"),
        lambda: store.get("a/b"),
        lambda: store.stream("a/b"),
        lambda: store.put("a/b", b"x"),
        lambda: store.put("a/b", b"x", if_absent=True),
        lambda: store.delete("a/b"),
        lambda: list(store.list("")),
        lambda: list(store.list_folders("")),
    ):
        with pytest.raises(StoreUnavailable, match="create the bucket, or correct TWINSET_STORE_URL") as caught:
            use()
        assert "'no-such-bucket'" in caught.value.detail
        assert s3_endpoint in caught.value.detail


def test_a_hostile_prefix_of_the_store_is_refused() -> None:
    with pytest.raises(InvalidKey):
        S3Store("twins", prefix="../other")
