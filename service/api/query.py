"""Query parameters: a route that refuses those that it does not have, and those that come twice.

One that is ignored looks as if it worked: ``?limt=5`` would give another page than was meant, and ``?state=a&state=b``
only half of what was asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, ClassVar

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from service.api.openapi import answers
from service.errors import InvalidRequest, LinkInvalid, TwinsetError
from service.kit.validation import closest_match, truncated_repr

_MAX_FAULTS = 20


class CheckedRoute(APIRoute):
    """A route that knows its query parameters."""

    refuses_with: ClassVar[int] = 422

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        options["responses"] = {**answers(self.refuses_with), **(options.get("responses") or {})}
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler behind this check. Raises :class:`InvalidRequest`."""
        handle = super().get_route_handler()
        known = sorted(set(_names(self.dependant)))

        async def handle_checked(request: Request) -> Response:
            if request.scope["query_string"] and (errors := _faults(request, known)):
                raise self.refusal(errors)
            return await handle(request)

        return handle_checked

    def refusal(self, errors: list[dict[str, str]]) -> TwinsetError:
        """The error for these faults."""
        return InvalidRequest("; ".join(error["detail"] for error in errors), errors=errors)


class LinkRoute(CheckedRoute):
    """A route of signed links, which are as they were given or not valid."""

    refuses_with = 403

    def refusal(self, errors: list[dict[str, str]]) -> TwinsetError:
        """The error for these faults."""
        return LinkInvalid(f"the link was changed: {errors[0]['detail']}; ask the job for a new one")


def _names(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for other in dependant.dependencies:
        yield from _names(other)


def _faults(request: Request, known: list[str]) -> list[dict[str, str]]:
    """What is wrong with the names of the query parameters."""
    errors: list[dict[str, str]] = []
    given = Counter(name for name, _ in request.query_params.multi_items())
    for name, times in given.items():
        if len(errors) == _MAX_FAULTS:
            break
        if name not in known:
            near = closest_match(name, known)
            meant = f"did you mean {near!r}? " if near else ""
            has = f"it has {', '.join(known)}" if known else "it has none"
            detail = f"{truncated_repr(name)} is not a query parameter of this path; {meant}{has}"
        elif times > 1:
            detail = f"the query parameter {name!r} comes {times} times; send it once"
        else:
            continue
        errors.append({"parameter": name[:200], "in": "query", "detail": detail})
    return errors
