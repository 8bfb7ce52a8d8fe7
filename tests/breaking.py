"""A store that fails after a number of deletes that a test chooses."""

from __future__ import annotations

from service.errors import StoreUnavailable
from service.store.folder import FolderStore


class FailsAfter(FolderStore):
    """A folder store that fails after ``left`` deletes, and leaves what a worker killed there would leave."""

    left = 10**9

    def delete(self, key: str) -> None:
        if self.left <= 0:
            raise StoreUnavailable(f"{key} not deleted: the test's limit is reached")
        self.left -= 1
        super().delete(key)
