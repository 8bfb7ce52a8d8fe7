"""Model store: cards, weights and networks of the three systems, and the bundled models.

Importing this package, or :mod:`model_store.card`, loads neither torch nor numpy, so that the API process stays light.
"""

from __future__ import annotations

from pathlib import Path


def bundled_folder() -> Path:
    """The folder of the models that ship with the package: ``{name}/{version}/card.json``."""
    return Path(__file__).parent / "bundled"
