"""Options made from pydantic models: types, limits, defaults, flags and what was given."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import click
import pytest
from click.testing import CliRunner
from pydantic import BaseModel, Field

from service.cli.model_options import chosen, model_options
from service.trainings.options import OPTIONS


class Settings(BaseModel):
    preset: Literal["small", "paper"] = Field("small", description="small: for CPUs")
    iterations: int | None = Field(None, ge=1, le=100, description="how many")
    rate: float | None = Field(None, gt=0, lt=1)
    has_up: bool | None = None
    dhi: bool = True
    size_px: int = Field(8, ge=8)
    window: str | None = Field(None, pattern=r"^\d+,\d+$", description="LOW,HIGH: levels")
    seen: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    aliases: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    notes: tuple[str, ...] = Field((), max_length=2)


def run(*arguments: str) -> tuple[int, Any]:
    """The exit code, and the settings that were given, or the error."""
    found: dict[str, Any] = {}

    @click.command()
    @model_options(Settings)
    def command(**options: Any) -> None:
        found.update(chosen(click.get_current_context(), Settings))
        Settings.model_validate(found)

    result = CliRunner().invoke(command, arguments)
    return result.exit_code, found if result.exit_code == 0 else " ".join(result.output.split())


def test_only_what_was_given_is_chosen() -> None:
    assert run() == (0, {})
    assert run("--preset", "small") == (0, {"preset": "small"})


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (("--iterations", "100"), {"iterations": 100}),
        (("--rate", "2e-4"), {"rate": 0.0002}),
        (("--has-up",), {"has_up": True}),
        (("--no-up",), {"has_up": False}),
        (("--no-dhi",), {"dhi": False}),
        (("--size", "16"), {"size_px": 16}),
        (("--window", "1,2"), {"window": "1,2"}),
        (("--seen", "Water=0.25", "--seen", "a=b=1"), "'a=b=1' should look like 'Water=0.2'"),
        (("--seen", "Water=0.25", "--seen", "Road=0"), {"seen": {"Water": 0.25, "Road": 0.0}}),
        (("--alias", "Road=roads, street"), {"aliases": {"Road": ("roads", "street")}}),
        (("--note", "a", "--note", "b"), {"notes": ("a", "b")}),
    ],
)
def test_values_are_those_of_the_fields(arguments: tuple[str, ...], value: Any) -> None:
    code, found = run(*arguments)
    assert (code, found) == (0, value) if isinstance(value, dict) else value in found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--iterations", "0"), "0 is not in the range 1<=x<=100"),
        (("--iterations", "3.5"), "'3.5' is not a valid integer range"),
        (("--rate", "1"), "1.0 is not in the range 0<x<1"),
        (("--rate", "nan"), "'nan' is not a finite number"),
        (("--preset", "huge"), "'huge' is not one of 'small', 'paper'"),
        (("--window", "low"), "'low': it should be LOW,HIGH: levels."),
        (("--seen", "Water=2"), "2.0: Input should be less than or equal to 1."),
        (("--alias", "Road"), "'Road' should look like 'Road=roads,street'"),
        (("--alias", "Road= , "), "'Road= , ' should look like 'Road=roads,street'"),
        (("--note", "a", "--note", "b", "--note", "c"), "Tuple should have at most 2 items"),
    ],
)
def test_wrong_values_are_refused_with_the_limit(arguments: tuple[str, ...], message: str) -> None:
    code, found = run(*arguments)
    assert code == 2
    assert message in found


@pytest.mark.parametrize("system", OPTIONS)
def test_every_field_of_every_system_is_an_option_with_the_same_default(system: Any) -> None:
    model = OPTIONS[system]

    @click.command()
    @model_options(model)
    def command(**options: Any) -> None: ...

    context = command.make_context("train", [])
    assert set(context.params) == set(model.model_fields)
    assert chosen(context, model) == {}
    assert model.model_validate(context.params) == model()
    flags = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    assert flags >= {"--iterations", "--batch-size", "--fit", "--tile-px", "--seen", "--no-up", "--has-up", "--window"}
