"""Settings of the API's HTTP server: hosts, timeouts, connections, and what one tenant may hold open."""

from __future__ import annotations

from pydantic import BaseModel, Field

from service.kit.setting_values import HostNames


class HttpLimits(BaseModel):
    """Limits that keep one client from taking the API from the others."""

    allowed_hosts: HostNames = Field(
        "",
        description="Further hosts by which clients and browser pages may address the API, separated by commas: "
        "twins.example, twins.example:8443, *.twins.example; * allows all. Always allowed: localhost, 127.0.0.1, "
        "[::1], the host of public_url, and the IP address to which a connection came.",
    )
    header_timeout_s: float = Field(
        10.0, ge=0.1, le=3600, description="Time within which a request's header must arrive, in seconds, 0.1-3600."
    )
    body_timeout_s: float = Field(
        30.0,
        ge=0.1,
        le=3600,
        description="Maximum time that a client may leave the API waiting for more of a body, in seconds, 0.1-3600; on "
        "average a body must come at 1 KiB/s or more.",
    )
    idle_timeout_s: float = Field(
        30.0, ge=0.1, le=3600, description="Time until a connection without a request is closed, in seconds, 0.1-3600."
    )
    write_timeout_s: float = Field(
        60.0,
        ge=0.1,
        le=86_400,
        description="Maximum time that a client may read nothing of an answer, in seconds, 0.1-86400.",
    )
    max_connections: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="Maximum number of connections of an API process, 1-1000000, fewer if it may open fewer files. One "
        "more closes the connection that has waited longest for a request.",
    )
    max_connections_per_address: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Maximum number of connections from one client address, 1-1000000; 0 is no limit, as behind a "
        "proxy, from which all connections come.",
    )
    max_body_memory_bytes: int = Field(
        128 * 2**20,
        ge=1024,
        le=2**40,
        description="Memory for the bodies of requests in progress in an API process, in bytes, 1024-1099511627776; "
        "half of it for one tenant, and always one body.",
    )
    limit_streams: int = Field(
        200,
        ge=0,
        le=100_000,
        description="Event streams and waiting requests of a tenant at the same time in an API process, 1-100000; 0 is "
        "no limit.",
    )
    limit_transfers: int = Field(
        16,
        ge=0,
        le=100_000,
        description="Downloads of archives and manifests, and uploads of datasets, of a tenant at the same time in an "
        "API process, 1-100000; 0 is no limit.",
    )
