"""A folder for the prepared copies of datasets that tests train on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def prepared_copies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps them out of the working folder."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TWINSET_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        yield
