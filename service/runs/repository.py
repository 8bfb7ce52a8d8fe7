"""The repository of runs: reads and writes their objects in the store, without any state of its own.

Every write may be repeated: specs, marks and summaries are written only if absent.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel

from service.errors import JobStateConflict, ObjectExists, ObjectNotFound, RecordUnreadable, UnknownRun
from service.jobs.usage import TenantUsage
from service.kit.frozen import parse_members, parse_stored
from service.kit.run_kinds import RunKind, kind_of
from service.kit.states import JobState
from service.kit.validation import truncated_repr
from service.registry.references import recorded_key
from service.registry.uses import drop_use
from service.runs.spec import RunSpec, RunSummary
from service.runs.version_numbers import forget_version
from service.store import run_keys
from service.store.base import ObjectStore
from service.webhooks.outbox import Outbox


@dataclass(frozen=True)
class RunRepository:
    """The runs in ``store``."""

    store: ObjectStore

    @property
    def outbox(self) -> Outbox:
        """The outbox of callbacks, in the same store."""
        return Outbox(self.store)

    def write_spec(self, spec: RunSpec) -> bool:
        """Writes the spec, after the entries by which its tenant and the sweeper find the run; False if it existed."""
        self.store.put(run_keys.tenant_run(spec.tenant, spec.run), b"")
        self.store.put(run_keys.open_run(spec.run), b"")
        return self._put_once(run_keys.run_spec(spec.run), spec)

    def announce(self, run: str, tenant: str, size: int) -> None:
        """Counts ``size`` bytes for a run whose spec is not written yet, before they are stored.

        The sweeper finds the run, and removes it if its spec never comes.
        """
        self.store.put(run_keys.open_run(run), tenant.encode())
        TenantUsage(self.store).record_bytes(tenant, run, size)

    def abandon(self, run: str) -> None:
        """Deletes a run whose spec was never written: its entry among the open ones, and what was stored for it."""
        try:
            tenant = self.store.get(run_keys.open_run(run)).decode()
        except ObjectNotFound:
            return
        if not tenant:
            self.store.delete(run_keys.open_run(run))  # nothing was stored before its spec
            return
        entry = {"format": 1, "run": run, "why": "never written", "tenant": tenant, "idempotency": None}
        self.store.put(run_keys.deleting_run(run), json.dumps(entry).encode())

    def read_spec(self, run: str, *, tenant: str | None = None, kind: RunKind | None = None) -> RunSpec:
        """The run's spec.

        Raises :class:`UnknownRun` if there is none, or it is of another tenant or kind, or being deleted; and
        :class:`RecordUnreadable` for a spec that cannot be read: who may see the run is then decided by the tenants'
        lists.
        """
        found = kind_of(run)
        what = kind or found
        if found is None or kind not in (None, found):
            expected = f"ids of {what.plural} begin with {what.letter!r}" if what else "ids come from the API"
            raise UnknownRun(f"{truncated_repr(run)} is not an id of {what.words if what else 'a run'}; {expected}")
        spec: RunSpec | None = None
        try:
            spec = self.stored_spec(run)
        except RecordUnreadable:
            if (tenant is None or self.lists_run(run, tenant)) and not self.is_deleted(run):
                raise
        if spec is None or tenant not in (None, spec.tenant) or self.is_deleted(run):
            raise UnknownRun(f"{found.value} {run!r} does not exist; GET /{found.plural} lists those that do")
        return spec

    def stored_spec(self, run: str) -> RunSpec | None:
        """The run's spec, also while the run is being deleted; None if there is none."""
        try:
            return parse_stored(RunSpec, self.store.get(run_keys.run_spec(run)), run_keys.run_spec(run), run=run)
        except ObjectNotFound:
            return None

    def lists_run(self, run: str, tenant: str) -> bool:
        """Whether the run is listed among the tenant's."""
        return self.store.head(run_keys.tenant_run(tenant, run)) is not None

    def runs(self, tenant: str, kind: RunKind, *, start_after: str | None = None) -> Iterator[str]:
        """The tenant's runs of a kind, newest first, those after ``start_after`` only; some may have no spec."""
        prefix = run_keys.tenant_runs_prefix(tenant, kind)
        after = None if start_after is None else prefix + start_after
        for info in self.store.list(prefix, start_after=after):
            run = info.key[len(prefix) :]
            if kind_of(run) is kind:
                yield run

    def runs_of_all_tenants(
        self, kind: RunKind, *, start_after: str | None = None, limit: int | None = None
    ) -> Iterator[str]:
        """Runs of a kind of all tenants, newest first, those after ``start_after`` only; some may have no spec."""
        for name in self.store.list_folders(run_keys.kind_prefix(kind), start_after=start_after, limit=limit):
            if kind_of(name) is kind:
                yield name

    def open_runs(self) -> Iterator[str]:
        """Runs of all tenants, newest first, that have no summary, or whose leftovers are still to be removed."""
        prefix = run_keys.open_prefix()
        for info in self.store.list(prefix):
            if kind_of(info.key[len(prefix) :]) is not None:
                yield info.key[len(prefix) :]

    def mark_started(self, run: str) -> None:
        """Marks the run as started, before a worker looks for its cancel."""
        self._put_mark(run_keys.run_started(run), run, "started_at")

    def is_started(self, run: str) -> bool:
        return self.store.head(run_keys.run_started(run)) is not None

    def cancel(self, spec: RunSpec) -> None:
        """Requests the run's cancel, and ends it at once if no worker has started it. Cancelling again changes nothing.

        A worker first marks the run as started and then looks for a cancel, so one of the two sees the other. Raises
        :class:`JobStateConflict` if the run has ended otherwise.
        """
        summary = self.read_summary(spec.run)
        if summary is not None:
            if summary.state is JobState.CANCELLED:
                return
            raise JobStateConflict(
                f"{spec.kind.value} {spec.run} has ended as {summary.state.value}; "
                "only one that is queued or running can be cancelled",
                state=summary.state.value,
            )
        self._put_mark(run_keys.run_cancel(spec.run), spec.run, "requested_at")
        if not self.is_started(spec.run):
            self.end(spec, JobState.CANCELLED, reason="cancelled before it started")

    def is_cancelled(self, run: str) -> bool:
        return self.store.head(run_keys.run_cancel(run)) is not None

    def read_summary(self, run: str) -> RunSummary | None:
        """How the run ended, or None if it has not."""
        key = run_keys.run_summary(run)
        try:
            return parse_stored(RunSummary, self.store.get(key), key, run=run)
        except ObjectNotFound:
            return None

    def end(
        self,
        spec: RunSpec,
        state: JobState,
        *,
        done: int = 0,
        total: int | None = None,
        reason: str | None = None,
        size: int = 0,
        result: dict[str, Any] | None = None,
        now: datetime | None = None,
    ) -> RunSummary:
        """Ends the run; the summary that holds, which is another worker's if that came first.

        ``size`` is the size of the objects that stay, in bytes. The run stays among the open ones until a worker has
        removed its other objects.
        """
        moment = now or datetime.now(UTC)
        summary = RunSummary(
            run=spec.run,
            state=state,
            done=done,
            total=spec.total if total is None else total,
            finished_at=moment,
            seconds=max(0.0, (moment - spec.created_at).total_seconds()),
            reason=reason,
            bytes=size,
            result=result or {},
        )
        # in place of what was announced: the archive is removed
        TenantUsage(self.store).replace_bytes(spec.tenant, spec.run, size)
        if spec.callback is not None:
            self.outbox.enqueue(spec.run)
        first = self._put_once(run_keys.run_summary(spec.run), summary)
        return summary if first else self.read_summary(spec.run) or summary

    def delete(self, spec: RunSpec, why: Literal["asked for", "expired"] = "asked for") -> None:
        """Deletes the run: from now on it is unknown, and its objects are removed in the background.

        A run that has not ended is cancelled. A callback that has not been delivered is deleted with the run.
        """
        dataset = spec.name if spec.kind is RunKind.DATASET else None
        model = recorded_key(spec.work) if spec.kind is RunKind.AUGMENTATION and "model" in spec.work else None
        self._delete(spec.run, spec.tenant, spec.idempotency, why, dataset, model)

    def delete_unreadable(self, run: str, tenant: str, *, dataset: str | None = None) -> None:
        """Deletes a run whose spec or summary cannot be read, as :meth:`delete` does. ``dataset``: its name@version."""
        key = run_keys.run_spec(run)
        try:
            bound = parse_members(self.store.get(key), key).get("idempotency")
        except (ObjectNotFound, RecordUnreadable):
            bound = None
        own = isinstance(bound, str) and bound.startswith(f"idempotency/{tenant}/")
        self._delete(run, tenant, bound if own else None, "asked for", dataset)

    def _delete(
        self, run: str, tenant: str, idempotency: str | None, why: str, dataset: str | None, model: str | None = None
    ) -> None:
        entry = {"format": 1, "run": run, "why": why, "tenant": tenant, "idempotency": idempotency, "dataset": dataset}
        entry |= {} if model is None else {"model": model}
        self.store.put(run_keys.deleting_run(run), json.dumps(entry).encode())

    def is_deleted(self, run: str) -> bool:
        return self.store.head(run_keys.deleting_run(run)) is not None

    def deleted_runs(self) -> Iterator[str]:
        """Runs whose objects are still to be removed."""
        prefix = run_keys.deleting_prefix()
        for info in self.store.list(prefix):
            run = info.key[len(prefix) :].removesuffix(".json")
            if kind_of(run) is not None:
                yield run

    def remove(self, run: str, *, max_objects: int) -> bool:
        """Removes up to ``max_objects`` objects of a deleted run.

        Returns True once nothing is left of it and its entry is gone.
        """
        key = run_keys.deleting_run(run)
        entry: dict[str, Any] = {}
        try:
            entry = parse_members(self.store.get(key), key, "tenant")
        except ObjectNotFound:
            return True
        except RecordUnreadable:
            pass  # the run is deleted all the same, with all that any tenant has of it
        removed = 0
        last = (run_keys.run_spec(run), run_keys.run_summary(run))
        for info in self.store.list(run_keys.run_prefix(run)):
            if removed == max_objects:
                return False
            if info.key not in last:
                self.store.delete(info.key)
                removed += 1
        for key in last:
            self.store.delete(key)
        self.outbox.delete_entry(run)
        if entry.get("idempotency"):
            self.store.delete(str(entry["idempotency"]))
        usage = TenantUsage(self.store)
        if isinstance(entry.get("dataset"), str):
            forget_version(self.store, entry["tenant"], entry["dataset"], run)
        if isinstance(entry.get("model"), str):
            drop_use(self.store, entry["model"], run)
        for tenant in [entry["tenant"]] if entry else list(usage.tenants()):
            usage.drop_bytes(tenant, run)
            self.store.delete(run_keys.tenant_run(tenant, run))
        for key in (run_keys.open_run(run), run_keys.deleting_run(run)):
            self.store.delete(key)
        return True

    def _put_mark(self, key: str, run: str, moment: str) -> None:
        text = json.dumps({"format": 1, "run": run, moment: datetime.now(UTC).isoformat()}).encode()
        with contextlib.suppress(ObjectExists):
            self.store.put(key, text, if_absent=True)

    def _put_once(self, key: str, value: BaseModel) -> bool:
        try:
            self.store.put(key, value.model_dump_json().encode(), if_absent=True)
        except ObjectExists:
            return False
        return True
