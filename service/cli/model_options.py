"""Command-line options made from the fields of a pydantic model, so that names, limits and help have one source.

``Literal`` becomes a choice, numbers get the field's range, ``bool`` is a pair of flags, a dict is CLASS=VALUE once for
each entry. Parameters have the names of the fields; :func:`chosen` gives those that were set.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import annotated_types
import click
from click.core import ParameterSource
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from service.cli.numbers import FiniteFloat

Command = TypeVar("Command", bound=Callable[..., Any])
_FLAGS = {"size_px": "--size", "paper": "--for", "aliases": "--alias", "notes": "--note"}
"""Options that have another name than their field."""


def model_options(model: type[BaseModel]) -> Callable[[Command], Command]:
    """Adds an option for each field of the model, in the model's order."""

    def add(command: Command) -> Command:
        # click lists options in the opposite order of their application
        for name, field in reversed(model.model_fields.items()):
            command = _option(name, field)(command)
        return command

    return add


def chosen(context: click.Context, model: type[BaseModel]) -> dict[str, Any]:
    """The values of the model's fields that were given, on the command line or in a file."""
    return {name: context.params[name] for name in model.model_fields if given(context, name)}


def given(context: click.Context, name: str) -> bool:
    """Whether a parameter was given, on the command line or in a file."""
    return context.get_parameter_source(name) not in (None, ParameterSource.DEFAULT)


class KeyValue(click.ParamType):  # type: ignore[type-arg]
    """NAME=VALUE; an entry of a dict, which a file gives as a pair, stays one. ``read`` reads the value."""

    def __init__(self, name: str, example: str, read: Callable[[Any], Any]) -> None:
        self.name, self._example, self._read = name, example, read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """Parses the entry. Raises a usage error for anything else."""
        key, equals, rest = value if isinstance(value, tuple) else self._parted(str(value))
        try:
            if not equals or not key:
                raise ValueError
            return key, self._read(rest)
        except (ValueError, TypeError):
            shown = f"{key}: {rest}" if isinstance(value, tuple) else str(value)
            self.fail(f"{shown!r} should look like {self._example!r}", param, ctx)

    def _parted(self, text: str) -> tuple[str, str, str]:
        key, equals, rest = text.partition("=")
        return key.strip(), equals, rest


def _option(name: str, field: FieldInfo) -> Callable[[Command], Command]:
    kind, metadata = _kind(field)
    flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
    shared: dict[str, Any] = {"help": _help(field)}
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    if kind is bool:
        # --no-up says that images have none
        off = "--no-up" if name == "has_up" else f"--no-{name.replace('_', '-')}"
        return click.option(f"{flag}/{off}", name, default=default, **shared)
    origin = get_origin(kind)
    if origin is dict:
        value_type = get_args(kind)[1]
        words = get_origin(value_type) is tuple
        entry = (
            KeyValue("CLASS=WORD[,WORD]", "Road=roads,street", _words)
            if words
            else KeyValue("CLASS=SHARE", "Water=0.2", float)
        )
        shared |= {"type": entry, "metavar": entry.name}
    if origin in (dict, tuple):
        shared["help"] = f"{shared['help'] or ''} May be given again.".strip()
        return click.option(flag, name, multiple=True, callback=_checked(field), **shared)
    if origin is Literal:
        return click.option(
            flag, name, type=click.Choice(get_args(kind)), default=default, show_default=default is not None, **shared
        )
    if kind in (int, float):
        low, high = _limits(metadata)
        number = click.IntRange if kind is int else FiniteFloat
        shared["type"] = number(
            low and low[0], high and high[0], min_open=bool(low and low[1]), max_open=bool(high and high[1])
        )
        return click.option(flag, name, default=default, show_default=default is not None, **shared)
    return click.option(flag, name, default=default, callback=_checked(field), **shared)


def _kind(field: FieldInfo) -> tuple[Any, list[Any]]:
    """The type of the field without None, and the limits of its values."""
    kind, metadata = field.annotation, list(field.metadata)
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(each for each in get_args(kind) if each is not type(None))
    if get_origin(kind) is Annotated:
        kind, *more = get_args(kind)
        metadata += more
    return kind, metadata


def _limits(metadata: list[Any]) -> tuple[tuple[Any, bool] | None, tuple[Any, bool] | None]:
    """The lower and the upper limit of a number, and whether each is itself excluded."""
    low = high = None
    for mark in metadata:
        if isinstance(mark, annotated_types.Ge | annotated_types.Gt):
            low = (mark.ge, False) if isinstance(mark, annotated_types.Ge) else (mark.gt, True)
        elif isinstance(mark, annotated_types.Le | annotated_types.Lt):
            high = (mark.le, False) if isinstance(mark, annotated_types.Le) else (mark.lt, True)
    return low, high


def _checked(field: FieldInfo) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A callback that checks the value as the model does, and makes a dict of pairs."""
    kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    is_dict = get_origin(_kind(field)[0]) is dict

    def check(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        if value is None:
            return None
        try:
            return adapter.validate_python(dict(value) if is_dict else value)
        except ValidationError as error:
            first = error.errors()[0]
            what = first["msg"] if first["type"] != "string_pattern_mismatch" else f"it should be {field.description}"
            raise click.BadParameter(f"{first['input']!r}: {what}.", context, parameter) from None

    return check


def _help(field: FieldInfo) -> str | None:
    text = field.description
    if text is None:
        return None
    # the first word may be a value, which stays as it is written
    return f"{text}." if text.split()[0].endswith(":") else f"{text[0].upper()}{text[1:]}."


def _words(given: Any) -> tuple[str, ...]:
    """Words by commas, or a list of them. Raises ValueError if there are none."""
    listed = re.split(",", given) if isinstance(given, str) else [str(word) for word in given]
    words = tuple(word.strip() for word in listed if word.strip())
    if not words:
        raise ValueError(f"{given!r} has no word")
    return words


def as_pairs(given: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    """The entries of a dict in a file, as :class:`KeyValue` takes them."""
    return [(str(name), "=", value) for name, value in given.items()]
