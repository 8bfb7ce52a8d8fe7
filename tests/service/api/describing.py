"""The OpenAPI description as schemathesis is given it: with examples and words that lead somewhere, and fixed in all
that is drawn."""

from __future__ import annotations

import base64
from copy import deepcopy
from pathlib import Path
from typing import Any

import schemathesis
from fastapi import FastAPI
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from service.api.app import create_app
from service.api.errors import every_problem
from service.api.routes.dataset_upload import ARCHIVES
from service.kit.ids import ID_BODY, JOB_ID_PATTERN
from service.kit.seeds import SEED_MAX
from service.masks.uploads import upload_id
from service.runs.dataset_versions import DATASET_NAME_PATTERN
from service.store import keys
from tests.service.api.population import (
    DATASET,
    JOBS,
    MASK,
    MODELS,
    OWN_MODEL,
    RUNS,
    SPARE,
)
from tests.service.api.support import DictLiveState, NotingQueue, settings_for
from tests.service.masks.bending import bases
from tests.service.masks.hostile import bent
from tests.workers.bulk.conftest import dataset_tar

SLUGS = sorted({kind.slug for kind in every_problem()})
WORDS: dict[str, tuple[float, list[Any]]] = {
    "path.job": (0.7, list(JOBS.values())),
    "path.model": (
        0.7,
        [*MODELS, "nobody", OWN_MODEL, f"{OWN_MODEL}@1.0.0", f"{OWN_MODEL}@1.1.0", f"{OWN_MODEL}@stable"],
    ),
    "path.alias": (0.7, ["stable", "next", "1.0.0"]),
    "body.version": (0.7, ["1.0.0", "1.1.0"]),
    "body.tenants.[*]": (0.7, ["acme", "bolt"]),
    "path.slug": (0.5, SLUGS),
    "path.export": (0.8, list(RUNS["exports"].values())),
    "path.augmentation": (0.8, list(RUNS["augmentations"].values())),
    "path.training": (0.8, list(RUNS["trainings"].values())),
    "path.name": (0.8, [DATASET]),
    "path.version": (0.7, ["1", "2", "0", "01"]),
    "query.name": (0.7, [DATASET, "other-scenes"]),
    "body.dataset": (0.8, [DATASET, f"{DATASET}@1"]),
    "body.sources.[*].dataset": (0.8, [DATASET, f"{DATASET}@1"]),
    "body.sources.[*].job": (0.8, [JOBS["succeeded"], JOBS["running"]]),
    "body.model": (0.8, list(MODELS)),
    "body.count": (0.5, [1, 2, 8]),
    "body.classes.[*]": (0.8, ["water", "building", "Houses", "unlabelled"]),
    "header.prefer": (0.5, ["wait=0", "wait=1", 'wait="1"; x=y', "respond-async, wait=0", "wait=-1"]),
    "header.range": (
        0.7,
        ["bytes=0-9", "bytes=5-", "bytes=-4", "bytes=900000-", "bytes=3-1", "bytes=0-1,3-4", "items=0-1"],
    ),
    "header.last-event-id": (0.6, ["5.4.0.succeeded", "2.2.0.running"]),
}
"""What stands, as often as that, in place of what would be drawn: ids that there are, headers that mean something."""

_ARCHIVES = (dataset_tar(1), b"PK\3\4 that is all", b"no archive")
for kind in ARCHIVES:
    schemathesis.openapi.media_type(kind, st.sampled_from(_ARCHIVES))
# What a PNG is, no schema says; of the bent ones there are thousands in test_hostile_files.py.
schemathesis.openapi.media_type("image/png", st.sampled_from([*bases().values(), *(data for _, data in bent(1, 40))]))


class Door:
    """Stands for the API from when the tests are collected; it leads to one while there is one."""

    def __init__(self) -> None:
        self.app: FastAPI | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None
        await self.app(scope, receive, send)


door = Door()


def described() -> dict[str, Any]:
    """The description, with examples that lead somewhere, and what it says in words of cursors as patterns.

    It needs no store to be made, so it is there when tests are collected, one for each operation.
    """
    app = create_app(
        settings_for(Path("/nonexistent")), store=object(), queue=NotingQueue(), live_state=DictLiveState()
    )  # type: ignore[arg-type]
    text: dict[str, Any] = deepcopy(app.openapi())
    pictures = [keys.job_image(JOBS["succeeded"], index, "ab" * 32) for index in range(2)]
    examples = {"job": list(JOBS.values()), "model": list(MODELS), "slug": SLUGS[:3], "key": pictures}
    examples |= {"upload": [upload_id(SPARE), "0" * 64], "alias": ["stable", "next"]}
    examples["model"] += [OWN_MODEL, f"{OWN_MODEL}@1.0.0"]
    examples |= {"index": ["0", "3"], "kind": ["image", "mask"], "name": [DATASET, "nobody"], "version": ["1", "7"]}
    examples |= {kind.removesuffix("s"): list(ids.values()) for kind, ids in RUNS.items()}
    cursors = {"/jobs": JOB_ID_PATTERN, "/jobs/{job}/samples": "^[0-9]{1,9}$", "/datasets": DATASET_NAME_PATTERN}
    cursors |= {"/uploads": "^[0-9a-f]{64}$"}
    cursors |= {"/exports": f"^e{ID_BODY}$", "/augmentations": f"^a{ID_BODY}$"}
    cursors |= {"/trainings": f"^t{ID_BODY}$", "/trainings/{training}/checkpoints": "^[0-9]{1,9}$"}
    cursors |= {"/exports/{export}/files": "^[0-9]{1,9}$", "/augmentations/{augmentation}/samples": "^[0-9]{1,9}$"}
    for path, methods in text["paths"].items():
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path":
                    parameter["schema"] = {"type": "string", "examples": examples[parameter["name"]]}
                elif parameter["name"] == "cursor":
                    parameter["schema"] = {"type": "string", "pattern": cursors[path]}
    return text


