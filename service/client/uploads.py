"""Uploads: the masks that are stored on the server for requests to name; listing and deleting them."""

from __future__ import annotations

from service.client.client import BaseClient
from service.client.effects import Flow, Request
from service.client.errors import ApiProblem
from service.client.paging import Page
from service.client.requests import page_request
from service.client.retries import parse, send
from service.client.views import UploadInfo, UploadInfoPage
from service.client.wire import path

_PAGE_SIZE = 500


def uploads_page(client: BaseClient, cursor: str | None) -> Flow[Page[UploadInfo]]:
    """Iterates over your uploaded masks, by their ids. Example::

    for mask in client.uploads():
        print(mask.upload, mask.bytes, mask.uploaded_at)
    """
    page = parse(UploadInfoPage, (yield from send(client.config, page_request("/uploads", cursor, _PAGE_SIZE))))
    return Page(page.uploads, page.next_cursor)


def delete_upload(client: BaseClient, upload: str) -> Flow[bool]:
    """Deletes an uploaded mask by its id, so that it no longer counts as stored; jobs keep the masks they were given.

    Returns False if you have none of that id, as when it was deleted before.
    """
    try:
        yield from send(client.config, Request("DELETE", path("uploads", upload)))
    except ApiProblem as problem:
        if problem.status == 404:
            return False
        raise
    return True
