"""The handler of augmentation sets: it submits rounds of jobs and judges their twins.

It ends when the set is full or all tries are spent. A delivery does what can be done now and ends; while the jobs are
being generated, no worker holds the run. Two rounds are in flight at a time, so that workers are busy while one round
is judged. Round n is planned from the results of round n - 2 and earlier, and assumes that all of round n - 1 will be
accepted. So the plan does not depend on timing, and if a delivery is killed, the next one does the same again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from service.augmentations.entries import PlanEntry, Wanted, instances_png, job_groups
from service.augmentations.object_report import missed_by_name
from service.augmentations.plan_report import report
from service.augmentations.rounds import (
    RoundJob,
    RoundJobs,
    Rounds,
    RoundState,
    WantedLine,
)
from service.augmentations.set_counts import SetCounts
from service.augmentations.stored import PlannedAugmentation, reopen
from service.augmentations.work import AugmentationWork
from service.errors import LimitReached, UnknownJob
from service.jobs.request import GenerateRequest
from service.kit.png import encode_indices
from service.kit.seeds import sample_seed
from service.kit.states import JobState
from workers.bulk import metrics
from workers.bulk.augmentation_jobs import cancel_jobs
from workers.bulk.context import Finished, RetryLater, RunContext
from workers.bulk.judge import Judge

MAX_ROUND_SAMPLES = 512
"""Maximum number of samples in a round."""
_POLL_INTERVAL_S = 1.0
_SHARDS_FROM_COUNT = 32
_MAX_ROUND_JOBS = 1_000_000
"""More jobs than any round has, so that the jobs of different rounds get different seeds."""


def handle_augmentation(context: RunContext) -> Finished | RetryLater:
    """Advances the set as far as is possible now."""
    worker = context.worker
    work = AugmentationWork.model_validate(context.spec.work)
    augmentation = _PLANS.get(context, work)
    return AugmentationRun(context, work, augmentation, Rounds(worker.store, context.spec.run)).advance()


def cancel_augmentation(context: RunContext) -> Finished:
    """Cancels the set's jobs; twins that were already accepted stay."""
    rounds = Rounds(context.worker.store, context.spec.run)
    cancel_jobs(context.worker, context.spec.run)
    _, state = rounds.last_state()
    accepted = 0 if state is None else int(state.counts["accepted"])
    return Finished(JobState.CANCELLED, done=accepted, reason="cancelled", result=_counts(rounds, state))


