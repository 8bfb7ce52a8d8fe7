"""The priority of a job."""

from __future__ import annotations

from typing import Literal

Priority = Literal["normal", "interactive"]
"""Whether somebody waits for the job's twins as they come: it decides when they are made, and on none of their
pixels."""
