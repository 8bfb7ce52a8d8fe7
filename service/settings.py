"""All settings of the service and the workers, read from environment variables ``TWINSET_*``.

The values are frozen. A process reads them once, by :func:`get_settings`; tests and the embedded stack build their own.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict

from service.errors import SettingsError
from service.kit.http_limits import HttpLimits
from service.kit.log_format import LogFormat
from service.kit.setting_values import (
    LOWER_CASE,
    AbsolutePath,
    BatchRows,
    BrokerUrl,
    Device,
    ExistingFolder,
    HeaderSecret,
    LinkSecret,
    StoreUrl,
    WebAddress,
    WebhookSecret,
    printable,
)

ENV_PREFIX = "TWINSET_"


class Settings(HttpLimits, BaseSettings):
    """The settings: addresses and stores, limits of requests, and how the workers work."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, env_ignore_empty=True, extra="forbid")

    secrets_dir: ExistingFolder | None = Field(
        None,
        description="Folder whose files are settings, each named like its variable (twinset_link_secret), such as "
        "/run/secrets of a container; the environment comes first.",
    )
    data_dir: AbsolutePath = Field(
        Path("twinset-data"),
        validate_default=True,
        description="Folder of the embedded stack's data: store, broker, caches, secrets.",
    )
    prepared_max_gb: int = Field(
        100,
        ge=0,
        le=10**6,
        description="Copies of datasets that training keeps in prepared/ of data_dir, in 10^9 bytes, 0-1000000. Beyond "
        "that, those not used lately are deleted.",
    )
    store_url: StoreUrl = Field(
        default_factory=lambda values: (values["data_dir"] / "store").as_uri() if "data_dir" in values else "",
        description="Object store: file:///absolute/folder or s3://bucket/prefix. Default: store/ in data_dir.",
    )
    s3_endpoint_url: WebAddress | None = Field(
        None, description="Endpoint of an S3-compatible store (MinIO, Ceph); unset: AWS."
    )
    s3_public_endpoint_url: WebAddress | None = Field(
        None, description="Endpoint in signed links, if clients reach the store by another address."
    )
    s3_region: str | None = Field(
        None, description="Region of the bucket; unset: that of the AWS configuration, else us-east-1."
    )
    broker_url: BrokerUrl = Field(
        "redis://127.0.0.1:6379/0",
        repr=False,
        description="Redis or Valkey for the queue and the live state: redis://[user:password@]host:port/database, "
        "rediss:// for TLS (?ssl_ca_certs=FILE), or unix:///socket?db=database; / @ : in a password as %2F %40 %3A.",
    )
    public_url: WebAddress = Field(
        "http://127.0.0.1:8000",
        description="Address at which clients reach the API; links that the API serves start with it.",
    )
    host: str = Field("127.0.0.1", description="Address the API listens on; 0.0.0.0 for all interfaces.")
    port: int = Field(8000, ge=0, le=65535, description="Port the API listens on, 0-65535; 0 takes a free one.")
    require_keys: Annotated[Literal["auto", "true", "false"], LOWER_CASE] = Field(
        "auto",
        description="Whether requests need an API key: true; false (a proxy in front checks clients); auto (once the "
        "store has a key, and always on other addresses than loopback).",
    )
    api_key: HeaderSecret | None = Field(
        None,
        description="API key that 'twinset generate' and other clients send; servers check keys against the store, not "
        "this.",
    )
    limit_requests_per_s: float = Field(
        0.0,
        ge=0,
        le=100_000,
        description="Requests a tenant may make per second, 0.01-100000, with bursts of two seconds' worth; 0 is no "
        "limit.",
    )
    limit_queued_samples: int = Field(
        0,
        ge=0,
        le=10**12,
        description="Maximum number of samples in a tenant's unfinished jobs, 1-1000000000000; 0 is no limit.",
    )
    limit_stored_bytes: int = Field(
        0,
        ge=0,
        le=2**60,
        description="Maximum bytes of a tenant's images, masks, manifests, models and uploads, 1-1152921504606846976; "
        "0 is no limit.",
    )
    limit_training_device_seconds: int = Field(
        0,
        ge=0,
        le=10**12,
        description="Maximum device-seconds that a tenant's trainings accepted in one calendar month (UTC) may use, "
        "1-1000000000000; 0 is no limit.",
    )
    job_retention_days: int = Field(
        0,
        ge=0,
        le=36_500,
        description="Days after its end until a job and its results are deleted, 1-36500; 0 keeps them for ever. Jobs "
        "of an augmentation set are kept as long as the set.",
    )
    run_retention_days: int = Field(
        0,
        ge=0,
        le=36_500,
        description="Days after its end until an export, an augmentation set or a training is deleted, with its "
        "results, 1-36500; 0 keeps them for ever. Datasets and models are kept until they are deleted.",
    )
    link_secret: LinkSecret | None = Field(
        None,
        description="Signs the links that the API serves itself (of a folder store, and into shards): 16 characters or "
        "more, the same for all API processes. Unset: created in data_dir, if the store is a folder.",
    )
    webhook_secret: WebhookSecret | None = Field(
        None,
        description="Signs webhooks, the same for API and workers: whsec_ and base64 of 24-64 bytes; several, "
        "separated by spaces, while one is being replaced. Unset: created in data_dir, if the store is a folder.",
    )
    webhook_allow_private: bool = Field(
        False,
        description="Allow webhooks to private and loopback addresses and by plain http, for API and workers alike.",
    )
    webhook_timeout_s: float = Field(
        20.0,
        ge=0.1,
        le=120,
        description="Maximum time that a webhook's receiver may take to answer, in seconds, 0.1-120.",
    )
    link_expires_s: int = Field(
        3600, ge=1, le=604_800, description="Lifetime of a signed link in seconds, 1-604800 (a week)."
    )
    max_body_bytes: int = Field(
        16 * 2**20, ge=1024, le=2**30, description="Largest request body in bytes, 1024-1073741824."
    )
    max_dataset_bytes: int = Field(
        4 * 2**30,
        ge=1024,
        le=2**40,
        description="Largest archive of a dataset in an upload, in bytes, 1024-1099511627776.",
    )
    max_model_bytes: int = Field(
        8 * 2**30,
        ge=1024,
        le=2**40,
        description="Largest archive of a model in an upload, in bytes, 1024-1099511627776. One file of it has at most "
        "5 GiB.",
    )
    max_unpacked_bytes: int = Field(
        16 * 2**30,
        ge=1024,
        le=2**44,
        description="Maximum size of a dataset's files on the bulk worker's disk, unpacked, in bytes, "
        "1024-17592186044416.",
    )
    max_dataset_pixels: int = Field(
        2**39,
        ge=1,
        le=2**60,
        description="Maximum number of pixels in all images and masks of a dataset, 1-1152921504606846976.",
    )
    import_memory_bytes: int = Field(
        2 * 2**30,
        ge=512 * 2**20,
        le=2**44,
        description="Memory for the process that reads one dataset, or plans one augmentation set, in bytes, "
        "536870912-17592186044416.",
    )
    import_timeout_s: int = Field(
        7200, ge=1, le=604_800, description="Maximum time that reading one dataset may take, in seconds, 1-604800."
    )
    max_count: int = Field(100_000, ge=1, le=1_000_000, description="Maximum number of twins in one job, 1-1000000.")
    max_interactive_count: int = Field(
        64,
        ge=1,
        le=1_000_000,
        description="Maximum number of twins in one interactive job, 1-1000000; max_count applies too.",
    )
    max_steps: int = Field(1000, ge=1, le=1000, description="Maximum number of sampling steps, 1-1000.")
    max_prompt_chars: int = Field(2000, ge=1, le=100_000, description="Longest prompt in characters, 1-100000.")
    max_masks: int = Field(1000, ge=1, le=10_000, description="Maximum number of masks in one job, 1-10000.")
    max_mask_px: int = Field(4096, ge=8, le=8192, description="Longest side of a mask in a request, in pixels, 8-8192.")
    max_canvas_px: int = Field(
        2**22,
        ge=64,
        le=2**28,
        description="Largest twin of a request with fit canvas or stretch, in pixels, 64-268435456.",
    )
    max_wait_s: float = Field(
        60.0, ge=0, le=3600, description="Maximum time that an answer is held for 'Prefer: wait', in seconds, 0-3600."
    )
    shards_from_count: int = Field(
        1000,
        ge=0,
        le=1_000_000,
        description="Number of twins from which on a normal job is stored as tar shards, unless it asks otherwise, "
        "1-1000000; 0 is never. On S3 only where TWINSET_LINK_SECRET is set.",
    )
    chunk_size: int = Field(8, ge=1, le=4096, description="Twins in a chunk, the unit of work and delivery, 1-4096.")
    chunks_in_flight: int = Field(
        4,
        ge=1,
        le=1024,
        description="Maximum number of chunks of one job that are queued or running at the same time, 1-1024.",
    )
    lease_s: float = Field(
        15.0,
        ge=1,
        le=86_400,
        description="Time after which a worker's lease on a chunk expires if it is not renewed, in seconds, 1-86400.",
    )
    sweep_interval_s: float = Field(
        5.0, ge=0.1, le=3600, description="Time between two sweeps for lost chunks, in seconds, 0.1-3600."
    )
    worker_threads: int = Field(
        8,
        ge=1,
        le=256,
        description="Chunks that one worker process handles at the same time, 1-256; up to four times as many while "
        "several tenants wait.",
    )
    device: Device = Field(
        "auto", description="Device of the networks: auto, cpu, cuda or cuda:N; auto takes a GPU if there is one."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Numbers: auto (bfloat16 if GPU or CPU supports it, else float32), float32, bfloat16, float16.",
    )
    batch_shape: BatchRows = Field(
        0,
        ge=0,
        le=4096,
        description="Rows of the engine's batch, 2-4096; 0 measures the best number once per machine type.",
    )
    shapes: Literal["fixed", "floating"] = Field(
        "fixed",
        description="fixed: a twin's bits never depend on other samples in the batch; floating: faster with few "
        "samples, but bits vary.",
    )
    compile: bool = Field(
        False, description="Run the networks through torch.compile; takes minutes once, needs a C++ compiler."
    )
    cuda_graphs: bool = Field(True, description="Replay forwards of fixed shape as CUDA graphs, on a GPU.")
    model_memory_bytes: int = Field(
        0,
        ge=0,
        le=2**50,
        description="Memory for the weights of all loaded models in bytes, 1-1125899906842624; 0 takes half of the "
        "device's.",
    )
    model_cache_dir: AbsolutePath = Field(
        default_factory=lambda values: values["data_dir"] / "model-cache" if "data_dir" in values else Path(),
        description="Folder of the weights that a worker has downloaded. Default: model-cache/ in data_dir.",
    )
    model_cache_max_gb: int = Field(
        100,
        ge=0,
        le=10**6,
        description="Weights of models that workers keep in model_cache_dir, in 10^9 bytes, 0-1000000. Beyond that, "
        "those not used lately are deleted.",
    )
    cpu_threads: int = Field(
        0, ge=0, le=1024, description="Threads of one network forward on CPU, 1-1024; 0 takes all cores."
    )
    visibility_timeout_s: int = Field(
        3600,
        ge=10,
        le=604_800,
        description="Time until the broker delivers an unacknowledged message again, in seconds, 10-604800.",
    )
    max_chunk_attempts: int = Field(
        5,
        ge=1,
        le=100,
        description="Attempts at a chunk, or a run, before it is recorded as failed with its reason, 1-100.",
    )
    bulk_threads: int = Field(
        2,
        ge=1,
        le=64,
        description="Datasets, augmentation sets and exports that a bulk worker handles at the same time, 1-64; up to "
        "four times as many while several tenants wait.",
    )
    training_share: float = Field(
        0.25,
        ge=0.01,
        le=1,
        description="Share of its time that a training takes while interactive twins are made on the same machine, "
        "0.01-1.",
    )
    heartbeat_file: AbsolutePath | None = Field(
        None, description="File that a worker touches every 5 seconds while its loops turn; unset: none."
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], LOWER_CASE] = Field(
        "info", description="Log level: debug, info, warning, error."
    )
    log_format: Annotated[LogFormat, LOWER_CASE] = Field(
        "text", description="Log lines: text, or json for one object a line with job, chunk, run and request_id."
    )
    otel_endpoint: WebAddress | None = Field(
        None, description="OpenTelemetry collector for traces, OTLP over HTTP (http://host:4318); unset: no traces."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        folder = Path(os.environ.get(f"{ENV_PREFIX}SECRETS_DIR") or ".none")
        if not folder.is_dir():
            return init_settings, env_settings
        return init_settings, env_settings, SecretsSettingsSource(settings_cls, secrets_dir=folder)


def read_settings(**overrides: Any) -> Settings:
    """The settings of the environment, with ``overrides`` on top.

    Raises SettingsError, which names each wrong variable, its value (unless secret) and what to write instead.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        # A setting whose default depends on an invalid one is not itself at fault.
        faults = [_fault(fault) for fault in error.errors() if fault["type"] != "default_factory_not_called"]
        raise SettingsError("; ".join(faults) + ". 'twinset settings' describes each.") from None


def _fault(fault: Any) -> str:
    name = str(fault["loc"][0]) if fault["loc"] else "settings"
    value = "" if name in _SECRETS else f"={printable(fault['input'])}"
    return f"{ENV_PREFIX}{name.upper()}{value}: {fault['msg'].removeprefix('Value error, ')}"


# Their values appear in no message, not even if they are wrong: a mistyped secret is nearly the secret.
_SECRETS = frozenset(name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation))


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The process's settings, read once. Raises SettingsError."""
    return read_settings()
