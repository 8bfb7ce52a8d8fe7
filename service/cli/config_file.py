"""``--config FILE.yaml``: values of a command's options in a file. The command line wins.

The file has the options' names, with underscores::

    data: mbrsc_dubai
    out: runs/dubai
    has_up: false
    aliases: {Road: [roads], Water: [water]}
    steps:                       # the command runs once for each, in turn; other values are the same in all
      - {iterations: 18000}
      - {iterations: 42000, presence_margin: 4}

Several commands may share a file, each with a section of its name. Scalars are read as texts, so a file and a command
line have the same values: ``no`` is a word, and ``2e-4`` a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from service.cli.model_options import KeyValue, as_pairs

STEPS = "steps"
_COUNT = f"{__name__}.count"
_ARGUMENTS = f"{__name__}.arguments"


class ConfiguredCommand(click.Command):
    """A command that takes ``--config``. ``sections`` are the names that a file may be divided by."""

    sections: Sequence[str] = ()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params.insert(
            0,
            click.Option(
                ["--config"],
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                is_eager=True,
                expose_value=False,
                callback=self._read,
                metavar="FILE.yaml",
                help="Values of these options by their names, with underscores; the command line wins.",
            ),
        )

    @property
    def section(self) -> str:
        """The name of its part of a file."""
        return self.name or ""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command, once for each step of its file. A step that is wrong is refused before the first one."""
        arguments, count = list(ctx.meta[_ARGUMENTS]), ctx.meta.get(_COUNT, 1)
        with ExitStack() as stack:
            later = [
                stack.enter_context(
                    self.make_context(ctx.info_name, list(arguments), parent=ctx.parent, obj=_Step(number))
                )
                for number in range(1, count)
            ]
            result = None
            for step in (ctx, *later):
                with step.scope(cleanup=False):
                    result = super().invoke(step)
        return result

    def _read(self, ctx: click.Context, parameter: click.Parameter, path: Path | None) -> None:
        ctx.meta[_COUNT] = 1
        if path is None:
            return
        number = ctx.obj.number if isinstance(ctx.obj, _Step) else 0
        try:
            steps = read_steps(path, self.section, self.sections)
            ctx.default_map = self._values(steps[number])
        except ValueError as error:
            raise click.BadParameter(f"{path}: {error}", ctx, parameter) from None
        ctx.meta[_COUNT] = len(steps)

    def _values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The values as the options take them; those without a value are left out. Raises ValueError."""
        from service.kit.validation import closest_match, join_list

        known = {param.name: param for param in self.params if param.expose_value and param.name}
        for name in given:
            if name not in known:
                near = closest_match(name, known)
                meant = f"did you mean {near!r}? " if near else ""
                raise ValueError(f"{self.section} has no {name!r}; {meant}It has: {join_list(sorted(known))}")
        return {name: _shaped(known[name], value) for name, value in given.items() if value != ""}


class _Step:
    """The number of a step, for the context that runs it."""

    def __init__(self, number: int) -> None:
        self.number = number


def is_last_step(ctx: click.Context) -> bool:
    """Whether no other step of the command's file follows."""
    number = ctx.obj.number if isinstance(ctx.obj, _Step) else 0
    return number == int(ctx.meta.get(_COUNT, 1)) - 1


def read_steps(path: Path, section: str, sections: Sequence[str]) -> list[dict[str, Any]]:
    """The values of each step for a command, one step if the file has none. Raises ValueError naming what is wrong."""
    from service.kit.documents import parse_yaml
    from service.kit.validation import join_list

    try:
        found = parse_yaml(path.read_text(encoding="utf-8-sig"), plain=True)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    found = _mapping(found, "it")
    # a section is a map, so an option of the same name, such as superres, is not taken for one
    if any(name in sections and isinstance(value, dict) for name, value in found.items()):
        if section not in found:
            raise ValueError(f"it has no section {section}; it has: {join_list(list(found))}")
        found = _mapping(found[section], section)
    steps = found.pop(STEPS, None)
    if steps is None:
        return [found]
    if not isinstance(steps, list) or not steps:
        raise ValueError(f"{STEPS} should be a list of maps from names of options to values")
    return [found | _mapping(step, f"step {number}") for number, step in enumerate(steps, start=1)]


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} should be a map from names of options to values")
    return dict(value)


def _shaped(param: click.Parameter, value: Any) -> Any:
    """A value of a file as its option takes it: one text, or a list of them, or pairs. Raises ValueError."""
    multiple = isinstance(param, click.Option) and param.multiple
    if isinstance(value, dict) and multiple and isinstance(param.type, KeyValue):
        return as_pairs(value)
    values = value if isinstance(value, list) and multiple else [value]
    if not all(isinstance(each, str) for each in values):
        takes = (
            "a map from names to values" if isinstance(param.type, KeyValue) else "a list" if multiple else "one value"
        )
        raise ValueError(f"{param.name} takes {takes}, not {value!r:.80}")
    return values if multiple else value
