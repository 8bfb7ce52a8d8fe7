"""The objects that every run has in the store: its spec and its summary. Frozen values, written as JSON."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, Field, model_validator

from service.kit.frozen import _Frozen
from service.kit.run_kinds import RUN_ID_PATTERN, RunKind, kind_of
from service.kit.states import JobState
from service.kit.tenants import DEFAULT_TENANT, TENANT_PATTERN
from service.webhooks.spec import Callback


class RunSpec(_Frozen):
    """An accepted run, with everything decided. ``work`` is the request as its kind has resolved it."""

    format: Literal[1] = 1
    run: str = Field(pattern=RUN_ID_PATTERN)
    tenant: str = Field(DEFAULT_TENANT, pattern=TENANT_PATTERN)
    name: str | None = Field(None, description="the requester's own words for it")
    created_at: AwareDatetime
    total: int | None = Field(None, ge=0, description="items to come, where that is known from the start")
    work: dict[str, Any]
    request: dict[str, Any] = Field(default_factory=dict, description="the request as given")
    idempotency: str | None = Field(None, description="the key of the record that binds an Idempotency-Key to the run")
    callback: Callback | None = None
    request_id: str | None = Field(None, description="the id of the request that made it")
    traceparent: str | None = Field(None, description="the trace of that request, if there was one")

    @property
    def kind(self) -> RunKind:
        kind = kind_of(self.run)
        assert kind is not None
        return kind


class RunSummary(_Frozen):
    """How a run ended. It is written once: the first writer decides. ``result`` depends on the kind."""

    format: Literal[1] = 1
    run: str = Field(pattern=RUN_ID_PATTERN)
    state: JobState
    done: int = Field(ge=0)
    total: int | None = Field(None, ge=0)
    finished_at: AwareDatetime
    seconds: float = Field(ge=0.0, description="from the run's acceptance to its end")
    reason: str | None = None
    bytes: int = Field(0, ge=0, description="size of its objects in the store")
    result: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_an_end(self) -> RunSummary:
        if not self.state.ended:
            raise ValueError(f"a summary says how a run ended; {self.state.value!r} is not an end")
        return self
