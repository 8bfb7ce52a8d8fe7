"""Tenants: whose a job is. A tenant's name becomes part of store keys, so nothing but a strict form is one."""

from __future__ import annotations

import re

DEFAULT_TENANT = "default"
"""Whose everything is where no API key is needed."""

TENANT_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
_TENANT = re.compile(TENANT_PATTERN.rstrip("$") + r"\Z")
TENANT_FORM = "1 to 63 lower-case letters, digits and hyphens, the first no hyphen"


def is_tenant(name: str) -> bool:
    """Whether ``name`` may be a tenant's."""
    return _TENANT.match(name) is not None
