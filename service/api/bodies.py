"""Bodies that are read and described by hand, so that what they load is loaded by those who send one."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from service.api.problems import MalformedBody, invalid_request

Body = TypeVar("Body", bound=BaseModel)


def read_body(model: type[Body], text: bytes) -> Body:
    """The body of a request. Raises :class:`MalformedBody`, or InvalidRequest with all that is wrong with it."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise MalformedBody(f"the body is not JSON{where} ({str(error)[:100]}); send one JSON object") from None
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise invalid_request([{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()], model, given) from None


def described_body(name: str) -> dict[str, Any]:
    """What an operation says of a JSON body of the schema ``name``, one of :func:`body_schemas`."""
    reference = {"$ref": f"#/components/schemas/{name}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": reference}}}}


def body_schemas() -> dict[str, Any]:
    """The schemas of these bodies, and those that they refer to."""
    from service.api.datasets import DatasetFromStore
    from service.augmentations.request import AugmentationRequest

    schemas: dict[str, Any] = {}
    for model in (DatasetFromStore, AugmentationRequest):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    return schemas
