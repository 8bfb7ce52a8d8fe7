"""``twinset settings``: shows every setting with its value, default and description."""

from __future__ import annotations

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def settings(as_json: bool) -> None:
    """Show all settings with their values.

    Set a setting by the environment variable of its name. A star marks values that differ from the default.
    """
    from service.cli.settings_table import describe
    from service.settings import read_settings

    rows = describe(read_settings())
    if as_json:
        import json
        from dataclasses import asdict

        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return

    from rich.table import Table

    from service.cli.console import escape, out

    table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0), show_header=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    for row in rows:
        value, default = escape(row.value) or "not set", escape(row.default) or "not set"
        shown = (
            f"[bold]{value}[/]" if row.value == row.default else f"[bold yellow]{value} *[/] [dim]default {default}[/]"
        )
        table.add_row(row.env, f"{shown}\n[dim]{escape(row.description)}[/]")
    out.print(table)
