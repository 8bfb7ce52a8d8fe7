"""``/docs`` and ``/openapi.json``: the documentation page and the description behind it.

The page's parts come from here too: an internal network may have no internet access. The description is turned into
text once: it is large, and needs no key.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

_STATIC = "static-offline-docs"


def add_docs(app: FastAPI, *, prefix: str) -> None:
    """Gives ``app``, which has neither, its page and its description.

    ``prefix`` is the path at which clients find the API, where a proxy adds one.
    """
    app.mount(f"/{_STATIC}", StaticFiles(directory=str(files("fastapi_offline") / "static")), name=_STATIC)

    @cache
    def described() -> bytes:
        return json.dumps(app.openapi(), ensure_ascii=False, separators=(",", ":")).encode()

    @app.get("/openapi.json", include_in_schema=False)
    def description() -> Response:
        return Response(described(), media_type="application/json")

    @app.get("/docs", include_in_schema=False)
    async def page() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=f"{prefix}/openapi.json",
            title=f"{app.title} API",
            swagger_js_url=f"{prefix}/{_STATIC}/swagger-ui-bundle.js",
            swagger_css_url=f"{prefix}/{_STATIC}/swagger-ui.css",
            swagger_favicon_url=f"{prefix}/{_STATIC}/favicon.png",
        )
