"""Fixtures of the tests of training data."""

from __future__ import annotations

from tests.workers.prepared import prepared_copies

__all__ = ["prepared_copies"]
