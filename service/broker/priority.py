"""The priority of a job."""

from __future__ import annotations

from typing import Literal

Priority = Literal["normal", "interactive"]
"""``interactive``: a user waits for the job's twins. It decides when they are made and changes none of their pixels."""
