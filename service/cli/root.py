"""The table of commands, and how a command's end becomes an exit code.

Packages above the service floor add
commands through the entry-point group ``twinset.commands``, since nothing here may import them.
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
    "demo": ("service.cli.demo:demo", "Make eight twins on this machine and look at them."),
    "up": ("service.cli.up:up", "Run all of Twinset on this machine until Ctrl-C."),
    "generate": ("service.cli.generate:generate", "Have a server make twins, and fetch them into a folder."),
    "augment": ("service.cli.augment:augment", "Extend a dataset with twins, as a plan says."),
    "export": (
        "service.cli.export:export",
        "Write twins and datasets as one dataset, in the format that you train from.",
    ),
    "datasets": ("service.cli.datasets:datasets", "Check datasets, count what is in them, and send them to a server."),
    "models": ("service.cli.models:models", "List, show and add models."),
    "keys": ("service.cli.keys:keys", "Make, list and revoke API keys."),
    "serve": ("service.cli.serve_and_worker:serve", "Run the API alone, against a given broker and store."),
    "worker": ("service.cli.serve_and_worker:worker", "Run a worker alone, against a given broker and store."),
    "webhook-secret": (
        "service.cli.webhook_secret:webhook_secret",
        "Show the secret that callbacks are signed with.",
    ),
    "settings": ("service.cli.settings:settings", "Show every setting, its value and what it may be."),
}


class RootGroup(LazyGroup):
    """The table's commands, and those of other packages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.table, *sorted(_plugins().keys() - self.table.keys())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.table:
            return super().get_command(ctx, cmd_name)
        plugin = _plugins().get(cmd_name)
        return None if plugin is None else plugin.load()


def _plugins() -> dict[str, EntryPoint]:
    # Finding entry points reads every installed distribution, which the commands of the table need not wait for.
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
    """Twinset makes image-mask pairs, from words, in any number.

    Start with: twinset demo
    """


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; errors have been printed to standard error."""
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
        return 128 + signal.SIGINT
    except TwinsetError as error:
        from service.cli.console import show_problem

        show_problem(error.problem())
        return 1
    except BrokenPipeError:
        # The reader of our output has gone ("twinset models list | head"); Python must not complain of it at exit.
        sys.stderr.close()
        return 128 + signal.SIGPIPE


@contextmanager
def signals_unwind() -> Iterator[None]:
    """SIGTERM and SIGHUP leave through the ``finally`` blocks as Ctrl-C does, so that no child stays behind."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    names = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {name: signal.signal(name, leave) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
