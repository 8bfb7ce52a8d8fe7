"""Trainer: the loop over a run's remaining iterations, with checkpoints, samples and the log."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator

from workers.data.stream import PairStream
from workers.training.interruption import interruptible
from workers.training.loop import learning_rate
from workers.training.training_log import TrainingLog


class LoopSettings(Protocol):
    """The part of a run's settings that the loop reads."""

    @property
    def iterations(self) -> int: ...

    @property
    def learning_rate(self) -> float: ...

    @property
    def warmup(self) -> int: ...

    @property
    def decay_from(self) -> float: ...


class Trainer(ABC):
    """One run. A subclass sets these four attributes, and ``start`` from its checkpoint."""

    out: Path
    settings: LoopSettings
    accelerator: Accelerator
    start: int = 0
    streams: Sequence[PairStream] = ()
    """The run's batches; their worker processes end with :meth:`run`."""

    @property
    def notices(self) -> Sequence[str]:
        """Sentences on the training data to be read before training."""
        return ()

    @abstractmethod
    def step(self, iteration: int) -> dict[str, float]:
        """One iteration; returns its losses."""

    @abstractmethod
    def save(self, iteration: int) -> None:
        """Writes the checkpoint after ``iteration`` iterations (main process only)."""

    @abstractmethod
    def save_samples(self, iteration: int) -> None:
        """Writes ``samples/{iteration}.png``."""

    def run(
        self,
        *,
        checkpoint_every: int = 500,
        sample_every: int = 1000,
        log_every: int = 50,
        until: int | None = None,
        on_iteration: Callable[[int], None] = lambda done: None,
    ) -> int:
        """Trains to the end, or to iteration ``until``, with checkpoints and samples; returns the iterations done.

        ``on_iteration`` is called after each iteration with the number of those done.

        SIGINT, SIGTERM and SIGHUP write a checkpoint after the current iteration, and then have their usual effect.
        """
        end = min(self.settings.iterations, until or self.settings.iterations)
        main = self.accelerator.is_main_process
        self.out.mkdir(parents=True, exist_ok=True)
        log = TrainingLog(self.out / "log.jsonl", self.start, end, every=log_every, show=main)
        done = self.start
        try:
            with interruptible() as interruption:
                for iteration in range(self.start, end):
                    log.add(iteration, self.step(iteration))
                    done = iteration + 1
                    on_iteration(done)
                    stopping = interruption.is_requested(self.accelerator)
                    if stopping or done % checkpoint_every == 0 or done == end:
                        self.save(done)
                    if stopping:
                        break
                    if main and (done % sample_every == 0 or done == end):
                        self.save_samples(done)
                log.write_line(done)
        finally:
            log.close()
            self.close()
        if interruption.signal is not None:
            if main:
                print(
                    f"stopped at iteration {done} of {end}, with a checkpoint in {self.out}; "
                    "the same command goes on from there",
                    file=sys.stderr,
                )
            interruption.leave()
        return done

    def close(self) -> None:
        """Ends the processes that decode ahead; a further iteration starts them again."""
        for stream in self.streams:
            stream.close()

    def set_rate(self, optimizer: torch.optim.Optimizer, iteration: int) -> None:
        """Sets every group's rate to the iteration's, times the group's ``share`` if it has one."""
        settings = self.settings
        rate = learning_rate(
            iteration,
            base=settings.learning_rate,
            warmup=settings.warmup,
            total=settings.iterations,
            decay_from=settings.decay_from,
        )
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)


def check_gradient(norm: torch.Tensor, iteration: int) -> None:
    """Raises FloatingPointError unless the gradient's norm is a number."""
    if not torch.isfinite(norm):
        raise FloatingPointError(
            f"the gradient is {norm.item()} at iteration {iteration}; lower --learning-rate or give --precision no"
        )
