"""``twinset train ... --url``: sends a training to a server, and follows it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from service.cli.model_options import KeyValue
from service.cli.sources import plain_name
from service.cli.stored_datasets import open_client, print_import_faults, upload_and_wait

if TYPE_CHECKING:
    from service.client import Twinset
    from service.trainings.plan_values import TrainingPlan

Command = TypeVar("Command", bound=Callable[..., Any])
_BESIDE_SETTINGS = ("preset", "fit", "seed")
"""Options that are members of the request themselves."""


def _setting(text: Any) -> Any:
    from service.kit.documents import parse_yaml

    return parse_yaml(text) if isinstance(text, str) else text


_OPTIONS = (
    click.option("--url", help="Train on this server, on a dataset of its own, or on a folder that is uploaded first."),
    click.option("--hours", type=click.FloatRange(0, min_open=True), help="With --url: end after so many hours."),
    click.option("--dry-run", is_flag=True, help="With --url: only check the data, and estimate the time."),
    click.option("--detach", is_flag=True, help="With --url: do not wait for the end."),
    click.option(
        "--part",
        "parts",
        type=KeyValue("PART.OPTION=VALUE", "base.iterations=4000", _setting),
        multiple=True,
        metavar="PART.OPTION=VALUE",
        help="With --url: an option of a part that is trained first, such as base.iterations=4000.",
    ),
)
SERVER_OPTIONS = ("hours", "dry_run", "detach", "parts")
"""Options that only a training on a server has."""


def server_options(command: Command) -> Command:
    """Adds --url, and the options that need it."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def train_on_server(
    url: str, system: str, members: Mapping[str, Any], settings: Mapping[str, Any], options: Mapping[str, Any]
) -> None:
    """Uploads the datasets that are folders or archives, starts the training, and follows it to its end.

    ``members`` are those of ``POST /trainings`` by name; ``settings`` the options that were given. Raises ApiProblem
    and RunFailed.
    """
    from service.cli.trainings import print_training

    body = {name: value for name, value in members.items() if value is not None}
    body |= {name: settings[name] for name in _BESIDE_SETTINGS if name in settings}
    if parts := _parts(options["parts"]):
        body["parts"] = parts
    if options["hours"] is not None:
        body["budget"] = {"hours": options["hours"]}
    rest = {name: value for name, value in settings.items() if name not in _BESIDE_SETTINGS}
    with open_client(url) as client:
        for member in ("dataset", "text_dataset", "mask_dataset"):
            if member in body:
                body[member] = _on_server(client, body[member])
        if options["dry_run"]:
            print_plan(client.plan_training(system=system, settings=rest, **body))
            return
        training = client.train(system=system, settings=rest, **body)
        click.echo(f"Training {training.id} was accepted; follow it with: twinset trainings follow {training.id}")
        if not options["detach"]:
            print_training(training.wait())


def print_plan(plan: TrainingPlan) -> None:
    """Prints the stages of a training that is not started, what it takes, and what its data lack."""
    from service.cli.console import escape, out

    name = f"  [bold cyan]{escape(plan.model)}[/]" if plan.model else ""
    out.print(f"[bold]{plan.system}[/]{name}", soft_wrap=True)
    for data in plan.datasets:
        shares = ", ".join(f"{entry.name} {entry.pixel_share:.0%}" for entry in data.classes)
        out.print(
            f"  {escape(data.dataset)}: {data.trained_on} images to train on, of {data.images}; "
            f"{escape(data.licence)}; {escape(shares)}",
            soft_wrap=True,
        )
    for number, stage in enumerate(plan.stages, start=1):
        out.print(
            f"  {number}. {stage.system}: {stage.iterations} iterations of {stage.batch_size}, {stage.epochs:g} epochs",
            soft_wrap=True,
        )
    for estimate in plan.estimates:
        memory = "" if estimate.memory_bytes is None else f", {estimate.memory_bytes / 2**30:.1f} GiB"
        of = f"{estimate.devices} x " if estimate.devices > 1 else ""
        out.print(f"  {of}{escape(estimate.device)}: {estimate.seconds / 3600:.2f} hours{memory}", soft_wrap=True)
    for note in (*plan.notes, *plan.warnings):
        out.print(f"  [yellow]![/] {escape(note)}", soft_wrap=True)


def _parts(given: tuple[tuple[str, Any], ...]) -> dict[str, dict[str, Any]]:
    """Settings by part: from PART.OPTION=VALUE, or whole parts of a file."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in given:
        part, dot, option = name.partition(".")
        if dot:
            found.setdefault(part, {})[option] = value
        elif isinstance(value, dict):
            # a file's scalars are texts
            found.setdefault(part, {}).update({key: _setting(each) for key, each in value.items()})
        else:
            raise click.UsageError(f"--part {name}={value} names no option; give one as PART.OPTION=VALUE")
    return found


def _on_server(client: Twinset, source: str) -> str:
    """The dataset's name on the server: itself, or that of a folder or archive once it is uploaded."""
    path = Path(source)
    if not path.exists():
        return source
    name = re.sub(r"[^a-z0-9_-]+", "-", plain_name(path.resolve()).lower()).strip("-_")[:63] or "dataset"
    dataset = upload_and_wait(client, name, path)
    print_import_faults(dataset)
    return dataset.info.id
