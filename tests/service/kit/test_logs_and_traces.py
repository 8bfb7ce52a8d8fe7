"""Log lines as JSON with what they belong to, and traces from a request to its chunks, both off by default."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from service.errors import MissingExtra
from service.kit import tracing
from service.kit.log_context import current_origin, log_context
from service.kit.log_format import JsonFormatter, uvicorn_log_config


def line(message: str, *arguments: object, error: Exception | None = None) -> dict[str, object]:
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord("twinset.test", logging.INFO, __file__, 1, message, arguments, exc_info)
    found: dict[str, object] = json.loads(JsonFormatter().format(record))
    return found


def test_a_line_has_the_ids_that_its_message_names_and_those_at_work() -> None:
    assert line("job=%s chunk=%d recorded", "j7ybr17pesw6kn47yb0", 3).items() >= {
        "job": "j7ybr17pesw6kn47yb0", "chunk": 3, "message": "job=j7ybr17pesw6kn47yb0 chunk=3 recorded",
        "level": "info", "logger": "twinset.test",
    }.items()  # fmt: skip
    with log_context(request_id="r1", job="j1", traceparent="00-x"), log_context(chunk=4, request_id=None):
        found = line("the lease\nwas lost")
    assert (found["request_id"], found["job"], found["chunk"]) == ("r1", "j1", 4)
    assert "traceparent" not in found
    assert line("x").keys() == {"time", "level", "logger", "message"}
    assert str(line("x", error=ValueError("why"))["exception"]).endswith("ValueError: why")


def test_a_line_is_one_line_whatever_is_logged() -> None:
    record = logging.LogRecord("t", logging.ERROR, "", 1, "a\nb \u2028 \ud800 %s", (object,), None)
    text = JsonFormatter().format(record)
    assert "\n" not in text
    assert json.loads(text)["message"].startswith("a\nb")


def test_as_text_uvicorn_logs_as_ever_and_as_json_the_root_too() -> None:
    assert "root" not in uvicorn_log_config("info", "text")
    found = uvicorn_log_config("warning", "json")
    assert found["root"] == {"handlers": ["default"], "level": "WARNING"}
    assert {each["()"] for each in found["formatters"].values()} == {JsonFormatter}


@pytest.fixture
def spans() -> Iterator[object]:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use_provider(provider)
    yield exporter
    tracing.use_provider(None)


def test_a_chunks_span_belongs_to_the_trace_of_its_request(spans) -> None:  # type: ignore[no-untyped-def]
    with tracing.span("request", path="/generate") as parent, log_context(traceparent=parent):
        kept = current_origin()["traceparent"]
    with tracing.span("chunk", traceparent=kept, job="j1", chunk=3, request_id=None):
        pass
    request, chunk = spans.get_finished_spans()
    assert chunk.context.trace_id == request.context.trace_id
    assert chunk.parent.span_id == request.context.span_id
    assert dict(chunk.attributes) == {"twinset.job": "j1", "twinset.chunk": 3}


def test_without_an_endpoint_nothing_of_opentelemetry_is_loaded() -> None:
    program = (
        "import sys\nfrom service.kit.tracing import configure_tracing, span\nconfigure_tracing(None, 'x')\n"
        "with span('a', traceparent='b') as own: assert own == 'b'\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_an_endpoint_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(MissingExtra, match=r"pip install 'twinset\[otel\]'"):
        tracing.configure_tracing("http://127.0.0.1:4318", "x")
