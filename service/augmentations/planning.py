"""Plans for requests: each is made in a child process with limits, and only a few at the same time."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from model_store.card import ModelCard
from service.augmentations.plan_values import PlanShares
from service.augmentations.request import AugmentationRequest
from service.augmentations.work import AugmentationWork
from service.datasets.stored.dataset import StoredDataset
from service.errors import InvalidRequest, LimitReached, NotReady, ObjectDamaged
from service.kit.validation import Faults
from service.sandbox.limits import SandboxLimits
from service.sandbox.process import Sandbox, SandboxExceeded, SandboxLost
from service.sandbox.store_gate import StoreGate
from service.settings import Settings
from service.store.base import ObjectStore
from service.store.run_keys import run_prefix

_CHILD = "service.augmentations.planning_child"
LIMITS = ("max_steps", "max_prompt_chars", "max_canvas_px", "max_mask_px")
"""The settings that a plan depends on."""
_MAX_SECONDS = 120
_RETRY_AFTER_S = 5


class FinishedPlan(BaseModel):
    """A plan that was made: the decided request, its figures, and its image (a PNG)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    work: AugmentationWork
    name: str | None
    count: int
    shares: PlanShares
    picture: bytes = b""


@dataclass
class PlanSlots:
    """The plans that one process makes at the same time; others wait for their turn, a few of each tenant."""

    running: int = 2
    max_waiting: int = 8
    max_of_tenant: int = 3
    wait_s: float = 60.0
    _here: Counter[str] = field(default_factory=Counter)
    _turns: list[object] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @contextmanager
    def slot(self, tenant: str) -> Iterator[None]:
        """A slot, while the block lasts. Raises LimitReached if too many plans are waited for."""
        turn = object()
        with self._changed:
            if self._here[tenant] >= self.max_of_tenant or len(self._turns) >= self.running + self.max_waiting:
                raise LimitReached(
                    f"{self._here[tenant]} plans of this tenant are being made, and {len(self._turns)} in all; the "
                    f"limits are {self.max_of_tenant} and {self.running + self.max_waiting}. Send the request again "
                    "when one has been answered",
                    retry_after_s=_RETRY_AFTER_S,
                    limit="plans",
                )
            self._here[tenant] += 1
            self._turns.append(turn)
        try:
            self._wait(turn)
            yield
        finally:
            with self._changed:
                self._turns.remove(turn)
                self._here[tenant] -= 1
                self._here += Counter()  # forgets tenants without plans
                self._changed.notify_all()

    def _wait(self, turn: object) -> None:
        deadline = time.monotonic() + self.wait_s
        with self._changed:
            while turn not in self._turns[: self.running]:
                if not self._changed.wait(deadline - time.monotonic()):
                    raise LimitReached(
                        f"other plans took longer than {self.wait_s:g} s; send the request again",
                        retry_after_s=_RETRY_AFTER_S,
                        limit="plans",
                    )


_SLOTS = PlanSlots()


def plan_gate(store: ObjectStore, run: str) -> StoreGate:
    """What a child that makes a plan may do with the store: read the dataset's objects."""
    return StoreGate(store, may_read=lambda key: key.startswith(run_prefix(run)))


def plan_in_child(
    request: AugmentationRequest,
    dataset: StoredDataset,
    card: ModelCard,
    settings: Settings,
    faults: Faults,
    *,
    tenant: str,
    slots: PlanSlots = _SLOTS,
) -> FinishedPlan:
    """Makes the plan of a request; ``faults`` are those found in it before.

    Raises InvalidRequest with all faults, or if the plan costs too much; LimitReached; NotReady; what the store raises.
    """
    asked = {
        "request": request.model_dump(mode="json", exclude_unset=True),
        "run": dataset.run,
        "about": dataset.about.model_dump(mode="json"),
        "card": card.model_dump(mode="json"),
        "faults": faults.found,
        "settings": {name: getattr(settings, name) for name in LIMITS},
    }
    limits = SandboxLimits(settings.import_memory_bytes, cpu_s=_MAX_SECONDS, timeout_s=_MAX_SECONDS)
    gate = plan_gate(dataset.store, dataset.run)
    sandbox = Sandbox(_CHILD, {}, limits, gate.answer, body=json.dumps(asked).encode(), believed=(ObjectDamaged,))
    with slots.slot(tenant):
        try:
            result = sandbox.run()
        except SandboxExceeded as exceeded:
            detail = (
                f"the plan of {dataset.about.items} items cannot be made ({exceeded.detail}); name fewer of them with "
                "'splits', or divide the dataset"
            )
            raise InvalidRequest(detail, errors=[{"pointer": "/dataset", "detail": detail}]) from None
        except SandboxLost as lost:
            raise NotReady(f"the plan was not finished: {lost}; send the request again") from None
    end = int(result.values["text_bytes"])
    return FinishedPlan(**json.loads(result.body[:end]), picture=result.body[end:])
