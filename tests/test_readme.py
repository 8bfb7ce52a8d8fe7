"""Every README says what is true: commands, options, settings, paths, names and examples exist."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import tomllib
from functools import cache
from typing import Any

import click
import pytest

from service.cli.root import twinset
from service.client import Twinset
from service.settings import Settings
from tests.readmes import FOLDERS, PACKAGES, ROOT, Readme, all_readmes, each_readme, sources


@cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


# -- commands and settings


def problem_of(words: list[str], *, complete: bool) -> str | None:
    """What is wrong with a command's words; those of an incomplete one need be neither all nor have values."""
    command: click.Command = twinset
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        if found is None:
            return f"{words[0]!r} is no command"
        command, words = found, words[1:]
    context = click.Context(command)
    parameters = command.get_params(context)
    if not complete:
        known = {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}
        unknown = [word for word in words if word.startswith("-") and word.partition("=")[0] not in known]
        return f"no option {unknown}" if unknown else None
    if isinstance(command, click.Group) and not words:
        return "lacks a command"
    try:
        values, rest, _ = command.make_parser(context).parse_args(list(words))
        for parameter in parameters:
            value = values.get(parameter.name or "")
            given = isinstance(value, str | int | list | tuple) and value != ()
            # what a command requires may stand in its file
            if parameter.required and not given and not values.get("config"):
                return f"lacks {parameter.opts}"
            if given and not isinstance(parameter.type, click.Path | click.File):
                parameter.type_cast_value(context, value)
    except click.ClickException as error:
        return error.format_message()
    return f"takes no {rest}" if rest else None


@each_readme
def test_every_command_exists_and_its_options_parse(readme: Readme) -> None:
    problems = {
        " ".join(words): problem for words in readme.twinset_commands if (problem := problem_of(words, complete=True))
    }
    problems |= {
        " ".join(words): problem for words in readme.twinset_spans if (problem := problem_of(words, complete=False))
    }
    assert problems == {}


def test_there_are_commands_to_check() -> None:
    assert len([words for readme in all_readmes() for words in readme.twinset_commands]) >= 8


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("generat --count 2", "'generat' is no command"),
        ("generate --model m --count two --out t", "'two'"),
        ("generate --model m --cuont 2 --out t", "--cuont"),
        ("keys create", "lacks"),
        ("models show", "lacks"),
        ("settings more", "takes no"),
    ],
)
def test_a_command_that_does_not_parse_is_found(line: str, problem: str) -> None:
    assert problem in (problem_of(line.split(), complete=True) or "")


@each_readme
def test_every_setting_exists(readme: Readme) -> None:
    named = set(re.findall(r"\bTWINSET_([A-Z0-9]+(?:_[A-Z0-9]+)*)\b(?!_?\*)", readme.text))
    others = set(re.findall(r"environ\S*\bTWINSET_([A-Z0-9_]+)", sources()))
    assert {name for name in named - others if name.lower() not in Settings.model_fields} == set()


# -- paths, links, names and examples


def paths_named(readme: Readme) -> set[str]:
    """What the README's code names as paths of the repository: below a top-level folder, or a module beside it."""
    words = [*readme.spans, *(word for command in readme.shell for word in command)]
    plain = {word.partition("::")[0].rstrip("/") for word in words if re.fullmatch(r"\.?[\w./*-]+(::\w+)?/?", word)}
    ours = {*FOLDERS, ".ci", ".github"}
    named = {
        word for word in plain if ("/" in word and word.split("/")[0] in ours) or re.fullmatch(r"[\w/]+\.py", word)
    }
    return {word for word in named if "..." not in word}


def is_there(path: str, readme: Readme) -> bool:
    """Whether ``path`` exists from the root or from the README's folder; a bare name, anywhere below either."""
    return any(list(place.glob(path if "/" in path else f"**/{path}")) for place in (ROOT, readme.folder))


@each_readme
def test_every_path_exists(readme: Readme) -> None:
    assert [path for path in sorted(paths_named(readme)) if not is_there(path, readme)] == []


@each_readme
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(readme: Readme) -> None:
    broken = []
    for link in readme.links:
        path, _, anchor = link.partition("#")
        target = (readme.folder / path).resolve() if path else ROOT / readme.name
        if not target.exists() or (anchor and anchor not in Readme(target.relative_to(ROOT).as_posix()).anchors):
            broken.append(link)
    assert broken == []


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        module = ".".join(parts[:count])
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not module.startswith(error.name or "?"):
                raise
            continue
        for part in parts[count:]:
            if not hasattr(found, part) and part not in getattr(found, "model_fields", {}):
                return False
            found = getattr(found, part, None)
        return True
    return False


@each_readme
def test_every_dotted_name_of_the_packages_resolves(readme: Readme) -> None:
    dotted = re.compile(rf"(?:{'|'.join((*PACKAGES, 'twinset'))})(?:\.\w+)+")
    named = {span.removesuffix("()") for span in readme.spans if dotted.fullmatch(span.removesuffix("()"))}
    assert [name for name in sorted(named) if not name.endswith(".py") and not resolves(name)] == []


@each_readme
def test_every_python_example_compiles_and_its_imports_resolve(readme: Readme) -> None:
    missing = []
    for code in readme.blocks("python", "py"):
        tree = ast.parse(code, readme.name)
        compile(code, readme.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            known = [name for name in names if importlib.util.find_spec(name.split(".")[0])]
            missing += [name for name in known if not resolves(name)]
    assert missing == []


@each_readme
def test_every_call_of_the_python_client_exists_and_takes_its_arguments(readme: Readme) -> None:
    problems = []
    for code in readme.blocks("python", "py"):
        for node in ast.walk(ast.parse(code)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "client"):
                continue
            method = getattr(Twinset, node.func.attr, None)
            parameters = inspect.signature(method).parameters if method else {}
            takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
            unknown = [word.arg for word in node.keywords if word.arg and word.arg not in parameters and not takes_all]
            if method is None or unknown:
                problems.append((node.func.attr, unknown))
    assert problems == []


# -- installing and testing


@each_readme
def test_extras_and_markers_exist(readme: Readme) -> None:
    installs = [word for words in readme.shell if "install" in words for word in words if word.endswith("]")]
    extras = {extra for word in installs for extra in word.rpartition("[")[2].rstrip("]").split(",")}
    assert extras <= set(project()["project"]["optional-dependencies"])
    tests = [words for words in readme.shell if words[0].rpartition("/")[2] == "pytest" and "-m" in words]
    chosen = {name for words in tests for name in re.findall(r"\w+", words[words.index("-m") + 1])} - {
        "and",
        "or",
        "not",
    }
    markers = {line.partition(":")[0] for line in project()["tool"]["pytest"]["ini_options"]["markers"]}
    assert chosen <= markers


def test_the_continuous_integration_installs_and_runs_what_contributors_are_told() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    guide = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert "-e '.[all,dev]'" in script
    assert "-e '.[all,dev]'" in guide
    for check in ("lint-imports", "ruff check", "ruff format", "mypy", "codespell", "pytest"):
        assert f"\ncheck {check}" in script
        assert check in guide
