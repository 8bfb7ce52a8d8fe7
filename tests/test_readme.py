"""The README says what is true: its commands parse, its settings exist, its files are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from service.cli.root import twinset
from service.settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def command_lines() -> list[str]:
    """Every ``twinset ...`` line of the README's shell blocks, continued lines joined, without its comment."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [found.group(1) for line in lines if (found := re.search(r"(?:^|/)(twinset .*)", line.strip()))]


def test_there_are_commands_to_check() -> None:
    assert len(command_lines()) >= 8


@pytest.mark.parametrize("line", command_lines())
def test_every_command_of_the_readme_exists_with_its_options(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = twinset
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"{words[0]!r} of {line!r} is no command"
        command, words = found, words[1:]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= known
    required = [p for p in command.params if p.required]
    for parameter in required:
        given = isinstance(parameter, click.Argument) or any(option in words for option in parameter.opts)
        assert given, f"{line!r} lacks {parameter.opts}"


def test_every_setting_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"TWINSET_([A-Z0-9_]+)=", README))
    assert named
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_every_file_that_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links)


def test_the_two_commands_are_the_ones_of_the_continuous_integration() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert ".venv/bin/pip install -e '.[all,test]' && .venv/bin/pytest" in README
    assert "-e '.[all,test]'" in script
    assert "pytest" in script
