"""``twinset verify``: says whether a job's twins are stored as recorded, and come out the same when made again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from service.settings import Settings
    from workers.tools.verify import Drawn, FileFinding, TwinFinding

_ALL_SHOWN = 20
_SEEDS = 2**32


class VerifyImpossible(click.ClickException):
    """Nothing could be verified. Its exit code is not 1, which tells of twins that differ."""

    exit_code = 2


@click.command()
@click.argument("job")
@click.option(
    "--count", type=click.IntRange(min=1), default=5, show_default=True, help="How many twins, drawn at random."
)
@click.option("--seed", type=click.IntRange(min=0), help="Same seed, same choice of twins. Drawn if not given.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of 'twinset up' or a demo's data/.  [default: the store of TWINSET_STORE_URL, else of TWINSET_DATA_DIR]",
)
def verify(job: str, count: int, seed: int | None, data_dir: Path | None) -> None:
    """Make a few twins of a stored job again and compare.

    Reads image and mask of each back and compares them with the hashes in the job's records; then makes the twin again
    as it was made (batch shape, number format, threads) and compares that. Needs no server and writes nothing to the
    store.

    \b
    Exit code  0  all are the same
               1  an object is damaged, or a twin differs on a machine and build like the record's
               2  nothing could be verified
               3  a twin differs, but machine or build differ too, so that it proves nothing
    """
    with _explained():
        from service.local.stack import require_worker_parts
        from workers.runtime.malloc import keep_memory

        require_worker_parts()
        keep_memory()
        with _quiet():
            code = _verify(job, count, seed, _settings(data_dir))
    if code:
        raise click.exceptions.Exit(code)


def _verify(job: str, count: int, seed: int | None, settings: Settings) -> int:
    import secrets
    import time

    from service.cli.console import duration, out
    from service.cli.progress import twin_bar
    from service.errors import UnknownJob
    from service.jobs.repository import JobRepository
    from service.kit.ids import is_job_id
    from service.store.opening import open_store

    store = open_store(settings)
    try:
        spec = JobRepository(store).read_spec(job)
    except UnknownJob as error:
        where = f"there is no job {job!r} in {settings.store_url}; --data-dir, TWINSET_DATA_DIR or TWINSET_STORE_URL look elsewhere"
        raise VerifyImpossible(where if is_job_id(job) else error.detail) from None

    from workers.tools.verify import draw, verdict
    from workers.tools.verify import verify as findings_of

    seed = secrets.randbelow(_SEEDS) if seed is None else seed
    drawn = draw(JobRepository(store), spec, count, seed)
    _say_what_was_drawn(drawn, count, seed)
    began, steps, findings = time.monotonic(), 0, []

    def on_step() -> None:
        nonlocal steps
        steps += 1
        # the last step is not the end: decoding follows
        bar.update(task, completed=max(len(findings), min(steps / spec.steps, total - 0.1)))

    total = len(drawn.picks)
    with twin_bar() as bar:
        task = bar.add_task("Remaking", total=total, done=0)
        for finding in findings_of(drawn, store, settings, on_step=on_step):
            findings.append(finding)
            bar.update(task, completed=max(len(findings), steps / spec.steps), done=len(findings))
        bar.update(task, completed=total, progress=f"in {duration(time.monotonic() - began)}")
    _tell(findings)
    out.print(_conclusion(findings), soft_wrap=True)
    return int(verdict(findings))


def _say_what_was_drawn(drawn: Drawn, count: int, seed: int) -> None:
    from service.cli.console import out

    spec, found = drawn.spec, len(drawn.picks)
    out.print(
        f"Job {spec.job}: {found} of {spec.count} twins from [cyan]{spec.model}[/], drawn with --seed {seed}",
        soft_wrap=True,
    )
    if found < count:
        out.print(f"  [dim]{count} were asked for; these are all there are[/]")
    if drawn.given_up:
        were = "sample drawn was" if drawn.given_up == 1 else "samples drawn were"
        out.print(f"  [dim]{drawn.given_up} {were} given up when the job was made, and passed over[/]")


def _tell(findings: Sequence[TwinFinding]) -> None:
    """A line for each twin, or for those alone that are not as they should be if there are many."""
    from rich.text import Text

    from service.cli.console import out

    for finding in sorted(findings, key=lambda finding: finding.index):
        fine = not finding.damaged and not finding.differs
        if fine and len(findings) > _ALL_SHOWN:
            continue
        mark = Text("✓", "green") if fine else Text("✗", "bold red")
        if fine:
            kinds = " and ".join(file.kind for file in finding.files)
            words = [f"{kinds} as recorded, and the same when made again"]
        else:
            words = [f"could not be made again: {finding.failure}"] if finding.failure else []
            words += [f"{file.kind} {_in_words(file)}" for file in finding.files]
        for line, word in enumerate(words):
            out.print(
                mark if line == 0 else " ", f"{finding.index if line == 0 else '':>5} ", Text(word), soft_wrap=True
            )


def _in_words(file: FileFinding) -> str:
    from workers.tools.verify import Stored

    stored = {
        Stored.AS_RECORDED: "stored as recorded",
        Stored.DAMAGED: f"damaged in the store: {file.place} has not the sha256 of the record",
        Stored.MISSING: f"missing from the store: {file.place}",
    }[file.stored]
    if file.remade is None:
        return stored
    if file.remade:
        return f"{stored}; the same as recorded when made again"
    if file.like_stored:
        return f"{stored}; what is made again is what is stored, so it is the record that is not true"
    return f"{stored}; different when made again{_how_far(file)}"


def _how_far(file: FileFinding) -> str:
    far = file.distance
    if far is None:
        return ", by how much cannot be told from what is stored"
    if far.share == 0:
        return ", in its bytes alone: every pixel is the stored one"
    if file.kind == "mask":
        return f" in {100 * far.share:.2g} % of its pixels"
    return f" by at most {far.largest} of 255, by {far.mean:.2g} on average"


def _conclusion(findings: Sequence[TwinFinding]) -> str:
    from rich.markup import escape

    total = len(findings)
    damaged = [finding for finding in findings if finding.damaged]
    surely = [finding for finding in findings if finding.differs and not finding.differences]
    perhaps = [finding for finding in findings if finding.differs and finding.differences]

    def are(some: Sequence[TwinFinding]) -> str:
        return f"{len(some)} of {total} {'twin' if total == 1 else 'twins'} {'is' if len(some) == 1 else 'are'}"

    others = dict.fromkeys(each for finding in perhaps or findings for each in finding.differences)
    listed = "".join(
        f"\n  [dim]{each.what:<12}[/] recorded {escape(each.recorded)}; here {escape(each.here)}" for each in others
    )
    lines = []
    if damaged:
        lines.append(f"[bold red]✗[/] {are(damaged)} not in the store as recorded.")
    if surely:
        lines.append(
            f"[bold red]✗[/] {are(surely)} not the same when made again, on a machine and build like the record's."
        )
    if perhaps:
        lines.append(f"[yellow]?[/] {are(perhaps)} not the same when made again.")
        lines.append(
            f"  That proves nothing about the store, for machine or build are not those of the record:{listed}"
        )
    if not lines:
        which = "The twin is" if total == 1 else f"All {total} twins are"
        lines.append(f"[green]✓[/] {which} stored as recorded, and the same to the bit when made again.")
        if others:
            lines.append(f"  That is so although machine or build are not those of the record:{listed}")
    return "\n".join(lines)


def _settings(data_dir: Path | None) -> Settings:
    """The environment's settings, or those of ``data_dir``. A store that is not there is not made, but told."""
    from urllib.parse import unquote, urlsplit

    from service.settings import read_settings

    if data_dir is None:
        settings = read_settings()
    else:
        settings = read_settings(data_dir=data_dir, store_url=(data_dir.absolute() / "store").as_uri())
    url = urlsplit(settings.store_url)
    if url.scheme == "file" and not Path(unquote(url.path)).is_dir():
        raise VerifyImpossible(
            f"there is no store in {unquote(url.path)}; --data-dir, TWINSET_DATA_DIR or TWINSET_STORE_URL name one"
        )
    return settings


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the engine from logging the reasons that our report gives."""
    import logging

    logger = logging.getLogger("workers.engine")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _explained() -> Iterator[None]:
    """Ends the command with code 2 and one line for whatever a user can put right."""
    from service.errors import TwinsetError

    try:
        yield
    except TwinsetError as error:
        raise VerifyImpossible(error.detail) from None
    except RuntimeError as error:
        # named by its class alone, for where torch is not installed its module cannot be loaded
        if type(error).__name__ == "TextEncoderMissing":
            raise VerifyImpossible(str(error)) from None
        raise
