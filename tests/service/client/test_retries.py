"""Requests that are sent again, and those that are not; against scripted answers, in a time that nobody waits for."""

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
from service.client.effects import Answer, Fetch, Flow, Request, Send, Sleep
from service.client.errors import ApiProblem, ServerUnreachable, UnexpectedAnswer
from service.client.retries import (
    fetch,
    link,
    parse,
    retry_after_s,
    send,
)
from service.client.views import JobInfoPage

GET = Request("GET", "/jobs")
UNSAFE = Request("POST", "/datasets", repeatable=False)
OK = Answer(200, {}, b"{}")


@dataclass
class Script:
    """Plays outcomes in turn, passes time without waiting, and notes what was sent and slept."""

    outcomes: list[Any]
    now: float = 1000.0
    sent: list[Request] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    @property
    def config(self) -> Config:
        return Config("http://twins.example", patience_s=30.0, clock=lambda: self.now, jitter=lambda: 1.0)

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


def refused(status: int, headers: Mapping[str, str] | None = None, **members: Any) -> Answer:
    document = {"type": "/problems/x", "title": "No", "status": status, "detail": "because", **members}
    return Answer(
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


def test_patience_ends() -> None:
    script = Script([httpx.ConnectError("refused")])
    with pytest.raises(ServerUnreachable, match="twinset up") as caught:
        script.play(send(script.config, GET))
    assert isinstance(caught.value.__cause__, httpx.ConnectError)
    assert 20 < sum(script.slept) <= 30
    assert max(script.slept) == 8.0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500, 501])
def test_what_will_not_pass_is_told_at_once(status: int) -> None:
    script = Script([refused(status)])
    with pytest.raises(ApiProblem) as caught:
        script.play(send(script.config, GET))
    assert (caught.value.status, script.slept, len(script.sent)) == (status, [], 1)


def test_a_damaged_object_was_read_again_by_the_server_already() -> None:
    script = Script([refused(503, type="/problems/object-damaged")])
    with pytest.raises(ApiProblem):
        script.play(send(script.config, GET))
    assert script.slept == []


@pytest.mark.parametrize("outcome", [httpx.ReadError("reset"), httpx.ReadTimeout("slow"), refused(503), refused(502)])
def test_what_may_have_been_accepted_is_not_sent_again(outcome: Any) -> None:
    script = Script([outcome])
    with pytest.raises((ApiProblem, ServerUnreachable)) as caught:
        script.play(send(script.config, UNSAFE))
    assert script.slept == []
    if isinstance(outcome, httpx.ReadError):
        assert "look before you send it again" in str(caught.value)


@pytest.mark.parametrize(
    "outcome", [httpx.ConnectError("refused"), httpx.ConnectTimeout("slow"), refused(429, {"retry-after": "1"})]
)
def test_what_was_surely_not_accepted_is(outcome: Any) -> None:
    script = Script([outcome, OK])
    assert script.play(send(script.config, UNSAFE)) == OK


def test_retry_after_is_heeded_in_seconds_and_as_a_date() -> None:
    script = Script([refused(429, {"retry-after": "7"}), refused(503, {"retry-after": "3"}), OK])
    script.play(send(script.config, GET))
    assert script.slept == [pytest.approx(7.02), pytest.approx(3.04)]
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 85 < (retry_after_s({"retry-after": date}) or 0) <= 90
    assert [retry_after_s({"retry-after": text}) for text in ("", "soon", "-1", "9" * 10)] == [None, None, None, None]
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0


def test_a_wait_beyond_patience_is_not_begun() -> None:
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

    def write(self, piece: bytes) -> None:
        self.data += piece


def test_what_broke_off_goes_on_where_it_did_and_patience_begins_anew() -> None:
    whole = bytes(range(100))

    def broken(effect: Fetch) -> Exception:
        start = effect.sink.size
        effect.sink.begin(206 if start else 200, {})
        effect.sink.write(whole[start : start + 10])
        return httpx.ReadError("reset")

    def rest(effect: Fetch) -> Answer:
        effect.sink.begin(206, {})
        effect.sink.write(whole[effect.sink.size :])
        return Answer(206, {})

    sink = Bytes()
    script = Script([broken] * 9 + [rest])
    script.play(fetch(script.config, GET, sink))
    assert sink.data == whole
    assert [request.headers.get("Range") for request in script.sent] == [
        None,
        *(f"bytes={n}-" for n in range(10, 100, 10)),
    ]
    assert script.slept == [0.2] * 9


def test_a_body_that_broke_behind_its_last_byte_is_whole() -> None:
    def broken(effect: Fetch) -> Exception:
        effect.sink.write(b"all")
        return httpx.ReadError("reset")

    sink = Bytes()
    script = Script([broken, refused(416)])
    script.play(fetch(script.config, GET, sink))
    assert sink.data == b"all"


def test_a_problem_tells_all_of_its_faults_and_what_to_do() -> None:
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


def test_an_answer_of_another_program_is_told_as_such() -> None:
    page = Answer(200, httpx.Headers({"content-type": "text/html"}), b"<html>Please log in</html>")
    with pytest.raises(UnexpectedAnswer, match="Is the address that of Twinset's API"):
        parse(JobInfoPage, page)
    script = Script([Answer(302, httpx.Headers({"location": "https://login.example/sso?next=secret"}), b"")])
    with pytest.raises(ApiProblem, match="sends elsewhere") as caught:
        script.play(send(script.config, GET))
    assert "secret" not in str(caught.value)
    script = Script([Answer(500, httpx.Headers(), b"Traceback")])
    with pytest.raises(ApiProblem, match="no problem document: Traceback"):
        script.play(send(script.config, GET))


def test_links_may_be_paths_of_the_server_and_nothing_but_http() -> None:
    config = Config("https://twins.example/api")
    assert link(config, "/api/objects/a?signature=x").url == "https://twins.example/api/objects/a?signature=x"
    assert link(config, "https://store.example/a?signature=x").url == "https://store.example/a?signature=x"
    for bad in ("file:///etc/passwd", "ftp://store.example/a", "http://"):
        with pytest.raises(UnexpectedAnswer):
            link(config, bad)
    for bad in (httpx.UnsupportedProtocol("no"), httpx.LocalProtocolError("no")):
        script = Script([bad])
        with pytest.raises(ServerUnreachable):
            script.play(send(script.config, GET))
        assert script.slept == []


def test_a_server_that_stays_away_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    script = Script([httpx.ConnectError("refused")] * 5 + [OK])
    script.play(send(script.config, GET))
    assert [record.message for record in caplog.records] == [
        "http://twins.example does not answer (refused); asking again for up to 30 s"
    ]
