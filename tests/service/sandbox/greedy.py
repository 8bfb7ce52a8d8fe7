"""The work of a child process in the tests: each request names one thing that a child must not be able to do."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from service.errors import InvalidDataset
from service.sandbox.channel import Channel


def main(channel: Channel) -> None:
    """Does what the request names, and gives back what came of it."""
    what = channel.request["do"]
    channel.finish({"came": globals()[what](channel)})


def nothing(channel: Channel) -> str:
    return "done"


def allocate(channel: Channel) -> int:
    return len(bytearray(8 << 30))


def spin(channel: Channel) -> None:
    while True:
        pass


def sleep(channel: Channel) -> None:
    time.sleep(600)


def start_a_program(channel: Channel) -> str:
    try:
        subprocess.run(["/bin/true"], check=False)
    except PermissionError:
        return "refused"
    return "started"


def fork(channel: Channel) -> str:
    try:
        pid = os.fork()
    except PermissionError:
        return "refused"
    if not pid:
        os._exit(0)
    return "started"


def open_a_socket(channel: Channel) -> str:
    try:
        socket.socket().close()
    except PermissionError:
        return "refused"
    return "opened"


def call_by_another_table(channel: Channel) -> int:
    # the number of getpid, with the bit of the x32 tables, in which no number is one of the filter's
    return int(ctypes.CDLL(None).syscall(0x40000000 | 39))


def protected(channel: Channel) -> list[int]:
    prctl, signal_of_death = ctypes.CDLL(None).prctl, ctypes.c_int()
    prctl(2, ctypes.byref(signal_of_death), 0, 0, 0)
    return [prctl(3, 0, 0, 0, 0), signal_of_death.value]


def secrets(channel: Channel) -> list[str]:
    return sorted(name for name in os.environ if name.startswith(("TWINSET_", "AWS_")))


def fill_the_disk(channel: Channel) -> None:
    number = 0
    while True:
        Path(f"{number}").write_bytes(bytes(1 << 20))
        number += 1
        time.sleep(0.001)


def write_a_large_file(channel: Channel) -> str:
    try:
        with open("large", "wb") as file:
            for _ in range(200):
                file.write(bytes(1 << 20))
    except OSError as error:
        return error.strerror or ""
    return "written"


def crash(channel: Channel) -> None:
    ctypes.string_at(0)


def talk_nonsense(channel: Channel) -> None:
    os.write(3, b"nonsense\n")
    # whichever number the messages have
    for number in range(3, 8):
        try:
            os.write(number, b"nonsense\n")
        except OSError:
            continue
    time.sleep(600)


def never_end_a_line(channel: Channel) -> None:
    while True:
        channel._outgoing.write(b"x" * 65536)
        channel._outgoing.flush()


def refuse(channel: Channel) -> None:
    raise InvalidDataset("the first file is \x1b[31mred", file="a.png")


def fail(channel: Channel) -> None:
    raise IndexError("nobody foresaw it")


def print_much(channel: Channel) -> str:
    for _ in range(2000):
        print("x" * 1000)
        print("y" * 1000, file=sys.stderr)
    return "printed"


def ask(channel: Channel) -> object:
    answer, body = channel.call("double", b"abc", number=4)
    return [answer["number"], body.decode()]


def ask_for_too_much(channel: Channel) -> object:
    return channel.call("forbidden")[0]