def without_keys(text: dict[str, Any]) -> dict[str, Any]:
    """As a server is that has no key in its store, and asks for none."""
    for methods in text["paths"].values():
        for operation in methods.values():
            operation.pop("security", None)
    return text


def schema_of(text: dict[str, Any], *, examples: int, mode: str = "all") -> Any:
    """What schemathesis makes of the description: fixed in all that is drawn. ``mode`` is all or positive (good
    data)."""
    words = {name: words for name, words in WORDS.items() if mode == "all" or not name.startswith("body.")}
    config = schemathesis.Config.from_dict(
        {
            "seed": 20260131,
            "dictionaries": {name: {"values": values} for name, (_, values) in words.items()},
            "parameters": {name: {"dictionary": name, "probability": chance} for name, (chance, _) in words.items()},
            "generation": {
                "mode": mode,
                "with-security-parameters": False,
                "max-examples": examples,
                "deterministic": True,
                "database": "none",
                "no-shrink": True,
            },
            # A range may be as a range should be, and lie outside of the object.
            "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", "3xx", "403", "404", "409", "416"]}},
            # Words picked out of our own source would make what is tried change with every line of it.
            "analysis": {"constants": {"enabled": False}},
            # A job that has not ended goes on telling; one event of it is enough.
            "max-stream-events": 1,
            "request-timeout": 10,
            "phases": {"stateful": {"enabled": False}, "fuzzing": {"extra-data-sources": {"responses": False}}},
        }
    )
    schema = schemathesis.openapi.from_dict(text, config=config)
    schema.app = door
    return schema


def allowed_by_the_cards() -> dict[str, Any]:
    """The description of ``POST /generate`` alone, whose body is all that the cards of the models allow, and nothing
    else."""
    text = without_keys(described())
    text["paths"] = {"/generate": text["paths"]["/generate"]}
    # The same key with another body is refused.
    parameters = text["paths"]["/generate"]["post"]["parameters"]
    parameters[:] = [parameter for parameter in parameters if parameter["name"] != "idempotency-key"]
    words = {"type": "string", "pattern": "^[a-z]{1,12}( [a-z]{1,12}){0,12}$"}
    mask = {"enum": [{"png": base64.b64encode(MASK).decode()}, {"upload": upload_id(MASK)}]}
    any_model = {
        "seed": {"type": "integer", "minimum": 0, "maximum": SEED_MAX},
        "steps": {"type": "integer", "minimum": 1, "maximum": 200},
        "guidance_scale": {"type": "number", "minimum": 0, "maximum": 20},
        "eta": {"type": "number", "minimum": 0, "maximum": 1},
        "priority": {"enum": ["normal", "interactive"]},
        "layout": {"enum": ["objects", "shards"]},
        "name": {"type": "string", "pattern": "^[ -~]{0,120}$"},
        "callback_url": {"enum": ["https://receiver.example/hook?a=b", "https://xn--bcher-kva.example:8443/"]},
    }
    count = {"type": "integer", "minimum": 1, "maximum": 8}
    aerial = {
        **any_model,
        "count": count,
        "model": {"enum": ["aerial", "aerial@1.0.0"]},
        "size": {"enum": [64, 128, 256]},
    }
    tissue = {
        **any_model,
        "count": {"enum": [1, 3]},
        "model": {"const": "tissue"},
        "guidance_target": {"enum": ["text", "mask", "joint"]},
    }
    names = {"type": "array", "items": {"enum": ["water", "HOUSES", "plants"]}, "minItems": 1, "maxItems": 4}
    several = {"anyOf": [mask, {"type": "array", "items": mask, "minItems": 1, "maxItems": 3}]}
    bodies = [
        ({**aerial, "prompt": words, "pairs": {"type": "boolean"}}, ["model", "prompt", "count"]),
        ({**aerial, "classes": names, "pairs": {"type": "boolean"}}, ["model", "classes", "count"]),
        ({**tissue, "prompt": words}, ["model", "prompt", "count"]),
        ({**tissue, "mask": several, "mask_encoding": {"enum": ["auto", "index"]}, "prompt": words}, ["model", "mask"]),
    ]
    text["components"]["schemas"]["GenerateRequest"] = {
        "oneOf": [
            {"type": "object", "properties": members, "required": required, "additionalProperties": False}
            for members, required in bodies
        ]
    }
    return text
