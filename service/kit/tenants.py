"""Tenants, the owners of jobs and data. A tenant's name becomes part of store keys, so its form is strict."""

from __future__ import annotations

import re

DEFAULT_TENANT = "default"
"""The owner of everything where no API key is needed."""

TENANT_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
_TENANT = re.compile(TENANT_PATTERN.rstrip("$") + r"\Z")
TENANT_FORM = "1 to 63 lower-case letters, digits and hyphens, the first not a hyphen"


def is_tenant(name: str) -> bool:
    """Whether ``name`` has the form of a tenant's name."""
    return _TENANT.match(name) is not None
