"""Serving a worker's metrics to Prometheus, on a port of its own; without one nothing listens."""

from __future__ import annotations

import argparse

from prometheus_client import REGISTRY, CollectorRegistry, start_http_server
from prometheus_client.registry import Collector

from service.errors import SettingsError


def add_metrics_arguments(parser: argparse.ArgumentParser) -> None:
    """Lets a worker be told where: ``metrics_port`` is 0 where nothing is to be served."""
    parser.add_argument(
        "--metrics-port", type=int, default=0, help="serve Prometheus metrics on this port (default: off)"
    )
    parser.add_argument("--metrics-host", default="127.0.0.1", help="address of the metrics (default: 127.0.0.1)")


def serve_metrics(collector: Collector, port: int, address: str, registry: CollectorRegistry = REGISTRY) -> None:
    """Serves ``/metrics`` on ``address:port`` from a thread: what was counted, and what ``collector`` reads off at that
    moment.

    Raises :class:`SettingsError` where the port cannot be had.
    """
    try:
        start_http_server(port, addr=address, registry=registry)
    except (OSError, OverflowError) as error:
        raise SettingsError(
            f"port {port} on {address} cannot be had for metrics ({error}); another process may use it. Choose another with --metrics-port"
        ) from None
    registry.register(collector)
