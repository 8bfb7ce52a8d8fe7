"""The first steps of a child process: it limits itself, then runs the work's own module.

Started by path, ``python -P launcher.py MODULE LIMITS``, where LIMITS are numbers joined by commas. Requests come on
standard input; messages go to standard output, to which nothing else is written. MODULE has a function ``main`` that
takes a :class:`service.sandbox.channel.Channel`.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path


def main() -> None:
    """Limits this process, and does the work."""
    module, numbers = sys.argv[1:]
    package_root = str(Path(__file__).resolve().parents[2])
    if package_root not in sys.path:
        sys.path.append(package_root)
    from service.sandbox.limits import enforce
    from service.sandbox.seccomp import forbid_programs_and_network

    memory_bytes, cpu_s, file_bytes, parent = map(int, numbers.split(","))
    enforce(memory_bytes=memory_bytes, cpu_s=cpu_s, file_bytes=file_bytes, parent=parent)
    forbid_programs_and_network()

    from service.sandbox.channel import Channel

    messages = os.fdopen(os.dup(1), "wb")
    # a library that prints must not break into the messages
    os.dup2(2, 1)
    _work(module, Channel(sys.stdin.buffer, messages))


def _work(module: str, channel: object) -> None:
    import importlib

    from service.errors import TwinsetError
    from service.sandbox.channel import Channel

    assert isinstance(channel, Channel)
    try:
        importlib.import_module(module).main(channel)
    except MemoryError:
        channel.fail(limit="memory")
    except TwinsetError as error:
        channel.fail(kind=type(error).__name__, detail=error.detail, extra=error.extra)
    except Exception as error:
        # the parent names it, and does not try again: the same data would give the same
        traceback.print_exc()
        channel.fail(unexpected=f"{type(error).__name__}: {error}"[:500])


if __name__ == "__main__":
    main()
