"""Prometheus metrics of the API. Requests are counted by the route's template, never by the actual path."""

from __future__ import annotations

import time

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Metrics:
    """The metrics of one app, in their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter(
            "twinset_http_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "twinset_http_request_seconds",
            "Seconds from a request's arrival to the end of its answer.",
            ["method", "route"],
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
            registry=self.registry,
        )
        self.in_progress = Gauge("twinset_http_requests_in_progress", "Requests in progress.", registry=self.registry)
        self.jobs = Counter("twinset_jobs_accepted", "Jobs accepted.", ["model"], registry=self.registry)
        self.twins = Counter("twinset_twins_requested", "Twins requested.", ["model"], registry=self.registry)
        self.refused = Counter("twinset_requests_refused", "Errors answered.", ["slug"], registry=self.registry)
        self._of_route: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts and times a request."""
        kind = (method, route, status)
        if kind not in self._of_route:  # there are few; looking them up by label each time is slower
            self._of_route[kind] = self.requests.labels(method, route, str(status)), self.seconds.labels(method, route)
        count, timed = self._of_route[kind]
        count.inc()
        timed.observe(seconds)


class MetricsMiddleware:
    """Counts and times every request."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        began = time.perf_counter()

        async def record_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.in_progress.inc()
        try:
            await self._app(scope, receive, record_status)
        finally:
            self._metrics.in_progress.dec()
            # Set by the router; absent if no route matched.
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.answered(method, route, status, time.perf_counter() - began)


_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"})
