"""A store that stops working at a place of a test's choice."""

from __future__ import annotations

from service.errors import StoreUnavailable
from service.store.folder import FolderStore


class FailsAfter(FolderStore):
    """A folder store that is gone after so many deletes: what a worker leaves that is killed there."""

    left = 10**9

    def delete(self, key: str) -> None:
        if self.left <= 0:
            raise StoreUnavailable(f"{key} not deleted: the test says so")
        self.left -= 1
        super().delete(key)
