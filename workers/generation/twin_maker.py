"""Twins of a job made again under recorded conditions, for its repair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from model_store.text import TextEncoderMissing
from service.errors import CardError, NotReady, StoreUnavailable, UnknownModel, WeightsError
from service.jobs.sample_item import MadeTwin
from service.jobs.spec import JobSpec, MadeOn
from service.settings import Settings
from service.store.base import ObjectStore
from workers.engine import EngineStopped
from workers.generation.reproduce import Conditions, Remaker
from workers.models.files import Load
from workers.models.loaded_model import LoadedModel


@dataclass(frozen=True)
class RemadeTwin:
    """A twin that was made again, and on what; or None with the reason why it cannot be made."""

    twin: MadeTwin | None
    made_on: MadeOn
    reason: str = ""


@dataclass
class TwinMaker:
    """Makes twins of ``spec``, with one model at a time in memory. ``load`` replaces the loading of models."""

    spec: JobSpec
    store: ObjectStore
    settings: Settings
    load: Load | None = None
    _remaker: tuple[Conditions, Remaker] | None = None

    def make(self, wanted: Mapping[int, MadeOn]) -> dict[int, RemadeTwin]:
        """The twins of these indices, each made on what its record says, as far as this machine can.

        Raises the store's errors, and NotReady if the device is lost.
        """
        made: dict[int, RemadeTwin] = {}
        groups: dict[Conditions, list[int]] = {}
        for index, made_on in wanted.items():
            groups.setdefault(Conditions.of(made_on), []).append(index)
        for conditions, indices in groups.items():
            try:
                remaker = self._open(conditions)
            except (UnknownModel, CardError, WeightsError, TextEncoderMissing) as error:
                made |= {index: RemadeTwin(None, wanted[index], str(error)) for index in indices}
            else:
                made |= self._make_group(remaker, indices)
        return made

    def close(self) -> None:
        """Frees the model; it is loaded again when it is needed."""
        if self._remaker is not None:
            self._remaker[1].close()
            self._remaker = None

    def _make_group(self, remaker: Remaker, indices: Sequence[int]) -> dict[int, RemadeTwin]:
        started = [(index, remaker.start(index)) for index in indices]
        made: dict[int, RemadeTwin] = {}
        for index, latent in started:
            try:
                twin = remaker.finish(index, latent)
            except EngineStopped as error:
                raise NotReady(f"the device was lost before twin {index} was made again: {error}") from None
            except StoreUnavailable:
                raise
            except Exception as error:  # the sample's own error, or its given mask's
                made[index] = RemadeTwin(None, _made_on(remaker.model), f"{type(error).__name__}: {error}")
                continue
            made[index] = RemadeTwin(twin, _made_on(remaker.model))
        return made

    def _open(self, conditions: Conditions) -> Remaker:
        if self._remaker is not None and self._remaker[0] == conditions:
            return self._remaker[1]
        self.close()
        remaker = Remaker(self.spec, self.store, self.settings, conditions, self.load)
        self._remaker = conditions, remaker
        return remaker


def _made_on(model: LoadedModel) -> MadeOn:
    return MadeOn(
        batch_shape=model.batch_shape,
        shapes="fixed",
        dtype=model.dtype_name,
        device=model.device_name,
        build=model.build,
    )
