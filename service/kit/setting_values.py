"""Types of settings: paths, URLs, devices and secrets, each with its check. Errors name what to write instead."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr

from service.kit.webhook_secrets import parse_secrets

MASK = "********"
LINK_SECRET_MIN_CHARS = 16


def _absolute(value: Path) -> Path:
    return value.expanduser().absolute()


def _store_url(value: str) -> str:
    if not re.match(r"^(file:///|s3://[^/]+)", value):
        raise ValueError("write file:///absolute/folder or s3://bucket/prefix")
    return value


def _broker_url(value: str) -> str:
    """A URL that redis-py accepts; redis-py itself would refuse a bad one only at the first request."""
    url = urlsplit(value)
    if not (
        (url.scheme == "unix" and len(url.path) > 1)
        or (url.scheme in ("redis", "rediss") and re.fullmatch(r"/?|/\d+", url.path))
    ):
        raise ValueError(
            "write redis://[:password@]host:port/database, the database a number, or unix:///path/of/the/socket"
        )
    try:
        _ = url.port
    except ValueError:
        raise ValueError("the port must be a number, 0-65535; write redis://host:6379/0") from None
    return value


def _web_address(value: str) -> str:
    if not re.match(r"^https?://[^/]+", value):
        raise ValueError("write https://host or http://host:port")
    return value.rstrip("/")


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", value):
        raise ValueError("write auto, cpu, cuda, or cuda:N with the number of the GPU")
    return value


def _batch_rows(value: int) -> int:
    if value == 1:
        raise ValueError("write 2 to 4096 rows, because guidance takes two; or 0 to measure them")
    return value


def _link_secret(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < LINK_SECRET_MIN_CHARS:
        raise ValueError("a secret of fewer than 16 characters can be guessed; make one with 'openssl rand -hex 32'")
    return value


def _webhook_secret(value: SecretStr) -> SecretStr:
    parse_secrets(value.get_secret_value())
    return value


def _header_secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value().strip()
    if not all(0x21 <= ord(character) <= 0x7E for character in text):
        raise ValueError("a key has no spaces and only ASCII characters; copy it again")
    return SecretStr(text)


def _lower_case(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
"""Made absolute once, so that a process which changes its working directory keeps its data."""
StoreUrl = Annotated[str, AfterValidator(_store_url)]
BrokerUrl = Annotated[str, AfterValidator(_broker_url)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
"""``http(s)://host[:port][/path]``, without a slash at its end."""
Device = Annotated[str, AfterValidator(_device)]
BatchRows = Annotated[int, AfterValidator(_batch_rows)]
LinkSecret = Annotated[SecretStr, AfterValidator(_link_secret)]
WebhookSecret = Annotated[SecretStr, AfterValidator(_webhook_secret)]
HeaderSecret = Annotated[SecretStr, AfterValidator(_header_secret)]
LOWER_CASE = BeforeValidator(_lower_case)


def printable(value: Any) -> str:
    """A value as text; secrets, and the password in a URL, are masked."""
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return MASK
    # redis://user:password@host and the like: only the password is masked.
    return re.sub(r"(?<=://)([^/@]*?):([^/]*)@", rf"\1:{MASK}@", str(value))
