"""``twinset verify``: checks that a job's twins are stored as recorded and come out the same when made again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from service.jobs.repository import JobRepository
    from service.settings import Settings
    from workers.tools.verify import Drawn, FileFinding, TwinFinding

_MAX_LISTED = 20
_SEEDS = 2**32


class VerifyImpossible(click.ClickException):
    """Nothing could be verified. Its exit code is not 1, which means that twins differ."""

    exit_code = 2


@click.command()
@click.argument("job")
@click.option(
    "--count", type=click.IntRange(min=1), default=5, show_default=True, help="Number of twins, drawn at random."
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the random choice.  [default: random]")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of 'twinset up', or a demo's data/.  "
    "[default: the store of TWINSET_STORE_URL, else of TWINSET_DATA_DIR]",
)
@click.option(
    "--repair",
    is_flag=True,
    help="Then compare every stored file of the job, and make damaged and missing twins again.",
)
def verify(job: str, count: int, seed: int | None, data_dir: Path | None, repair: bool) -> None:
    """Make a few twins of a stored job again and compare them.

    Compares each stored image and mask with the hash in the job's records, then makes the twin again under the recorded
    conditions (batch shape, number format, threads) and compares the result. Needs no server, and without --repair does
    not write to the store.

    \b
    Exit code  0  all twins are the same, or what was damaged has been repaired
               1  an object is damaged, or a twin differs on the same machine and build
               2  nothing could be verified
               3  a twin differs, but machine or build differ too, which proves nothing
    """
    with _friendly_errors():
        from service.local.stack import require_worker_parts
        from workers.runtime.malloc import keep_memory

        require_worker_parts()
        keep_memory()
        with _quiet():
            code = _verify(job, count, seed, _settings(data_dir), data_dir, repair)
    if code:
        raise click.exceptions.Exit(code)


def _verify(
    job: str, count: int, seed: int | None, settings: Settings, data_dir: Path | None, with_repair: bool
) -> int:
    import secrets
    import time

    from service.cli.console import duration, out
    from service.cli.progress import twin_bar
    from service.errors import UnknownJob
    from service.jobs.repository import JobRepository
    from service.kit.ids import is_job_id
    from service.store.opening import open_store

    store = open_store(settings)
    repository = JobRepository(store)
    try:
        spec = repository.read_spec(job)
    except UnknownJob as error:
        unknown = (
            f"there is no job {job!r} in {settings.store_url}; "
            "choose another store with --data-dir, TWINSET_DATA_DIR or TWINSET_STORE_URL"
        )
        raise VerifyImpossible(unknown if is_job_id(job) else error.detail) from None

    from workers.tools.verify import VerifyVerdict, draw, verdict
    from workers.tools.verify import verify as findings_of

    seed = secrets.randbelow(_SEEDS) if seed is None else seed
    drawn = draw(repository, spec, count, seed)
    _print_choice(drawn, count, seed)
    findings: list[TwinFinding] = []
    began, steps = time.monotonic(), 0

    def on_step() -> None:
        nonlocal steps
        steps += 1
        # the last step is not the end: decoding follows
        bar.update(task, completed=max(len(findings), min(steps / spec.steps, total - 0.1)))

    total = len(drawn.picks)
    for reason in drawn.unreadable:
        out.print("✗", reason, style="red", markup=False, soft_wrap=True)
    with twin_bar() as bar:
        task = bar.add_task("Remaking", total=total, done=0)
        for finding in findings_of(drawn, store, settings, on_step=on_step):
            findings.append(finding)
            bar.update(task, completed=max(len(findings), steps / spec.steps), done=len(findings))
        bar.update(task, completed=total, progress=f"in {duration(time.monotonic() - began)}")
    _print_findings(findings)
    damaged = bool(drawn.unreadable) or any(finding.damaged for finding in findings)
    if findings:
        out.print(_conclusion(findings), soft_wrap=True)
    if with_repair:
        repaired = _repair(repository, drawn, settings)
        return int(verdict([f for f in findings if not f.damaged]) if repaired else VerifyVerdict.DIFFERENT)
    if damaged:
        where = "" if data_dir is None else f" --data-dir {shlex.quote(str(data_dir))}"
        command = f"twinset verify {spec.job} --repair{where}"
        out.print(f"  To make damaged and missing twins again: {command}", soft_wrap=True, markup=False)
        out.print(f"  Or let a server do it: POST /jobs/{spec.job}/repair", soft_wrap=True, markup=False)
    return int(VerifyVerdict.DIFFERENT if damaged else verdict(findings))


def _repair(repository: JobRepository, drawn: Drawn, settings: Settings) -> bool:
    """Compares every stored file of the job, and makes damaged and missing twins again; False if some could not be."""
    from rich.text import Text

    from service.cli.console import out
    from service.cli.progress import twin_bar
    from workers.tools.repair_stored import outcome_of, repairing

    spec = drawn.spec
    with repairing(repository, spec, settings) as repair, twin_bar() as bar:
        task = bar.add_task("Comparing", total=spec.count, done=0)
        for chunk in repair.steps():
            compared = min(spec.count, (chunk + 1) * spec.chunk_size)
            bar.update(task, completed=compared, done=compared)
        done = repair.conclude()
    mark = Text("✗", "bold red") if done.failed else Text("✓", "green")
    for number, line in enumerate(outcome_of(done)):
        out.print(mark if number == 0 else " ", Text(line), soft_wrap=True)
    return not done.failed


def _print_choice(drawn: Drawn, count: int, seed: int) -> None:
    from service.cli.console import out

    spec, found = drawn.spec, len(drawn.picks)
    out.print(
        f"Job {spec.job}: {found} of {spec.count} twins from [cyan]{spec.model}[/], drawn with --seed {seed}",
        soft_wrap=True,
    )
    if found < count:
        out.print(f"  [dim]{count} were requested, but the job has no more[/]")
    if drawn.failed:
        samples = "drawn sample" if drawn.failed == 1 else "drawn samples"
        out.print(f"  [dim]{drawn.failed} {samples} had failed when the job was made, and cannot be verified[/]")


def _print_findings(findings: Sequence[TwinFinding]) -> None:
    """Prints a line for each twin; if there are more than 20, only for those with a fault."""
    from rich.text import Text

    from service.cli.console import out

    for finding in sorted(findings, key=lambda finding: finding.index):
        fine = not finding.damaged and not finding.differs
        if fine and len(findings) > _MAX_LISTED:
            continue
        mark = Text("✓", "green") if fine else Text("✗", "bold red")
        if fine:
            kinds = " and ".join(file.kind for file in finding.files)
            words = [f"{kinds} as recorded, and the same when made again"]
        else:
            words = [f"could not be made again: {finding.failure}"] if finding.failure else []
            words += [f"{file.kind} {_describe(file)}" for file in finding.files]
        for line, word in enumerate(words):
            out.print(
                mark if line == 0 else " ", f"{finding.index if line == 0 else '':>5} ", Text(word), soft_wrap=True
            )


def _describe(file: FileFinding) -> str:
    from workers.tools.verify import Stored

    stored = {
        Stored.AS_RECORDED: "stored as recorded",
        Stored.DAMAGED: f"damaged in the store: the sha256 of {file.place} is not the recorded one",
        Stored.MISSING: f"missing from the store: {file.place}",
    }[file.stored]
    if file.remade is None:
        return stored
    if file.remade:
        return f"{stored}; the same as recorded when made again"
    if file.like_stored:
        return f"{stored}; made again, it equals the stored file, so the record is wrong"
    return f"{stored}; different when made again{_describe_distance(file)}"


def _describe_distance(file: FileFinding) -> str:
    distance = file.distance
    if distance is None:
        return "; the stored file cannot be read, so the distance is unknown"
    if distance.share == 0:
        return ", but only in its bytes: all pixels are equal"
    if file.kind != "image":
        return f" in {100 * distance.share:.2g} % of its pixels"
    return f" by at most {distance.largest} of 255, by {distance.mean:.2g} on average"


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
        lines.append(f"[bold red]✗[/] {are(damaged)} not stored as recorded.")
    if surely:
        lines.append(f"[bold red]✗[/] {are(surely)} not the same when made again, on the same machine and build.")
    if perhaps:
        lines.append(f"[yellow]?[/] {are(perhaps)} not the same when made again.")
        lines.append(f"  This proves nothing about the store, since machine or build differ from the record:{listed}")
    if not lines:
        which = "The twin is" if total == 1 else f"All {total} twins are"
        lines.append(f"[green]✓[/] {which} stored as recorded, and the same to the bit when made again.")
        if others:
            lines.append(f"  This holds although machine or build differ from the record:{listed}")
    return "\n".join(lines)


def _settings(data_dir: Path | None) -> Settings:
    """The environment's settings, or those of ``data_dir``. A missing store is an error; it is not created."""
    from urllib.parse import unquote, urlsplit

    from service.settings import read_settings

    if data_dir is None:
        settings = read_settings()
    else:
        settings = read_settings(data_dir=data_dir, store_url=(data_dir.absolute() / "store").as_uri())
    url = urlsplit(settings.store_url)
    if url.scheme == "file" and not Path(unquote(url.path)).is_dir():
        raise VerifyImpossible(
            f"there is no store in {unquote(url.path)}; name one with --data-dir, TWINSET_DATA_DIR or TWINSET_STORE_URL"
        )
    return settings


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the engine's log, whose errors are in the report."""
    import logging

    logger = logging.getLogger("workers.engine")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _friendly_errors() -> Iterator[None]:
    """Turns errors that a user can fix into one line and exit code 2."""
    from service.errors import TwinsetError

    try:
        yield
    except TwinsetError as error:
        raise VerifyImpossible(error.detail) from None
    except RuntimeError as error:
        # compared by name, since its module cannot be imported without torch
        if type(error).__name__ == "TextEncoderMissing":
            raise VerifyImpossible(str(error)) from None
        raise
