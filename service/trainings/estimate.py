"""The dry run of a training: its stages' lengths, and what they take where a worker has measured their networks."""

from __future__ import annotations

from dataclasses import dataclass

from service.runs.dataset_versions import Datasets
from service.runs.repository import RunRepository
from service.trainings.dataset_check import check_datasets, warnings
from service.trainings.plan_values import DatasetCheck, MachineEstimate, StageEstimate, StagePlan, TrainingPlan
from service.trainings.presets import planned_length
from service.trainings.probes import PROBE_ITERATIONS, Fingerprints, Probe, find_probes, machine_sha
from service.trainings.work import TrainingBudget, TrainingWork


@dataclass(frozen=True)
class Planner:
    """Plans the trainings of one tenant."""

    runs: RunRepository
    tenant: str

    def plan(self, work: TrainingWork) -> TrainingPlan:
        """The training as it would go. Raises what the datasets' reading raises."""
        checks = check_datasets(Datasets(self.runs, self.tenant), work)
        stages = within(_stage_plans(work, checks), work.budget.iterations)
        probes = [self._probes(work, number) for number in range(len(work.stages))]
        estimates = sorted(_estimates(stages, probes, work.budget), key=lambda estimate: estimate.seconds)
        notes = [
            f"no worker has measured {stage.system} with these options yet, so its time and memory are not known; a "
            f"training's first {PROBE_ITERATIONS} iterations measure it"
            for stage, found in zip(stages, probes, strict=True)
            if not found
        ]
        if not estimates and not notes:
            notes.append("no machine type has measured all stages, so the whole training's time is not known")
        return TrainingPlan(
            system=work.last.system,
            model=work.model,
            budget=work.budget,
            datasets=checks,
            stages=stages,
            iterations=sum(stage.iterations for stage in stages),
            estimates=tuple(estimates),
            notes=tuple(notes),
            warnings=tuple(warnings(work, checks)),
        )

    def _probes(self, work: TrainingWork, number: int) -> dict[str, Probe]:
        """The probes of a stage's network, by machine type."""
        network = Fingerprints(self.runs, self.tenant).of(work, number)
        found = find_probes(self.runs.store, work.stages[number].system, network)
        return {machine_sha(probe.machine, probe.devices): probe for probe in found}


def within(stages: tuple[StagePlan, ...], iterations: int | None) -> tuple[StagePlan, ...]:
    """The stages, cut where a budget of iterations is spent."""
    left, cut = iterations, []
    for stage in stages:
        done = stage.iterations if left is None else min(left, stage.iterations)
        share = done / stage.iterations
        cut.append(stage.model_copy(update={"iterations": done, "epochs": round(stage.epochs * share, 2)}))
        left = None if left is None else left - done
    return tuple(cut)


def _stage_plans(work: TrainingWork, checks: tuple[DatasetCheck, ...]) -> tuple[StagePlan, ...]:
    images = {check.dataset: check.trained_on for check in checks}
    plans = []
    for stage in work.stages:
        count = sum(images[ref] for ref in stage.data)
        iterations, batch_size = planned_length(stage, count)
        plans.append(
            StagePlan(
                system=stage.system,
                datasets=stage.data,
                uses={str(role): ref for role, ref in stage.uses.items()},
                iterations=iterations,
                batch_size=batch_size,
                epochs=round(iterations * batch_size / max(1, count), 2),
                options=stage.options,
            )
        )
    return tuple(plans)


def _estimates(
    stages: tuple[StagePlan, ...], probes: list[dict[str, Probe]], budget: TrainingBudget
) -> list[MachineEstimate]:
    """The training on each machine type that has measured all of its networks."""
    machines = set.intersection(*(set(found) for found in probes))
    return [_estimate(stages, [found[machine] for found in probes], budget) for machine in sorted(machines)]


def _estimate(stages: tuple[StagePlan, ...], probes: list[Probe], budget: TrainingBudget) -> MachineEstimate:
    parts = tuple(
        StageEstimate(
            system=stage.system,
            seconds_per_iteration=probe.seconds_per_iteration,
            seconds=round(stage.iterations * probe.seconds_per_iteration, 3),
            parameters=probe.parameters,
            memory_bytes=probe.memory_bytes,
            measured_at=probe.at,
        )
        for stage, probe in zip(stages, probes, strict=True)
    )
    devices = probes[0].devices
    limits = [sum(part.seconds for part in parts)]
    if budget.hours is not None:
        limits.append(budget.hours * 3600)
    if budget.device_seconds is not None:
        limits.append(budget.device_seconds / devices)
    memory = [part.memory_bytes for part in parts if part.memory_bytes is not None]
    return MachineEstimate(
        device=probes[0].device,
        devices=devices,
        seconds=round(min(limits), 3),
        device_seconds=round(min(limits) * devices, 3),
        memory_bytes=max(memory) if memory else None,
        stages=parts,
    )
