"""Which requests are retried, and when; against scripted responses, with a clock that does not wait."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from service.client.config import Config
from service.client.effects import Fetch, Flow, Request, Response, Send, Sleep
from service.client.errors import ApiProblem, ServerUnreachable, UnexpectedAnswer
from service.client.retries import (
    fetch,
    link_request,
    parse,
    retry_after_s,
    send,
)
from service.client.views import JobInfoPage

GET = Request("GET", "/jobs")
UNSAFE = Request("POST", "/datasets", repeatable=False)
OK = Response(200, {}, b"{}")


@dataclass
class Script:
    """Plays outcomes in order, advances the clock without waiting, and records what was sent and slept."""

    outcomes: list[Any]
    now: float = 1000.0
    sent: list[Request] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    @property
    def config(self) -> Config:
        return Config("http://twins.example", retry_timeout_s=30.0, clock=lambda: self.now, jitter=lambda: 1.0)

    def play(self, flow: Flow[Any]) -> Any:
        try:
            effect = next(flow)
            while True:
                if isinstance(effect, Sleep):
                    self.slept.append(effect.seconds)
                    self.now += effect.seconds
                    effect = flow.send(None)
                    continue
                assert isinstance(effect, (Send, Fetch))
                self.sent.append(effect.request)
                outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
                if callable(outcome):
                    outcome = outcome(effect)
                effect = flow.throw(outcome) if isinstance(outcome, Exception) else flow.send(outcome)
        except StopIteration as end:
            return end.value


def refused(status: int, headers: Mapping[str, str] | None = None, **members: Any) -> Response:
    document = {"type": "/problems/x", "title": "No", "status": status, "detail": "because", **members}
    return Response(
        status,
        httpx.Headers({"content-type": "application/problem+json", **(headers or {})}),
        json.dumps(document).encode(),
    )


@pytest.mark.parametrize(
    "outcome", [httpx.ConnectError("refused"), httpx.ReadError("reset"), httpx.ReadTimeout("slow"), refused(503)]
)
def test_a_repeatable_request_is_sent_again_with_growing_pauses(outcome: Any) -> None:
    script = Script([outcome, outcome, outcome, OK])
    assert script.play(send(script.config, GET)) == OK
    assert script.slept == [0.2, 0.4, 0.8]
    assert len(script.sent) == 4


def test_jitter_takes_up_to_half_of_a_pause() -> None:
    script = Script([refused(502), OK])
    config = Config("http://twins.example", jitter=lambda: 0.0, clock=lambda: 0.0)
    script.play(send(config, GET))
    assert script.slept == [0.1]


def test_retries_end_after_the_timeout() -> None:
    script = Script([httpx.ConnectError("refused")])
    with pytest.raises(ServerUnreachable, match="twinset up") as caught:
        script.play(send(script.config, GET))
    assert isinstance(caught.value.__cause__, httpx.ConnectError)
    assert 20 < sum(script.slept) <= 30
    assert max(script.slept) == 8.0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500, 501])
def test_permanent_errors_are_raised_at_once(status: int) -> None:
    script = Script([refused(status)])
    with pytest.raises(ApiProblem) as caught:
        script.play(send(script.config, GET))
    assert (caught.value.status, script.slept, len(script.sent)) == (status, [], 1)


def test_a_damaged_object_is_not_retried() -> None:
    script = Script([refused(503, type="/problems/object-damaged")])
    with pytest.raises(ApiProblem):
        script.play(send(script.config, GET))
    assert script.slept == []


@pytest.mark.parametrize("outcome", [httpx.ReadError("reset"), httpx.ReadTimeout("slow"), refused(503), refused(502)])
def test_a_request_that_may_have_been_accepted_is_not_sent_again(outcome: Any) -> None:
    script = Script([outcome])
    with pytest.raises((ApiProblem, ServerUnreachable)) as caught:
        script.play(send(script.config, UNSAFE))
    assert script.slept == []
    if isinstance(outcome, httpx.ReadError):
        assert "check before you send it again" in str(caught.value)


@pytest.mark.parametrize(
    "outcome", [httpx.ConnectError("refused"), httpx.ConnectTimeout("slow"), refused(429, {"retry-after": "1"})]
)
def test_a_request_that_was_certainly_not_accepted_is_sent_again(outcome: Any) -> None:
    script = Script([outcome, OK])
    assert script.play(send(script.config, UNSAFE)) == OK


def test_retry_after_is_respected_in_seconds_and_as_a_date() -> None:
    script = Script([refused(429, {"retry-after": "7"}), refused(503, {"retry-after": "3"}), OK])
    script.play(send(script.config, GET))
    assert script.slept == [pytest.approx(7.02), pytest.approx(3.04)]
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 85 < (retry_after_s({"retry-after": date}) or 0) <= 90
    assert [retry_after_s({"retry-after": text}) for text in ("", "soon", "-1", "9" * 10)] == [None, None, None, None]
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0


def test_a_wait_beyond_the_timeout_is_not_begun() -> None:
    script = Script([refused(429, {"retry-after": "31"})])
    with pytest.raises(ApiProblem):
        script.play(send(script.config, GET))
    assert script.slept == []


class Bytes:
    def __init__(self) -> None:
        self.data = b""

    @property
    def size(self) -> int:
        return len(self.data)

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        self.data = self.data if status == 206 else b""

    def write(self, chunk: bytes) -> None:
        self.data += chunk


def test_a_broken_transfer_continues_and_resets_the_timeout() -> None:
    whole = bytes(range(100))

    def broken(effect: Fetch) -> Exception:
        start = effect.sink.size
        effect.sink.begin(206 if start else 200, {})
        effect.sink.write(whole[start : start + 10])
        return httpx.ReadError("reset")

    def rest(effect: Fetch) -> Response:
        effect.sink.begin(206, {})
        effect.sink.write(whole[effect.sink.size :])
        return Response(206, {})

    sink = Bytes()
    script = Script([broken] * 9 + [rest])
    script.play(fetch(script.config, GET, sink))
    assert sink.data == whole
    assert [request.headers.get("Range") for request in script.sent] == [
        None,
        *(f"bytes={n}-" for n in range(10, 100, 10)),
    ]
    assert script.slept == [0.2] * 9


def test_a_body_that_broke_off_after_its_last_byte_is_complete() -> None:
    def broken(effect: Fetch) -> Exception:
        effect.sink.write(b"all")
        return httpx.ReadError("reset")

    sink = Bytes()
    script = Script([broken, refused(416)])
    script.play(fetch(script.config, GET, sink))
    assert sink.data == b"all"


def test_a_problem_lists_all_faults_and_the_remedy() -> None:
    faults = [
        {"pointer": "/count", "detail": "count is 0; give 1 or more"},
        {"pointer": "/eta", "detail": "eta is 2; give 0 to 1"},
    ]
    script = Script([refused(422, detail="count is 0; give 1 or more", errors=faults)])
    with pytest.raises(ApiProblem) as caught:
        script.play(send(script.config, GET))
    assert str(caught.value) == "count is 0; give 1 or more\n  /eta: eta is 2; give 0 to 1"
    assert caught.value.errors == faults
    script = Script([refused(401)])
    with pytest.raises(ApiProblem, match="TWINSET_API_KEY"):
        script.play(send(script.config, GET))


def test_a_response_of_another_program_is_recognised() -> None:
    page = Response(200, httpx.Headers({"content-type": "text/html"}), b"<html>Please log in</html>")
    with pytest.raises(UnexpectedAnswer, match="Is the address that of Twinset's API"):
        parse(JobInfoPage, page)
    script = Script([Response(302, httpx.Headers({"location": "https://login.example/sso?next=secret"}), b"")])
    with pytest.raises(ApiProblem, match="redirects to") as caught:
        script.play(send(script.config, GET))
    assert "secret" not in str(caught.value)
    script = Script([Response(500, httpx.Headers(), b"Traceback")])
    with pytest.raises(ApiProblem, match="no problem document: Traceback"):
        script.play(send(script.config, GET))


def test_links_are_http_or_paths_on_the_server() -> None:
    config = Config("https://twins.example/api")
    assert link_request(config, "/api/objects/a?signature=x").url == "https://twins.example/api/objects/a?signature=x"
    assert link_request(config, "https://store.example/a?signature=x").url == "https://store.example/a?signature=x"
    for bad in ("file:///etc/passwd", "ftp://store.example/a", "http://"):
        with pytest.raises(UnexpectedAnswer):
            link_request(config, bad)
    for bad in (httpx.UnsupportedProtocol("no"), httpx.LocalProtocolError("no")):
        script = Script([bad])
        with pytest.raises(ServerUnreachable):
            script.play(send(script.config, GET))
        assert script.slept == []


def test_an_unreachable_server_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    script = Script([httpx.ConnectError("refused")] * 5 + [OK])
    script.play(send(script.config, GET))
    assert [record.message for record in caplog.records] == [
        "http://twins.example does not answer (refused); retrying for up to 30 s"
    ]
