"""The root command ``twinset``: the table of commands, and the mapping of errors to exit codes.

Higher layers, which this package may not import, add commands through the entry-point group ``twinset.commands``.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import click

from service.cli.lazy import LazyGroup
from service.errors import TwinsetError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

PLUGIN_GROUP = "twinset.commands"

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("service.cli.demo:demo", "Make eight twins on this machine and a contact sheet of them."),
    "up": ("service.cli.up:up", "Run all of Twinset on this machine until Ctrl-C."),
    "generate": ("service.cli.generate:generate", "Make twins on a server and download them into a folder."),
    "augment": ("service.cli.augment:augment", "Extend a dataset with twins, by a plan."),
    "export": (
        "service.cli.export:export",
        "Write twins and datasets as one dataset, in a format for training.",
    ),
    "datasets": ("service.cli.datasets:datasets", "Check datasets, count their classes, and upload them to a server."),
    "trainings": ("service.cli.trainings:trainings", "List, follow and control the trainings of a server."),
    "uploads": ("service.cli.uploads:uploads", "List and delete the masks that are stored on a server."),
    "models": ("service.cli.models:models", "List, show, add and change models."),
    "keys": ("service.cli.keys:keys", "Create, list and revoke API keys."),
    "serve": ("service.cli.serve_and_worker:serve", "Run the API, with a given broker and store."),
    "worker": ("service.cli.serve_and_worker:worker", "Run a worker, with a given broker and store."),
    "webhook-secret": (
        "service.cli.webhook_secret:webhook_secret",
        "Show the secret that webhooks are signed with.",
    ),
    "settings": ("service.cli.settings:settings", "Show all settings with their values."),
}


class RootGroup(LazyGroup):
    """The commands of the table and of the entry-point group."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.table, *sorted(_plugins().keys() - self.table.keys())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.table:
            return super().get_command(ctx, cmd_name)
        plugin = _plugins().get(cmd_name)
        return None if plugin is None else plugin.load()


def _plugins() -> dict[str, EntryPoint]:
    # finding entry points reads every installed distribution, so the commands of the table do not use it
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=PLUGIN_GROUP)}


def _print_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        from service import __version__

        click.echo(f"twinset {__version__}")
        ctx.exit()


@click.group(
    cls=RootGroup,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def twinset() -> None:
    """Twinset makes twins: pairs of an image and its segmentation mask, by diffusion models.

    Start with: twinset demo
    """


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; prints errors to standard error."""
    try:
        with signals_unwind():
            outcome = twinset.main(args=list(arguments), prog_name="twinset", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        # An interrupt amid code from a string (a dataclass of a module that is imported) leaves a mark in CPython, by
        # which "python -m" ends by the signal, although it was handled. Running the next such code removes it.
        exec("")
        return 128 + signal.SIGINT
    except TwinsetError as error:
        from service.cli.console import show_problem

        show_problem(error.problem())
        return 1
    except BrokenPipeError:
        # the reader of our output is gone ("twinset models list | head"); keep Python from reporting that at exit
        sys.stderr.close()
        return 128 + signal.SIGPIPE


@contextmanager
def signals_unwind() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP run the ``finally`` blocks, as Ctrl-C does, so that no child process is left."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    names = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {name: signal.signal(name, leave) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
