"""Uploaded masks as answered."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field


class StoredUploadView(BaseModel):
    """An uploaded file in the list of all."""

    upload: str = Field(description="its id, for masks of requests: the sha256 of its bytes")
    bytes: int
    uploaded_at: datetime


class UploadPage(BaseModel):
    """Uploaded files, by their ids."""

    uploads: list[StoredUploadView]
    next_cursor: str | None
