"""``twinset demo``: makes twins with an embedded stack, draws a contact sheet, and stops everything again."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Any

import click

_CLASSES_IN_PROMPT = 4


@click.command()
@click.option(
    "--model",
    default="cosimgen-dubai",
    show_default=True,
    help="A bundled model (NAME or NAME@VERSION), or a folder of a trained model.",
)
@click.option("--prompt", help="What the images show, in words.  [default: some of the model's classes]")
@click.option("--count", type=click.IntRange(1, 1000), default=8, show_default=True, help="Number of twins to make.")
@click.option("--seed", type=int, help="The same seed gives the same twins.  [default: random]")
@click.option(
    "--out",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="A new folder.  [default: twinset-demo, or twinset-demo-2, ...]",
)
def demo(model: str, prompt: str | None, count: int, seed: int | None, folder: Path | None) -> None:
    """Make eight twins on this machine and a contact sheet of them.

    Starts broker, API, worker and store, requests twins from the API like any other client, downloads them, draws a
    contact sheet, and stops everything again.
    """
    from service.cli.generate import require_new_folder

    if folder is None:
        folder = _free_folder(Path("twinset-demo"))
    require_new_folder(folder)

    from model_store.card import ModelCard
    from service.cli.console import duration, escape, out
    from service.cli.generate import print_result
    from service.cli.http_client import ApiClient
    from service.cli.local_stack import running_stack
    from service.cli.progress import follow_job
    from service.cli.twin_folder import write_twin_folder

    began = time.monotonic()
    if (Path(model) / "card.json").is_file():
        model = _register(Path(model), folder / "data")
    # Small chunks, so that the bar has more than one step; a sample does not depend on the chunk size. A short grace
    # time, since nobody waits for the worker's last chunk when the demo ends or is stopped.
    with running_stack(folder / "data", bulk=False, settings={"TWINSET_CHUNK_SIZE": "2"}, grace_s=2.0) as stack:
        out.print(f"[green]✓[/] Broker, API and worker started in {duration(time.monotonic() - began)}")
        with ApiClient(stack.url) as client:
            card = ModelCard.model_validate(client.model(model)["card"])
            words = prompt or card.prompt_for(card.queryable[:_CLASSES_IN_PROMPT])
            request: dict[str, Any] = {"model": card.id, "prompt": words, "count": count}
            job = client.submit(request if seed is None else {**request, "seed": seed})
            out.print(
                f"[green]✓[/] POST {stack.url}/generate: {count} twins from [cyan]{card.id}[/]",
                soft_wrap=True,
            )
            out.print(f"  [italic]{escape(words)}[/]", soft_wrap=True)
            job = follow_job(client, job["id"], check=stack.check)
            report = write_twin_folder(client, job, card, folder) if job["done"] else None
    job_folder = stack.store_dir / "jobs" / job["id"]
    print_result(
        job,
        report,
        **{
            "In the store": _relative(job_folder),
            "Continue with": f"twinset up --data-dir {shlex.quote(_relative(stack.data_dir))}",
            "Total time": duration(time.monotonic() - began),
        },
    )


def _relative(path: Path) -> str:
    """The path relative to the current folder, if it lies below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _register(model: Path, data_dir: Path) -> str:
    """Registers a model folder in the demo's own store; returns its name@version."""
    from service.registry.register import check_model_folder, register_folder
    from service.settings import read_settings
    from service.store.opening import open_store

    check_model_folder(model)
    store = open_store(read_settings(data_dir=data_dir, store_url=(data_dir.absolute() / "store").as_uri()))
    card, _ = register_folder(model, store, tenant=None)
    return card.id


def _free_folder(wanted: Path) -> Path:
    number, folder = 1, wanted
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder
