"""Safe unpacking of an export's zip parts: nothing outside the folder, no links, each file whole or not at all.

A receipt lists the files of each part, so that a part is not fetched again while all of them are there.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from service.client.errors import DownloadRefused
from service.client.folder import STATE_DIR, DownloadFolder, RemoteFile, file_sha256
from service.datasets.reading.unpacking import unpack
from service.errors import ArchiveRefused

LISTED_SEPARATELY = frozenset({"manifest.jsonl", "README.md"})
"""Files that the server also lists beside the parts; their copies in the last part are skipped."""


def is_unpacked(folder: DownloadFolder, part: RemoteFile) -> bool:
    """Whether all files of the part are in the folder, unchanged."""
    receipt = folder.read_json(_receipt(folder, part))
    if (
        not isinstance(receipt, dict)
        or receipt.get("sha256") != part.sha256
        or not isinstance(receipt.get("files"), dict)
    ):
        return False
    return all(folder.holds(path, sha256, size) for path, (sha256, size) in receipt["files"].items())


def unpack_part(folder: DownloadFolder, part: RemoteFile, archive: Path) -> None:
    """Unpacks ``archive``, the fetched part, and writes its receipt. Raises DownloadRefused for an unsafe archive."""
    fresh = folder.scratch(".part")
    try:
        unpack(archive, fresh)
        files: dict[str, tuple[str, int]] = {}
        for file in sorted(path for path in fresh.rglob("*") if path.is_file()):
            path = file.relative_to(fresh).as_posix()
            if path in LISTED_SEPARATELY:
                continue
            files[path] = (file_sha256(file), file.stat().st_size)
            folder.place(file, path)
        folder.write_json(_receipt(folder, part), {"format": 1, "sha256": part.sha256, "files": files})
    except ArchiveRefused as refused:
        raise DownloadRefused(f"{part.path} was not unpacked: {refused.detail}") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _receipt(folder: DownloadFolder, part: RemoteFile) -> Path:
    return folder.root / STATE_DIR / f"{part.sha256}.json"
