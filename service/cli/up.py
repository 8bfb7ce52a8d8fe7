"""``twinset up``: the embedded stack, until Ctrl-C."""

from __future__ import annotations

import time
from pathlib import Path

import click

_LOOK_EVERY_S = 0.5


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where everything is kept.  [default: TWINSET_DATA_DIR, else ./twinset-data]",
)
def up(port: int, data_dir: Path | None) -> None:
    """Run all of Twinset on this machine until Ctrl-C.

    Broker, API, worker and store, on 127.0.0.1 only. Jobs and twins are kept in the data folder; what a stop interrupts
    goes on at the next start.
    """
    from rich.markup import escape

    from service.cli.console import err, out
    from service.embedded.stack import EmbeddedStack
    from service.settings import read_settings

    folder = data_dir or read_settings().data_dir
    with out.status("Starting broker, API and worker"):
        stack = EmbeddedStack(folder, port=port)
        stack.__enter__()
    try:
        out.print(f"[green]✓[/] Twinset is up at [bold]{stack.url}[/]")
        out.print(f"  Documentation  {stack.url}/docs")
        out.print(f"  Data           {escape(str(stack.data_dir))}")
        out.print(f"  Logs           {escape(str(stack.family.log_dir))}")
        out.print("\nTry, in another terminal:")
        body = '{"model": "cosimgen-dubai", "classes": ["water", "vegetation"], "count": 8}'
        out.print(f"  curl {stack.url}/generate -H 'Content-Type: application/json' \\\n    -d '{escape(body)}'", soft_wrap=True)
        command = "twinset generate --model cosimgen-dubai --classes water,vegetation --count 8 --out twins"
        out.print(f"  {command}" + ("" if stack.port == 8000 else f" --url {stack.url}"), soft_wrap=True)
        out.print("\nCtrl-C stops it.")
        while True:
            time.sleep(_LOOK_EVERY_S)
            news = stack.mend()
            if news:
                err.print(f"[yellow]{escape(news)}[/]")
    finally:
        with out.status("Stopping"):
            stack.__exit__(None, None, None)
        out.print("Stopped. The data is kept.")
