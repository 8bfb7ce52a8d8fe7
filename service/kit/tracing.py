"""OpenTelemetry traces, off by default: spans of requests, chunks and runs, sent to ``TWINSET_OTEL_ENDPOINT``.

A job keeps the ``traceparent`` (W3C) of the request that made it, so its chunks' spans, in whichever worker, belong to
the same trace. Needs the extra ``twinset[otel]``.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from service.errors import MissingExtra

_tracer: Any = None


def configure_tracing(endpoint: str | None, service: str) -> None:
    """Sends the spans of this process, named ``service``, by OTLP over HTTP; does nothing without an endpoint.

    Raises :class:`MissingExtra` unless the extra is installed.
    """
    if endpoint is None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        detail = "TWINSET_OTEL_ENDPOINT is set, and traces need OpenTelemetry: pip install 'twinset[otel]'"
        raise MissingExtra(detail, extra="otel") from None
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")))
    atexit.register(provider.shutdown)
    use_provider(provider)


def use_provider(provider: Any) -> None:
    """Takes spans from ``provider`` from now on; none if it is None."""
    global _tracer
    _tracer = None if provider is None else provider.get_tracer("twinset")


@contextmanager
def span(name: str, *, traceparent: str | None = None, **attributes: str | int | None) -> Iterator[str | None]:
    """A span until the block ends, below ``traceparent``; yields its own traceparent, or None while tracing is off."""
    if _tracer is None:
        yield traceparent
        return
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    propagator = TraceContextTextMapPropagator()
    parent = propagator.extract({"traceparent": traceparent}) if traceparent else None
    known = {f"twinset.{key}": value for key, value in attributes.items() if value is not None}
    with _tracer.start_as_current_span(name, context=parent, attributes=known):
        carrier: dict[str, str] = {}
        propagator.inject(carrier)
        yield carrier.get("traceparent", traceparent)
