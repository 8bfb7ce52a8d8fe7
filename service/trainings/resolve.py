"""Resolution of a training's request: its datasets, its stages with their options, and the parts they build on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from model_store.card import NAME_PATTERN
from service.errors import TwinsetError, UnknownRun
from service.kit.run_kinds import RunKind
from service.kit.states import JobState
from service.kit.validation import Faults, closest_match, join_list
from service.registry.register import is_name_of_all
from service.runs.dataset_versions import Datasets
from service.runs.repository import RunRepository
from service.trainings.options import OPTIONS, SystemName
from service.trainings.options.systems import PAPER_PX, SMALL_PX
from service.trainings.request import TrainingRequest
from service.trainings.work import PARTS, USES, Role, TrainingBudget, TrainingStage, TrainingWork

_REF = re.compile(r"training/([a-z0-9]+)")
_SHARED = ("preset", "fit", "tile_px", "scale", "window", "has_up", "precision")
"""Options that the parts of a chain take over from its model, unless they have their own."""
_PAPERS = {"siamese-diffusion": "siamese", "pathdiff": "pathdiff"}


@dataclass(frozen=True)
class TrainingResolver:
    """Resolves the requests of one tenant."""

    runs: RunRepository
    tenant: str

    def resolve(self, body: TrainingRequest, faults: Faults) -> TrainingWork:
        """The training as decided. Raises all faults together; those found before are in ``faults``.

        Raises :class:`UnknownDataset` and JobStateConflict for datasets that cannot be used.
        """
        data = self._datasets(body, faults)
        name = self._name(body, data, faults)
        own = self._options(body, faults)
        stages = self._stages(body, data, own, faults)
        faults.raise_if_any()
        return TrainingWork(
            stages=tuple(stages),
            model=name,
            budget=TrainingBudget(**body.budget.model_dump()),
            evaluate=body.evaluate,
            promote_if=body.promote_if,
            keep_every=body.keep_every,
        )

    def _datasets(self, body: TrainingRequest, faults: Faults) -> tuple[str, ...]:
        wanted = ("text_dataset", "mask_dataset") if body.system == "pathdiff" else ("dataset",)
        for member in ("dataset", "text_dataset", "mask_dataset"):
            given = getattr(body, member)
            if member in wanted and given is None:
                faults.add(member, given, f"{body.system} is trained on {' and '.join(wanted)}; name a stored dataset")
            elif member not in wanted and given is not None:
                faults.add(member, given, f"{body.system} is trained on {' and '.join(wanted)}; leave it out")
        datasets = Datasets(self.runs, self.tenant)
        return tuple(
            f"{about.name}@{about.version}"
            for member in wanted
            if (given := getattr(body, member)) is not None
            for about in (datasets.ready(given).about,)
        )

    def _name(self, body: TrainingRequest, data: tuple[str, ...], faults: Faults) -> str | None:
        if body.system in PARTS:
            if body.name is not None:
                faults.add(
                    "name", body.name, f"{body.system} is a part of models, and is named by its training; leave it out"
                )
            return None
        if body.name is None:
            words = re.findall(r"[a-z0-9]+", data[-1].partition("@")[0].lower()) if data else []
            name = "-".join([body.system.removesuffix("-diffusion"), *words])[:63].rstrip("-")
        else:
            name = body.name
        if not re.fullmatch(NAME_PATTERN, name):
            faults.add("name", name, "a model's name has lower-case letters, digits and hyphens, as polyps-v2")
        elif is_name_of_all(self.runs.store, name):
            faults.add("name", name, "it is the name of a model of all tenants; give another one")
        return name

    def _options(self, body: TrainingRequest, faults: Faults) -> dict[str, Any]:
        """The options of the system itself: its settings, with the members that stand beside them."""
        given = dict(body.settings)
        for member in ("preset", "fit", "seed"):
            value = getattr(body, member)
            if value is None:
                continue
            if member in given and given[member] != value:
                faults.add(f"settings.{member}", given[member], f"{member} itself is {value!r}; give one of them")
            given[member] = value
        return given

    def _stages(
        self, body: TrainingRequest, data: tuple[str, ...], own: dict[str, Any], faults: Faults
    ) -> list[TrainingStage]:
        roles = self._trained_first(body, faults)
        uses: dict[SystemName, dict[Role, str]] = {}
        for role in ("base", "autoencoder", "superres"):
            given = getattr(body, role)
            if given is not None and role in USES.get(body.system, ()):
                self._check_part(role, given, faults)
                uses.setdefault(body.system, {})[role] = given
            elif given is not None:
                has = join_list(USES.get(body.system, ())) if body.system in USES else "no parts"
                faults.add(role, given, f"{body.system} is built on {has}; leave it out")
        systems: list[SystemName] = [*roles, body.system]
        stages: list[TrainingStage] = []
        for number, system in enumerate(systems):
            is_own = number == len(systems) - 1
            member = "settings" if is_own else f"parts.{system}"
            given = own if is_own else self._of_part(system, body, own)
            options = self._checked(system, given, member, faults)
            used = uses.get(system, {}) | {
                role: f"stage:{systems.index(role)}" for role in USES.get(system, ()) if role in systems[:number]
            }
            of_texts = system == "base" or (system == "autoencoder" and len(data) == 2)
            chosen = data if system == "pathdiff" else data[:1] if of_texts else data[-1:]
            if len(chosen) == (2 if system == "pathdiff" else 1):
                stages.append(TrainingStage(system=system, data=chosen, uses=used, options=options))
        return stages

    def _trained_first(self, body: TrainingRequest, faults: Faults) -> list[Role]:
        """The parts that the training trains before its own system, in order."""
        first: list[Role] = []
        if body.system in _PAPERS and body.base is None:
            first = ["autoencoder", "base"]
        elif body.system == "base" and body.autoencoder is None:
            first = ["autoencoder"]
        elif body.system == "cosimgen" and "superres" in body.parts and body.superres is None:
            first = ["superres"]
        for role in body.parts:
            if role not in first:
                what = f"this training trains {join_list(first)} first" if first else "it trains no part first"
                faults.add(f"parts.{role}", body.parts[role], f"{what}; leave it out")
        return first

    def _of_part(self, system: SystemName, body: TrainingRequest, own: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a part that is trained first: its own, what it takes over, and what the model's size wants."""
        known = OPTIONS[system].model_fields
        given = {name: own[name] for name in (*_SHARED, "seed") if name in own and name in known}
        if given.get("preset") == "toy":
            del given["preset"]
        paper = _PAPERS.get(body.system)
        if paper is not None:
            if "paper" in known:
                given["paper"] = paper
            if "size_px" in known:
                default = PAPER_PX[paper] if own.get("preset") == "paper" else SMALL_PX  # type: ignore[index]
                given["size_px"] = own.get("size_px") or default
        if system == "autoencoder" and body.system == "base" and own.get("size_px"):
            given["size_px"] = own["size_px"]
        if system == "superres":
            given["base_px"] = {"toy": 32, "paper": 128}.get(str(own.get("preset")), 64)
        parts: Mapping[str, dict[str, Any]] = {str(role): part for role, part in body.parts.items()}
        return given | parts.get(system, {})

    def _checked(self, system: SystemName, given: Mapping[str, Any], member: str, faults: Faults) -> dict[str, Any]:
        """The options, checked by the system's own model."""
        kind = OPTIONS[system]
        unknown = [name for name in given if name not in kind.model_fields]
        for name in unknown:
            near = closest_match(name, kind.model_fields)
            meant = f"did you mean {near!r}? " if near else ""
            faults.add(
                f"{member}.{name[:80]}",
                given[name],
                f"{system} has no such setting; {meant}It has: {join_list(sorted(kind.model_fields))}",
            )
        try:
            found = kind.model_validate({name: value for name, value in given.items() if name not in unknown})
        except ValidationError as error:
            for fault in error.errors():
                place = ".".join([member, *(str(part) for part in fault["loc"])])
                faults.add(place, fault["input"], fault["msg"].removeprefix("Value error, "))
            return {}
        if found.window is not None:
            faults.add(
                f"{member}.window",
                found.window,
                "the levels of a stored dataset became black and white when it was uploaded; leave it out",
            )
        wrong = found.wrong_mix()
        if wrong is not None:
            faults.add_plain(f"/{member.replace('.', '/')}", wrong)
        return found.model_dump(mode="json", exclude_unset=True)

    def _check_part(self, role: Role, ref: str, faults: Faults) -> None:
        match = _REF.fullmatch(ref)
        remedy = f"name a training of a {role} that has succeeded, as training/{{id}}, or leave it out"
        if match is None:
            faults.add(role, ref, f"it is not of the form training/{{id}}; {remedy}")
            return
        try:
            spec = self.runs.read_spec(match[1], tenant=self.tenant, kind=RunKind.TRAINING)
            summary = self.runs.read_summary(spec.run)
        except UnknownRun:
            faults.add(role, ref, f"there is no such training; {remedy}")
            return
        except TwinsetError as error:
            faults.add(role, ref, error.detail)
            return
        system = TrainingWork.model_validate(spec.work).last.system
        if system != role:
            faults.add(role, ref, f"it trains {system}, not {role}; {remedy}")
        elif summary is None or summary.state is not JobState.SUCCEEDED:
            state = "has not ended" if summary is None else f"has ended as {summary.state.value}"
            faults.add(role, ref, f"it {state}; {remedy}")
