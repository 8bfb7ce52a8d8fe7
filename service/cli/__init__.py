"""The ``twinset`` command. Importing this package loads only click, so that ``--help`` is fast."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0 success, 1 failure, 2 wrong usage, 128 + N stopped by signal N."""
    from service.cli.root import run

    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))
