"""Child processes with limits: what a child cannot do, and how each of its ends reaches the parent."""

from __future__ import annotations

import os
import platform
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from service.errors import InvalidDataset
from service.sandbox.frames import MAX_BODY_BYTES, FrameBuffer, ProtocolBroken, as_frame
from service.sandbox.limits import SandboxLimits
from service.sandbox.process import Sandbox, SandboxExceeded, SandboxLost

LIMITS = SandboxLimits(
    memory_bytes=1 << 30, cpu_s=20, timeout_s=30, file_bytes=64 << 20, folder_bytes=64 << 20, folder_files=1000
)
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the filter of system calls is Linux's")


def sandbox(do: str, folder: Path, limits: SandboxLimits = LIMITS, **options: Any) -> Sandbox:
    def answer(name: str, values: Any, body: bytes) -> tuple[dict[str, Any], bytes]:
        if name != "double":
            raise ProtocolBroken(f"{name} is not allowed")
        return {"number": 2 * values["number"]}, 2 * body

    return Sandbox("tests.service.sandbox.greedy", {"do": do}, limits, answer, folder=folder, **options)


def came_of(do: str, folder: Path, limits: SandboxLimits = LIMITS) -> object:
    return sandbox(do, folder, limits).run().values["came"]


def exceeded(do: str, folder: Path, limits: SandboxLimits = LIMITS) -> SandboxExceeded:
    with pytest.raises(SandboxExceeded) as caught:
        sandbox(do, folder, limits).run()
    return caught.value


def test_it_gives_back_a_result_and_its_calls_are_answered(tmp_path: Path) -> None:
    assert came_of("nothing", tmp_path) == "done"
    assert came_of("ask", tmp_path) == [8, "abcabc"]


def test_what_it_prints_does_not_disturb_its_messages(tmp_path: Path) -> None:
    assert came_of("print_much", tmp_path) == "printed"


@on_linux
@pytest.mark.parametrize("do", ["start_a_program", "fork", "open_a_socket"])
def test_it_starts_no_program_and_opens_no_socket(do: str, tmp_path: Path) -> None:
    assert came_of(do, tmp_path) == "refused"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have one table of system calls")
@on_linux
def test_it_calls_the_kernel_by_no_other_table_of_numbers(tmp_path: Path) -> None:
    assert exceeded("call_by_another_table", tmp_path).detail.startswith("its process ended with signal SIGSYS")


@on_linux
def test_nobody_looks_into_it_and_it_ends_with_its_parent(tmp_path: Path) -> None:
    assert came_of("protected", tmp_path) == [0, signal.SIGKILL]


def test_its_environment_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINSET_LINK_SECRET", "0123456789abcdef")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert came_of("secrets", tmp_path) == []


def test_nothing_is_imported_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("json", "ctypes", "pydantic"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a foreign file was imported')\n")
    monkeypatch.setenv("PYTHONPATH", f"{os.pathsep}.{os.pathsep}")
    assert came_of("nothing", tmp_path) == "done"


def test_too_much_memory_is_its_own_end(tmp_path: Path) -> None:
    assert exceeded("allocate", tmp_path).bound == "memory"


def test_too_much_processor_time_ends_it(tmp_path: Path) -> None:
    assert exceeded("spin", tmp_path, SandboxLimits(1 << 30, cpu_s=1, timeout_s=30)).bound == "cpu"


def test_too_much_time_ends_it(tmp_path: Path) -> None:
    assert exceeded("sleep", tmp_path, SandboxLimits(1 << 30, cpu_s=9, timeout_s=1)).bound == "time"


def test_too_much_disk_ends_it(tmp_path: Path) -> None:
    assert exceeded("fill_the_disk", tmp_path).bound == "disk"


def test_a_file_has_a_largest_size(tmp_path: Path) -> None:
    assert came_of("write_a_large_file", tmp_path) == os.strerror(27)


def test_a_crash_is_named_and_is_not_tried_again(tmp_path: Path) -> None:
    assert exceeded("crash", tmp_path).detail.startswith("its process ended with signal SIGSEGV")


def test_an_unforeseen_error_is_named(tmp_path: Path) -> None:
    assert exceeded("fail", tmp_path).detail == "IndexError: nobody foresaw it"


@pytest.mark.parametrize("do", ["talk_nonsense", "never_end_a_line", "ask_for_too_much"])
def test_a_child_that_breaks_the_rules_is_ended(do: str, tmp_path: Path) -> None:
    assert "sent what it must not" in exceeded(do, tmp_path).detail


def test_an_error_of_the_project_arrives_as_itself_with_its_text_made_safe(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match=r"the first file is \\x1b\[31mred") as caught:
        sandbox("refuse", tmp_path).run()
    assert caught.value.extra == {"file": "a.png"}


def test_what_the_tick_raises_ends_it_at_once(tmp_path: Path) -> None:
    class Cancelled(Exception):
        pass

    ends = time.monotonic() + 1.5

    def tick() -> None:
        if time.monotonic() > ends:
            raise Cancelled

    child = sandbox("sleep", tmp_path, tick=tick)
    with pytest.raises(Cancelled):
        child.run()
    assert time.monotonic() < ends + 2
    assert child._process is not None
    assert child._process.poll() is not None


def test_a_killed_child_may_be_tried_again(tmp_path: Path) -> None:
    child = sandbox("sleep", tmp_path)

    def kill() -> None:
        if child._process is not None:
            child._process.kill()

    child.tick = kill
    with pytest.raises(SandboxLost):
        child.run()


def test_messages_are_put_together_from_pieces() -> None:
    sent = as_frame({"report": "a"}) + as_frame({"call": "b"}, b"12345") + as_frame({"report": "c"})
    buffer, found = FrameBuffer(), []
    for place in range(0, len(sent), 3):
        buffer.feed(sent[place : place + 3])
        while (frame := buffer.take()) is not None:
            found.append(frame)
    assert found == [({"report": "a"}, b""), ({"call": "b"}, b"12345"), ({"report": "c"}, b"")]


@pytest.mark.parametrize(
    "line", [b"[]\n", b"{\n", b'{"body_bytes": -1}\n', b'{"body_bytes": %d}\n' % (MAX_BODY_BYTES + 1), b"x" * (1 << 21)]
)
def test_what_is_no_message_is_refused(line: bytes) -> None:
    buffer = FrameBuffer()
    buffer.feed(line)
    with pytest.raises(ProtocolBroken):
        buffer.take()