@dataclass
class AugmentationRun:
    """One delivery of an augmentation set."""

    context: RunContext
    work: AugmentationWork
    augmentation: PlannedAugmentation
    rounds: Rounds

    def advance(self) -> Finished | RetryLater:
        """Judges finished rounds and submits new ones; returns the end, or when to look again."""
        judged, state = self.rounds.last_state()
        while True:
            counts = self._counts(state)
            ended = self._end(judged, state, counts)
            if ended is not None:
                return ended
            try:
                self._send(judged, counts)
            except LimitReached as limit:
                # the round after this one can wait; this one may be finished already
                if self.rounds.read_jobs(judged) is None:
                    self.context.report_progress(
                        counts.accepted, self.work.count, "waiting: the tenant's limit is reached"
                    )
                    return RetryLater(float(limit.retry_after_s))
            if not self._is_made(judged, counts):
                return RetryLater(_POLL_INTERVAL_S)
            state = self._judge(judged, state, counts)
            judged += 1

    def _end(self, judged: int, state: RoundState | None, counts: SetCounts) -> Finished | None:
        """The end, if the set is full or all tries are spent; otherwise None."""
        plan = self.augmentation.plan
        if counts.accepted < plan.count and (
            counts.tried < plan.max_samples or self.rounds.read_plan(judged) is not None
        ):
            return None
        full = counts.accepted >= plan.count
        reason = None
        if not full:
            rejected = ", ".join(
                f"{count} {why.replace('_', ' ')}" for why, count in (state.rejected if state else {}).items()
            )
            tries = f"all {counts.tried} tries are spent"
            reason = f"{counts.accepted} of {plan.count} accepted, and {tries}. Rejected: {rejected}"
        outcome = JobState.SUCCEEDED if full else JobState.PARTIAL if counts.accepted else JobState.FAILED
        return Finished(
            outcome,
            done=counts.accepted,
            total=plan.count,
            reason=reason,
            result={
                **_counts(self.rounds, state),
                "achieved": self._achieved(counts),
                "planned": report(plan).model_dump(mode="json"),
            },
        )

    def _achieved(self, counts: SetCounts) -> dict[str, float]:
        shares = counts.shares(self.augmentation.parameters.balance_by)
        return {entry.name: round(float(shares[entry.index]), 6) for entry in self.augmentation.card.classes}

    def _send(self, judged: int, counts: SetCounts) -> None:
        """Submits the round that is judged next, and the one after it if more twins will be needed."""
        assumed = counts.copy()
        for number in (judged, judged + 1):
            lines = self.rounds.read_plan(number)
            if lines is None:
                size = min(self.augmentation.plan.lacking(assumed), self._max_in_a_round())
                if not size:
                    return
                lines = self._plan(number, assumed, size)
            if self.rounds.read_jobs(number) is None:
                self._submit(number, lines)
            for line in lines:
                assumed.add_pending(int(line.wanted["item"]), np.array(line.shares))

    def _max_in_a_round(self) -> int:
        """Maximum number of samples in a round, such that two rounds fit into the tenant's limit of queued samples."""
        limit = self.context.worker.settings.limit_queued_samples
        return min(MAX_ROUND_SAMPLES, max(1, limit // 2)) if limit > 0 else MAX_ROUND_SAMPLES

    def _plan(self, number: int, assumed: SetCounts, size: int) -> list[WantedLine]:
        """Plans a round and stores its masks. The plan is written last, so a stored plan has all its masks."""
        uploads, tenant = self.context.worker.submitter.uploads, self.context.spec.tenant
        lines = []
        for entry in self.augmentation.plan.next(assumed, size):
            self.context.check()
            upload = None if entry.labels is None else uploads.put(encode_indices(entry.labels), tenant=tenant)
            numbered = None if entry.instances is None else instances_png(entry.instances)
            instances = None if numbered is None else uploads.put(numbered, tenant=tenant)
            lines.append(self._line(entry, upload, instances))
        return self.rounds.write_plan(number, lines)

    def _line(self, entry: PlanEntry, upload: str | None, instances: str | None) -> WantedLine:
        pool, wanted = self.augmentation.pool, entry.wanted
        record = pool.record(wanted.item)
        groups = [record.source_mask]
        taken = {step["other"] for step in entry.applied if step.get("other") is not None}
        groups += [pool.record(wanted.others[number]).source_mask for number in sorted(taken)]
        named = list(dict.fromkeys(group for group in groups if group))
        return WantedLine(
            wanted=wanted.to_json(),
            upload=upload,
            instances=instances,
            applied=tuple(entry.applied),
            missed=missed_by_name(self.augmentation.plan, entry),
            shares=tuple(round(float(share), 9) for share in entry.shares),
            # a mask that the model draws itself has no source mask
            source_mask="+".join(named) if entry.labels is not None and named else None,
            item=record.identity,
            scale=tuple(self.augmentation.parameters.fit.scale_of(record.width, record.height)),
        )

    def _submit(self, number: int, lines: list[WantedLine]) -> None:
        """Submits the round: one job for each prompt or class set. Repeated calls submit the same jobs."""
        worker, spec = self.context.worker, self.context.spec
        jobs = []
        for place, (members, request) in enumerate(self._requests(number, lines)):
            self.context.check()
            body = GenerateRequest.model_validate(request)
            key = self.rounds.job_key(number, place)
            made, _ = worker.submitter.submit(
                body, tenant=spec.tenant, body=request, idempotency_key=key, model=self.work.model_key
            )
            jobs.append(RoundJob(job=made.job, lines=tuple(members)))
        self.rounds.write_jobs(number, RoundJobs(jobs=tuple(jobs)))

    def _requests(self, number: int, lines: list[WantedLine]) -> Iterator[tuple[list[int], dict[str, object]]]:
        entries = [
            PlanEntry(Wanted.from_json(line.wanted), _MASK if line.upload else None, None, (), np.empty(0))
            for line in lines
        ]
        at = {entry.wanted.index: place for place, entry in enumerate(entries)}
        settings = self.context.worker.settings
        most = min(settings.max_masks, settings.max_count)
        place = 0
        for group in job_groups(entries):
            members = [at[entry.wanted.index] for entry in group.entries]
            for first in range(0, len(members), most):
                chosen = members[first : first + most]
                request: dict[str, object] = {
                    "model": self.work.model,
                    "count": len(chosen),
                    "seed": sample_seed(self.work.seed, number * _MAX_ROUND_JOBS + place),
                    **self.work.sampling.model_dump(exclude_none=True, exclude={"size"}),
                    **self.augmentation.parameters.fit.job_members(mask=lines[chosen[0]].upload is not None),
                    "name": f"{self.context.spec.run}, round {number + 1}",
                    "layout": "shards" if len(chosen) >= _SHARDS_FROM_COUNT else "objects",
                }
                if group.prompt is not None:
                    request["prompt"] = group.prompt
                elif group.classes is not None:
                    request["classes"] = list(group.classes)
                if lines[chosen[0]].upload is not None:
                    request |= {"mask": [{"upload": lines[each].upload} for each in chosen], "mask_encoding": "index"}
                    request |= _instances([lines[each].instances for each in chosen])
                yield chosen, request
                place += 1

    def _is_made(self, number: int, counts: SetCounts) -> bool:
        """Whether all jobs of the round have ended; reports the progress."""
        repository = self.context.worker.repository
        jobs = self.rounds.read_jobs(number)
        assert jobs is not None
        made, left = 0, 0
        for job in jobs.jobs:
            self.context.check()
            try:
                if repository.read_summary(job.job) is not None:
                    made += len(job.lines)
                    continue
                spec = repository.read_spec(job.job)
            except UnknownJob:
                made += len(job.lines)  # a user deleted the job; its twins count as failed
                continue
            left += 1
            made += min(len(job.lines), spec.chunk_size * sum(1 for _ in repository.chunks.recorded(job.job)))
        size = sum(len(job.lines) for job in jobs.jobs)
        done = min(self.work.count, counts.accepted + made)
        self.context.report_progress(
            done,
            self.work.count,
            f"round {number + 1}: {made} of {size} made" if left else f"judging round {number + 1}",
        )
        return not left

    def _judge(self, number: int, state: RoundState | None, counts: SetCounts) -> RoundState:
        lines, jobs = self.rounds.read_plan(number), self.rounds.read_jobs(number)
        assert lines is not None
        assert jobs is not None
        fingerprints = self.rounds.read_fingerprints(number - 1) if number else None
        judge = Judge(self.context, self.augmentation, counts, state or _NOTHING, fingerprints)
        twins = judge.judge(lines, jobs)
        own = RoundState(counts=counts.to_json(), rejected=judge.rejected, objects=judge.objects)
        after = self.rounds.finish(number, twins, judge.fingerprints(), own)
        metrics.ACCEPTED.inc(len(twins))
        for reason, count in judge.rejected.items():
            metrics.REJECTED.labels(reason).inc(count - (state.rejected.get(reason, 0) if state else 0))
        return after

    def _counts(self, state: RoundState | None) -> SetCounts:
        return (
            SetCounts.empty(len(self.augmentation.card.classes)) if state is None else SetCounts.from_json(state.counts)
        )


class _Plans:
    """Least recently used cache of plans, so that a delivery need not read the dataset's index again."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._plans: OrderedDict[tuple[int, str], PlannedAugmentation] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, context: RunContext, work: AugmentationWork) -> PlannedAugmentation:
        worker, key = context.worker, (id(context.worker.store), context.spec.run)
        with self._lock:
            if key in self._plans:
                self._plans.move_to_end(key)
                return self._plans[key]
        plan = reopen(work, worker.store, worker.catalogue, worker.settings)
        with self._lock:
            self._plans[key] = plan
            while len(self._plans) > self._max_size:
                self._plans.popitem(last=False)
        return plan


_NOTHING = RoundState(counts={}, rejected={})
_PLANS = _Plans(max_size=4)
_MASK = np.empty((0, 0), dtype=np.uint8)
"""Placeholder for a stored mask, where it only matters that there is one."""


def _instances(uploads: Sequence[str | None]) -> dict[str, object]:
    """The member for the instance maps of a job's masks; none if no mask has one."""
    if not any(uploads):
        return {}
    return {"instances": [None if upload is None else {"upload": upload} for upload in uploads]}


def _counts(rounds: Rounds, state: RoundState | None) -> dict[str, object]:
    tried = 0 if state is None else int(state.counts["tried"])
    known = state or _NOTHING
    return {"tried": tried, "rejected": known.rejected, "objects": known.objects, "rounds": len(rounds.numbers())}
