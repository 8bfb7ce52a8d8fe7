"""Upload of masks: files and folders on this machine become uploads that a request refers to."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from service.cli.http_client import ApiClient, ProblemAnswer

_MAX_CONCURRENCY = 8


def mask_files(given: Sequence[Path], option: str = "--mask") -> list[Path]:
    """The given files, and the ``*.png`` files of the given folders, sorted by name.

    Raises a usage error for a folder without any.
    """
    files: list[Path] = []
    for path in given:
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(file for file in path.iterdir() if file.suffix.lower() == ".png")
        if not inside:
            raise click.UsageError(f"{option} {path} is a folder without *.png files; name another, or a file")
        files += inside
    return files


def upload_masks(client: ApiClient, files: Sequence[Path]) -> list[dict[str, str]]:
    """Uploads the files, several at once; returns the ``mask`` or ``instances`` of a request, in their order.

    Raises :class:`ProblemAnswer` that names the first refused file.
    """

    def send(file: Path) -> dict[str, str]:
        try:
            return {"upload": client.upload(file.read_bytes())}
        except ProblemAnswer as problem:
            detail = f"{file}: {problem.document.get('detail', '')}"
            raise ProblemAnswer({**problem.document, "detail": detail, "errors": None}) from None

    with ThreadPoolExecutor(_MAX_CONCURRENCY, thread_name_prefix="send") as pool:
        return list(pool.map(send, files))


def with_file_names(problem: ProblemAnswer, **files: Sequence[Path]) -> ProblemAnswer:
    """The problem of a request, with file names added: the server refers to ``mask`` and ``instances`` by number."""
    names = {f"/{member}/{number}": file for member, paths in files.items() for number, file in enumerate(paths)}
    faults = []
    for fault in problem.document.get("errors") or []:
        name = names.get(str(fault.get("pointer", "")))
        faults.append(fault if name is None else {**fault, "detail": f"{name}: {fault.get('detail', '')}"})
    if not faults:
        return problem
    detail = "; ".join(str(fault.get("detail", "")) for fault in faults)
    return ProblemAnswer({**problem.document, "detail": detail, "errors": faults})
