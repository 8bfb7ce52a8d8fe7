"""``twinset trainings``: lists a server's trainings, follows, pauses, resumes, cancels and deletes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from service.cli.stored_datasets import open_client, url_option

if TYPE_CHECKING:
    from service.client import Training

_ID = click.argument("training", metavar="ID")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def trainings() -> None:
    """List, follow and control the trainings of a server."""


@trainings.command(name="list")
@_JSON
@url_option
def list_trainings(as_json: bool, url: str | None) -> None:
    """List trainings, newest first."""
    from rich.table import Table

    from service.cli.console import escape, out

    with open_client(url) as client:
        found = list(client.trainings())
    if as_json:
        import json

        click.echo(json.dumps([one.info.model_dump(mode="json") for one in found], indent=2, ensure_ascii=False))
        return
    if not found:
        out.print(
            "There are no trainings. Start one with: twinset train cosimgen --data NAME --url URL", soft_wrap=True
        )
        return
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for heading in ("training", "system", "state", "iterations", "model"):
        table.add_column(heading, justify="right" if heading == "iterations" else "left", no_wrap=heading == "training")
    for one in found:
        of = "" if one.total is None else f" of {one.total}"
        table.add_row(one.id, one.info.system, one.info.state.value, f"{one.done}{of}", escape(one.model or ""))
    out.print(table)


@trainings.command()
@_ID
@_JSON
@url_option
def show(training: str, as_json: bool, url: str | None) -> None:
    """Show a training: its state, stages, losses, and the model it made."""
    with open_client(url) as client:
        found = client.training(training)
        if as_json:
            click.echo(found.info.model_dump_json(indent=2))
        else:
            print_training(found)


@trainings.command()
@_ID
@url_option
def follow(training: str, url: str | None) -> None:
    """Wait for a training's end, with a progress bar. Exits with 1 if it fails."""
    with open_client(url) as client:
        print_training(client.training(training).wait())


@trainings.command()
@_ID
@url_option
def pause(training: str, url: str | None) -> None:
    """Stop a training at a checkpoint, and free its worker."""
    with open_client(url) as client:
        print_training(client.training(training).pause())


@trainings.command()
@_ID
@url_option
def resume(training: str, url: str | None) -> None:
    """Let a paused training go on from its checkpoint."""
    with open_client(url) as client:
        print_training(client.training(training).resume())


@trainings.command()
@_ID
@url_option
def cancel(training: str, url: str | None) -> None:
    """End a training; its checkpoints stay."""
    with open_client(url) as client:
        print_training(client.training(training).cancel())


@trainings.command()
@_ID
@url_option
def delete(training: str, url: str | None) -> None:
    """Delete a training with its checkpoints; the model it made stays."""
    with open_client(url) as client:
        client.training(training).delete()
    click.echo(f"Deleted {training}.")


def print_training(training: Training) -> None:
    """Prints a summary of a training."""
    from service.cli.console import escape, out

    info = training.info
    colour = {"succeeded": "green", "failed": "red"}.get(info.state.value, "cyan")
    made = f"  [bold cyan]{escape(info.model)}[/]" if info.model else ""
    out.print(f"[bold]{info.id}[/]  {info.system}  [{colour}]{info.state.value}[/]{made}", soft_wrap=True)
    if info.reason:
        out.print(f"  {escape(info.reason)}", soft_wrap=True)
    for number, stage in enumerate(info.stages):
        of = "" if stage.iterations is None else f" of {stage.iterations}"
        losses = ", ".join(
            f"{name} {points[-1][1]:.4g}"
            for name, points in stage.series.items()
            if points and name not in ("seconds_per_iteration", "gradient_norm")
        )
        out.print(
            f"  {number + 1}. {stage.system}: {stage.done}{of} iterations  [dim]{escape(losses)}[/]", soft_wrap=True
        )
    out.print(f"  [dim]{info.training_seconds:.0f} s of training, {info.checkpoints} checkpoints[/]", soft_wrap=True)
    if info.state.value == "succeeded" and info.model:
        out.print(f"  Try: twinset generate --model {escape(info.model)} --help", soft_wrap=True)
