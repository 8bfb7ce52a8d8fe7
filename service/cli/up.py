"""``twinset up``: runs the embedded stack until Ctrl-C."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from service.local.stack import EmbeddedStack

_POLL_INTERVAL_S = 0.5


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port of the API; 0 takes a free one.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="The data folder.  [default: TWINSET_DATA_DIR, else ./twinset-data]",
)
def up(port: int, data_dir: Path | None) -> None:
    """Run all of Twinset on this machine until Ctrl-C.

    Starts broker, API, workers and store, on 127.0.0.1 only. Jobs and twins are kept in the data folder; interrupted
    jobs continue at the next start.
    """
    from service.cli.console import err, escape
    from service.cli.local_stack import running_stack
    from service.settings import read_settings

    with running_stack(data_dir or read_settings().data_dir, port=port) as stack:
        _print_first_steps(stack)
        for notice in stack.notices:
            err.print(f"[yellow]{escape(notice, lines=True)}[/]", soft_wrap=True)
        try:
            while True:
                time.sleep(_POLL_INTERVAL_S)
                stack.start_wanted()
                message = stack.restart_dead()
                if message:
                    err.print(f"[yellow]{escape(message, lines=True)}[/]", soft_wrap=True)
        except KeyboardInterrupt:
            pass  # the normal way to end this command, so not a failure
    click.echo("Stopped. The data is kept.")


def _print_first_steps(stack: EmbeddedStack) -> None:
    from service.cli.console import escape, out

    body = json.dumps({"model": "cosimgen-dubai", "classes": ["water", "vegetation"], "count": 8})
    command = "twinset generate --model cosimgen-dubai --classes water,vegetation --count 8 --out twins"
    lines = (
        f"[green]✓[/] Twinset is up at [bold]{stack.url}[/]",
        f"  Documentation  {stack.url}/docs",
        f"  Data           {escape(str(stack.data_dir))}",
        f"  Logs           {escape(str(stack.processes.log_dir))}",
        "",
        "Try, in another terminal:",
        f"  curl {stack.url}/generate -H 'Content-Type: application/json' \\",
        f"    -d '{escape(body)}'",
        f"  {command}" + ("" if stack.port == 8000 else f" --url {stack.url}"),
        "",
        "Stop it with Ctrl-C.",
    )
    for line in lines:
        out.print(line, soft_wrap=True)
