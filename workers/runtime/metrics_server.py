"""The HTTP server of a worker's Prometheus metrics, on a port of its own; off by default."""

from __future__ import annotations

import argparse

from prometheus_client import REGISTRY, CollectorRegistry, start_http_server
from prometheus_client.registry import Collector

from service.errors import SettingsError


def add_metrics_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``--metrics-port`` (0: off) and ``--metrics-host`` to a worker's command line."""
    parser.add_argument(
        "--metrics-port", type=int, default=0, help="serve Prometheus metrics on this port (default: off)"
    )
    parser.add_argument("--metrics-host", default="127.0.0.1", help="address of the metrics (default: 127.0.0.1)")


def serve_metrics(collector: Collector, port: int, address: str, registry: CollectorRegistry = REGISTRY) -> None:
    """Serves ``/metrics`` on ``address:port`` from a thread: the counters, and what ``collector`` reads at the request.

    Raises :class:`SettingsError` if the port cannot be opened.
    """
    try:
        start_http_server(port, addr=address, registry=registry)
    except (OSError, OverflowError) as error:
        raise SettingsError(
            f"cannot serve metrics on port {port} of {address} ({error}); another process may use the port. "
            "Choose another with --metrics-port"
        ) from None
    registry.register(collector)
