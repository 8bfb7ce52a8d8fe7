"""Types of settings: paths, URLs, devices and secrets, each with its check. Errors name what to write instead."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, SecretStr

from service.kit.broker_address import mask_userinfo, parse_broker_address
from service.kit.webhook_secrets import parse_secrets

MASK = "********"
HOST_NAME = re.compile(
    r"(?P<name>\[[0-9a-f:.]{2,45}\]|[a-z0-9_]([a-z0-9_.-]{0,252}[a-z0-9_.])?)(?::(?P<port>\d{1,5}))?", re.I
)
"""``host`` or ``host:port``, as in an address and in the Host header."""
LINK_SECRET_MIN_CHARS = 16


def _absolute(value: Path) -> Path:
    return value.expanduser().absolute()


def _existing_folder(value: Path) -> Path:
    if not value.is_dir():
        raise ValueError("there is no such folder; write the path of one, or leave it unset")
    return _absolute(value)


def _store_url(value: str) -> str:
    if not re.match(r"^(file:///|s3://[^/]+)", value):
        raise ValueError("write file:///absolute/folder or s3://bucket/prefix")
    return value


def _broker_url(value: str) -> str:
    parse_broker_address(value)
    return value.strip()


def _web_address(value: str) -> str:
    if not re.match(r"^https?://[^/]+", value):
        raise ValueError("write https://host or http://host:port")
    return value.rstrip("/")


def _host_names(value: str) -> str:
    names = [name.strip().lower() for name in value.split(",") if name.strip()]
    for name in names:
        if not HOST_NAME.fullmatch(name.removeprefix("*.") if name != "*" else "any"):
            raise ValueError(
                f"{name[:100]!r} is not a host; write names as in a browser's address line, without https://, "
                "separated by commas: twins.example, twins.example:8443, *.twins.example, [fd00::1]; * allows all"
            )
    return ",".join(names)


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
ExistingFolder = Annotated[Path, AfterValidator(_existing_folder)]
StoreUrl = Annotated[str, AfterValidator(_store_url)]
BrokerUrl = Annotated[str, AfterValidator(_broker_url)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
"""``http(s)://host[:port][/path]``, without a slash at its end."""
HostNames = Annotated[str, AfterValidator(_host_names)]
"""Hosts, separated by commas."""
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
    return mask_userinfo(str(value), MASK)
