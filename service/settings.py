"""Every setting of the service and of the worker, read from environment variables ``TWINSET_*``.

The values are frozen. A process reads them once, by :func:`get_settings`; tests and the embedded stack build
their own ``Settings(...)`` and pass it on.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.errors import SettingsError
from service.kit.webhook_secrets import parse_secrets

ENV_PREFIX = "TWINSET_"
MASK = "********"


class Settings(BaseSettings):
    """Where things are, what a request may ask for, and how hard a worker may work."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, env_ignore_empty=True, extra="forbid")

    data_dir: Path = Field(
        Path("twinset-data"),
        validate_default=True,
        description="Folder of everything the embedded stack keeps: store, broker, caches, link secret.",
    )
    store_url: str = Field(
        default_factory=lambda values: (values["data_dir"] / "store").as_uri() if "data_dir" in values else "",
        description="Store: file:///absolute/folder or s3://bucket/prefix. Default: store/ in data_dir.",
    )
    s3_endpoint_url: str | None = Field(
        None,
        description="Endpoint of an S3-compatible store (MinIO, Ceph); unset: AWS.",
    )
    s3_public_endpoint_url: str | None = Field(
        None,
        description="Endpoint in signed links, where clients know the store by another name.",
    )
    s3_region: str | None = Field(
        None, description="Region of the bucket; unset: the AWS configuration's, else us-east-1."
    )
    broker_url: str = Field(
        "redis://127.0.0.1:6379/0",
        description="Redis or Valkey that carries the queue and the live hints: redis://[:password@]host:port/database, rediss:// or unix:///socket.",
    )
    public_url: str = Field(
        "http://127.0.0.1:8000",
        description="Address at which clients reach the API; links that it serves itself start with it.",
    )
    host: str = Field("127.0.0.1", description="Address the API listens on; 0.0.0.0 for all interfaces.")
    port: int = Field(8000, ge=0, le=65535, description="Port the API listens on, 0-65535; 0 takes a free one.")
    require_keys: Literal["auto", "true", "false"] = Field(
        "auto",
        description="Whether requests need an API key: true, false (something in front lets in whom it should), "
        "auto (as soon as the store has a key; beyond loopback always).",
    )
    api_key: SecretStr | None = Field(
        None, description="API key that 'twinset generate' sends; servers read the keys in the store, never this."
    )
    limit_requests_per_s: float = Field(
        0.0,
        ge=0,
        le=100_000,
        description="Requests that a tenant may make in a second, 0.01-100000, of two seconds at once; 0 is no limit.",
    )
    limit_queued_samples: int = Field(
        0,
        ge=0,
        le=10**12,
        description="Most samples in the jobs of a tenant that have not ended, 1-1000000000000; 0 is no limit.",
    )
    limit_stored_bytes: int = Field(
        0,
        ge=0,
        le=2**60,
        description="Most bytes of a tenant's images, masks, manifests and uploads, 1-1152921504606846976; 0 is no limit.",
    )
    job_retention_days: int = Field(
        0,
        ge=0,
        le=36_500,
        description="Days after its end that a job is kept before it is deleted with all it made, 1-36500; 0 keeps it for ever. "
        "Jobs of an augmentation set are kept as long as the set.",
    )
    run_retention_days: int = Field(
        0,
        ge=0,
        le=36_500,
        description="Days after its end that an export or an augmentation set is kept before it is deleted with all it made, 1-36500; 0 "
        "keeps it for ever. Datasets are kept until they are deleted.",
    )
    link_secret: SecretStr | None = Field(
        None,
        description="Signs the links that the API serves itself (a folder store's, and into shards), 16 characters or more, the "
        "same for all API processes. Unset: made in data_dir, where the store is a folder.",
    )
    webhook_secret: SecretStr | None = Field(
        None,
        description="Signs callbacks, the same for API and workers: whsec_ and base64 of 24-64 bytes; several, separated by "
        "spaces, while one is replaced. Unset: made in data_dir, where the store is a folder.",
    )
    webhook_allow_private: bool = Field(
        False,
        description="Let callbacks go to private and loopback addresses, and by plain http; for API and workers alike.",
    )
    webhook_timeout_s: float = Field(
        20.0, ge=0.1, le=120, description="Longest that a callback's receiver may take to answer, in seconds, 0.1-120."
    )
    link_expires_s: int = Field(
        3600, ge=1, le=604_800, description="Life of a signed link in seconds, 1-604800 (a week)."
    )
    max_body_bytes: int = Field(
        16 * 2**20, ge=1024, le=2**30, description="Largest request body in bytes, 1024-1073741824."
    )
    max_dataset_bytes: int = Field(
        4 * 2**30,
        ge=1024,
        le=2**40,
        description="Largest archive of a dataset that is taken in, in bytes, 1024-1099511627776.",
    )
    max_count: int = Field(100_000, ge=1, le=1_000_000, description="Most twins that one job may ask for, 1-1000000.")
    max_interactive_count: int = Field(
        64,
        ge=1,
        le=1_000_000,
        description="Most twins that one interactive job may ask for, 1-1000000; max_count holds too.",
    )
    max_steps: int = Field(1000, ge=1, le=1000, description="Most sampling steps that one job may ask for, 1-1000.")
    max_prompt_chars: int = Field(2000, ge=1, le=100_000, description="Longest prompt in characters, 1-100000.")
    max_masks: int = Field(1000, ge=1, le=10_000, description="Most masks that one job may give, 1-10000.")
    max_mask_px: int = Field(4096, ge=8, le=8192, description="Longest side of a given mask in pixels, 8-8192.")
    max_wait_s: float = Field(
        60.0,
        ge=0,
        le=3600,
        description="Longest that an answer is held for 'Prefer: wait', in seconds, 0-3600.",
    )
    shards_from_count: int = Field(
        1000,
        ge=0,
        le=1_000_000,
        description="Twins from which on a normal job is stored as tar shards unless it asks otherwise, 1-1000000; 0 is never. On "
        "S3, only where TWINSET_LINK_SECRET is set.",
    )
    chunk_size: int = Field(8, ge=1, le=4096, description="Twins in a chunk, the unit of delivery, 1-4096.")
    chunks_in_flight: int = Field(
        4, ge=1, le=1024, description="Chunks of one job that are queued or running at once, 1-1024."
    )
    lease_s: float = Field(
        15.0,
        ge=1,
        le=86_400,
        description="Life of a worker's lease on a chunk without renewal, in seconds, 1-86400.",
    )
    sweep_interval_s: float = Field(
        5.0,
        ge=0.1,
        le=3600,
        description="Pause between two sweeps for chunks that got lost, in seconds, 0.1-3600.",
    )
    worker_threads: int = Field(8, ge=1, le=256, description="Chunks that one worker process carries at once, 1-256.")
    device: str = Field(
        "auto",
        description="Where the networks run: auto, cpu, cuda or cuda:N; auto takes a GPU if there is one.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Numbers: auto (bfloat16 where GPU or CPU has it, else float32), float32, bfloat16, float16.",
    )
    batch_shape: int = Field(
        0, ge=0, le=4096, description="Rows of the engine's batch, 2-4096; 0 measures them once a machine type."
    )
    shapes: Literal["fixed", "floating"] = Field(
        "fixed",
        description="fixed: a twin's bits never depend on its company; floating: quicker when few wait, bits do.",
    )
    compile: bool = Field(
        False, description="Run the networks through torch.compile; takes minutes once, needs a C++ compiler."
    )
    cuda_graphs: bool = Field(True, description="Replay forwards of fixed shape as CUDA graphs, on a GPU.")
    model_memory_bytes: int = Field(
        0,
        ge=0,
        le=2**50,
        description="Memory for the weights of all loaded models in bytes, 1-1125899906842624; 0 takes half of the device's.",
    )
    model_cache_dir: Path = Field(
        default_factory=lambda values: values["data_dir"] / "model-cache" if "data_dir" in values else Path(),
        description="Folder where a worker keeps the weights it fetched. Default: model-cache/ in data_dir.",
    )
    cpu_threads: int = Field(
        0, ge=0, le=1024, description="Threads of one network forward on CPU, 1-1024; 0 takes all cores."
    )
    visibility_timeout_s: int = Field(
        3600,
        ge=10,
        le=604_800,
        description="Until the broker delivers an unacknowledged chunk again, in seconds, 10-604800.",
    )
    max_chunk_attempts: int = Field(
        5, ge=1, le=100, description="Attempts at a chunk, or a run, before it is quarantined with its reason, 1-100."
    )
    bulk_threads: int = Field(
        2,
        ge=1,
        le=64,
        description="Datasets, augmentation sets and exports that a bulk worker has in hand at once, 1-64.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="How much is logged: debug, info, warning, error."
    )

    @field_validator("data_dir", "model_cache_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        """Folders are made absolute once, so that a process which changes its directory keeps its data."""
        return value.expanduser().absolute()

    @field_validator("store_url")
    @classmethod
    def _known_scheme(cls, value: str) -> str:
        if not re.match(r"^(file:///|s3://[^/]+)", value):
            raise ValueError("write file:///absolute/folder or s3://bucket/prefix")
        return value

    @field_validator("broker_url")
    @classmethod
    def _broker_that_can_be_asked(cls, value: str) -> str:
        """What redis-py would only find out at the first request, of each."""
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

    @field_validator("public_url", "s3_endpoint_url", "s3_public_endpoint_url")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not re.match(r"^https?://[^/]+", value):
            raise ValueError("write https://host or http://host:port")
        return value.rstrip("/")

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", value):
            raise ValueError("write auto, cpu, cuda, or cuda:N with the number of the GPU")
        return value

    @field_validator("batch_shape")
    @classmethod
    def _room_for_guidance(cls, value: int) -> int:
        if value == 1:
            raise ValueError("write 2 to 4096 rows, for guidance takes two of them; or 0, which measures them")
        return value

    @field_validator("link_secret")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 16:
            raise ValueError(
                "a secret of fewer than 16 characters can be guessed; make one with 'openssl rand -hex 32'"
            )
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _webhook_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_secrets(value.get_secret_value())
        return value

    @field_validator("api_key")
    @classmethod
    def _fit_for_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        text = value.get_secret_value().strip()
        if not all(0x21 <= ord(character) <= 0x7E for character in text):
            raise ValueError("a key has no spaces and is ASCII throughout; copy it again")
        return SecretStr(text)

    @field_validator("log_level", "require_keys", mode="before")
    @classmethod
    def _any_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value


def printable(value: Any) -> str:
    """A value as text, a secret and the password inside a URL masked."""
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return MASK
    # redis://user:password@host and the like: the password goes, the rest is useful.
    return re.sub(r"(?<=://)([^/@]*?):([^/]*)@", rf"\1:{MASK}@", str(value))


def read_settings(**overrides: Any) -> Settings:
    """The environment's settings with ``overrides`` on top.

    Raises SettingsError that names each variable at fault, its value (unless secret) and what it should be.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        # Settings whose default follows from another are at no fault when that other is.
        faults = [_fault(fault) for fault in error.errors() if fault["type"] != "default_factory_not_called"]
        raise SettingsError("; ".join(faults) + ". 'twinset settings' lists what each may be.") from None


def _fault(fault: Any) -> str:
    name = str(fault["loc"][0]) if fault["loc"] else "settings"
    value = "" if name in _SECRETS else f"={printable(fault['input'])}"
    return f"{ENV_PREFIX}{name.upper()}{value}: {fault['msg'].removeprefix('Value error, ')}"


# Their values appear in no message, not even where they are wrong: a mistyped secret is most of a secret.
_SECRETS = frozenset(name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation))


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The process's settings, read once. Raises SettingsError."""
    return read_settings()
