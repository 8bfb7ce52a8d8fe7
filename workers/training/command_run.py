"""A training from the command line: in a folder on this machine, or on a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from rich.console import Console

from service.cli.config_file import is_last_step
from service.cli.model_options import chosen, given
from service.cli.server_training import SERVER_OPTIONS, train_on_server
from service.trainings.options import OPTIONS, SystemName
from workers.training.command_support import errors_in_one_line, report_written, run_to_end
from workers.training.options import LOCAL_OPTIONS, part_folder

if TYPE_CHECKING:
    from workers.training.recipes import Order

Report = Callable[[Any, Path, Console], None]
"""Prints a result, given its folder."""


def report_model(card: Any, out: Path, console: Console) -> None:
    """Prints where the model is."""
    report_written(card, out / "model", console)


def train(
    system: SystemName,
    *,
    data: Mapping[str, str],
    lists: tuple[str, ...] = (),
    parts: tuple[str, ...] = (),
    report: Report = report_model,
) -> None:
    """Trains with the parameters of the current command.

    ``data`` has the names of the options that are datasets, with the server's name for each; ``lists`` of those that
    list their items, in the same order; ``parts`` of those that are earlier results.
    """
    context = click.get_current_context()
    if context.params["url"] is not None:
        _refuse(context, LOCAL_OPTIONS, "with --url the server decides it; leave it out")
        _train_on_server(context, system, data, parts)
        return
    _refuse(context, SERVER_OPTIONS, "it is for trainings on a server; give --url with it, or leave it out")
    if context.params["out"] is None:
        raise click.UsageError("Missing option '--out', the run's folder; or give --url to train on a server.")
    with errors_in_one_line():
        settings = OPTIONS[system].model_validate(chosen(context, OPTIONS[system]))
        _train_here(_order(context, settings, tuple(data), lists, parts), report, last=is_last_step(context))


def _train_on_server(
    context: click.Context, system: SystemName, data: Mapping[str, str], parts: tuple[str, ...]
) -> None:
    options, model = context.params, OPTIONS[system]
    members: dict[str, Any] = {name: options[name] for name in parts} | {"name": options.get("name")}
    for name, member in data.items():
        members[member], *more = _several(options[name])
        if more:
            raise click.UsageError(f"--{name} is given {1 + len(more)} times; a training on a server has one dataset")
    given_settings = chosen(context, model)
    settings = model.model_validate(given_settings).model_dump(mode="json", include=set(given_settings))
    train_on_server(options["url"], system, members, settings, options)


def _order(
    context: click.Context, settings: Any, data: tuple[str, ...], lists: tuple[str, ...], parts: tuple[str, ...]
) -> Order:
    from workers.data.stream import InputOptions
    from workers.training.recipes import Order

    options = context.params
    sources = tuple(source for name in data for source in _several(options[name]))
    listings = tuple(options[name] for name in lists)
    return Order(
        options=settings,
        data=sources,
        out=options["out"],
        parts={name: part_folder(f"--{name}", options[name]) for name in parts if options[name] is not None},
        lists=listings + (None,) * (len(sources) - len(listings)),
        input=InputOptions(options["data_workers"], options["data_cache"] << 20),
        name=options.get("name"),
        version=options.get("version", "1.0.0"),
        features_weights=options.get("features_weights"),
        clip=options.get("clip"),
    )


def _train_here(order: Order, report: Report, *, last: bool) -> None:
    """Trains in the order's folder, and writes the result. A step that was done before is left alone, unless it is the
    last one, whose result is then written again."""
    from accelerate import Accelerator

    from workers.training.recipes import build, mixed_precision

    cpu, console = bool(click.get_current_context().params["cpu"]), Console()
    options = order.options
    accelerator = Accelerator(cpu=cpu, mixed_precision=mixed_precision(options, cpu=cpu))
    recipe = build(order, accelerator)
    trainer = recipe.trainer
    if not last and trainer.start >= trainer.settings.iterations:
        trainer.close()
        if accelerator.is_main_process:
            console.print(f"iteration {trainer.settings.iterations} was reached before; the next step follows")
        return
    done = run_to_end(
        trainer,
        order.out,
        console,
        checkpoint_every=options.checkpoint_every,
        sample_every=options.sample_every,
        log_every=options.log_every,
    )
    if accelerator.is_main_process:
        report(recipe.finish(done), order.out, console)
    accelerator.wait_for_everyone()


def _several(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _refuse(context: click.Context, names: tuple[str, ...], remedy: str) -> None:
    """Refuses options that do not go with where the training runs. In a file they may stand for the other place."""
    for name in names:
        if given(context, name) and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            flag = "--part" if name == "parts" else f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{flag}: {remedy}")
