"""The repository's READMEs, taken apart: code blocks, code spans, links, headings, shell commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("model_store", "service", "workers")
FOLDERS = ("deploy", "docker", "model_store", "service", "tests", "workers")
OTHERS = (".github/CONTRIBUTING.md", ".github/SECURITY.md")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Readme:
    """One README, by its path relative to the repository's root."""

    name: str

    @property
    def folder(self) -> Path:
        return (ROOT / self.name).parent

    @cached_property
    def text(self) -> str:
        return (ROOT / self.name).read_text(encoding="utf-8")

    def blocks(self, *languages: str) -> list[str]:
        """The fenced code blocks in one of these languages; ``""`` is a block without one."""
        return [code for language, code in FENCED.findall(self.text) if language in languages]

    @cached_property
    def prose(self) -> str:
        """All but the fenced code blocks."""
        return FENCED.sub("", self.text)

    @cached_property
    def spans(self) -> list[str]:
        """The inline code of the prose."""
        return [re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]+)`", self.prose)]

    @cached_property
    def links(self) -> list[str]:
        """Targets of links and images within the repository."""
        targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", self.prose))
        return [target for target in targets if not re.match(r"[a-z]+:", target)]

    @cached_property
    def anchors(self) -> set[str]:
        """The headings as GitHub makes anchors of them."""
        headings = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    @cached_property
    def shell(self) -> list[list[str]]:
        """Every command of the shell blocks, and after ``$`` of the blocks without a language, as words."""
        lines = "\n".join(self.blocks("sh", "bash", "shell")).replace("\\\n", " ").splitlines()
        shown = "\n".join(self.blocks("", "text", "console")).replace("\\\n", " ").splitlines()
        lines += [line[2:] for line in shown if line.startswith("$ ")]
        return [command for line in joined_quotes(lines) for command in commands_of(line)]

    @cached_property
    def twinset_commands(self) -> list[list[str]]:
        """Arguments of every ``twinset`` command in the shell blocks."""
        return [found for words in self.shell if (found := twinset_arguments(words)) is not None]

    @cached_property
    def twinset_spans(self) -> list[list[str]]:
        """Arguments of every ``twinset ...`` in the prose, which need not be complete."""
        whole = [span for span in self.spans if span.startswith("twinset ")]
        return [commands_of(span)[0][1:] for span in whole]


def joined_quotes(lines: list[str]) -> Iterator[str]:
    """The lines; those within one pair of quotes as one."""
    open_line = ""
    for line in lines:
        open_line += line
        try:
            shlex.split(open_line, comments=True)
        except ValueError:
            open_line += "\n"
            continue
        yield open_line
        open_line = ""
    assert not open_line, f"a quote is never closed: {open_line[:80]}"


def commands_of(line: str) -> list[list[str]]:
    """The commands of a line of shell as words: parted at pipes, ``&&``, ``;``, redirections and ``$( )``."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("();<>|&"):
            commands.append([])
        else:
            commands[-1].append(word)
    return [words for command in commands if (words := without_assignments(command))]


def without_assignments(words: list[str]) -> list[str]:
    """A command without ``export``, ``NAME=value`` before it, and what stands for more (``$@``, ``...``)."""
    while words and (words[0] == "export" or re.match(r"[A-Z_]+=", words[0])):
        words = words[1:]
    return [word for word in words if word not in ("$@", "...", "…")]


def twinset_arguments(words: list[str]) -> list[str] | None:
    """What follows ``twinset``, ``.venv/bin/twinset`` or ``-m service.cli`` in a command; None if it is another."""
    for place, word in enumerate(words):
        module = word == "service.cli" and words[place - 1] in ("-m", "--module")
        wrapped = words[0] in ("docker", "kubectl", "accelerate", "time", "nohup", "exec") or place == 0
        if module or (wrapped and Path(word).name == "twinset" and words[place - 1] not in ("-t", "install")):
            return words[place + 1 :]
    return None


@cache
def sources() -> str:
    """All Python sources of the packages and of docker/, as one text."""
    paths = [path for folder in (*PACKAGES, "docker") for path in sorted((ROOT / folder).rglob("*.py"))]
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


def all_readmes() -> list[Readme]:
    """Every README of the repository, and the guides for contributors."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("README.md")]
    names = sorted(path.relative_to(ROOT).as_posix() for path in found)
    return [Readme(name) for name in ("README.md", *names, *OTHERS)]


each_readme = pytest.mark.parametrize("readme", all_readmes(), ids=lambda readme: readme.name)
