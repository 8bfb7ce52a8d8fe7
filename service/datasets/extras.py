"""Optional packages, imported when a format needs them."""

from __future__ import annotations

import importlib
from types import ModuleType

from service.errors import MissingExtra


def optional(module: str, *, extra: str, purpose: str) -> ModuleType:
    """The module, imported. Raises MissingExtra naming the extra that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        detail = f"{purpose} needs the package {package}, which is not installed: pip install 'twinset[{extra}]'"
        raise MissingExtra(detail, extra=extra) from None
