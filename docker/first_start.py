"""First start of the composition: ``secrets`` writes what is missing in /run/secrets, ``bucket`` creates the bucket.

All secrets are random. A file that is there stays as it is, so your own may lie there instead.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

import boto3
from botocore.exceptions import ClientError


def write_secrets(folder: Path) -> None:
    """Writes the secrets that ``folder`` lacks. What follows from another is written from what is there."""

    def secret(name: str, make: Callable[[], str]) -> str:
        path = folder / name
        if not path.exists():
            # whole or not at all; readable for the users of all containers that mount the folder
            part = folder / f".{name}"
            part.write_text(make() + "\n")
            part.chmod(0o444)
            part.rename(path)
        return path.read_text().strip()

    def token() -> str:
        return secrets.token_hex(24)

    secret("twinset_link_secret", token)
    secret("twinset_webhook_secret", lambda: "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())
    secret("grafana_admin_password", token)
    password = secret("valkey_password", token)
    secret("valkey.conf", lambda: f"requirepass {password}")
    secret("twinset_broker_url", lambda: f"redis://:{password}@valkey:6379/0")
    key_id, key = secret("s3_access_key_id", token), secret("s3_secret_access_key", token)
    secret("aws_credentials", lambda: f"[default]\naws_access_key_id = {key_id}\naws_secret_access_key = {key}")
    identity = {
        "name": "twinset",
        "credentials": [{"accessKey": key_id, "secretKey": key}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    secret("s3.json", lambda: json.dumps({"identities": [identity]}))


def create_bucket() -> None:
    """Creates the bucket of TWINSET_STORE_URL, if it is not there."""
    client = boto3.client("s3", endpoint_url=os.environ["TWINSET_S3_ENDPOINT_URL"], region_name="us-east-1")
    bucket = os.environ["TWINSET_STORE_URL"].removeprefix("s3://").split("/")[0]
    try:
        client.create_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise


if __name__ == "__main__":
    if sys.argv[1:] == ["secrets"]:
        write_secrets(Path("/run/secrets"))
    elif sys.argv[1:] == ["bucket"]:
        create_bucket()
    else:
        sys.exit("usage: first_start.py secrets|bucket")
