"""Signed links to single files of a shard. A store's presigned URL could only open the whole shard.

    /twins/{job}/{index}/image.png?shard=000012&offset=1536&bytes=90210&sha256=..&expires=..&signature=..

The link says where the file lies, so that serving it takes one read of these bytes and no look at the job. The
signature covers the whole link. Like a store's own links, it works as long as the file is there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlencode

from service.errors import LinkInvalid
from service.jobs.sample_files import FOLDERS, Kind, SampleFile
from service.kit.ids import is_job_id
from service.store import keys
from service.store.signing import check_message, sign_message

PATH = "/twins/"
_NUMBER = re.compile(r"0|[1-9][0-9]{0,14}")
_SHARD = re.compile(rf"[0-9]{{6}}(\.{keys.ATTEMPT}|\.[0-9a-f]{{64}})?")
"""With an attempt, or as the shards of earlier versions were called."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class TwinLink:
    """A link to a file of twin ``index``, of any kind: ``size`` bytes from ``offset`` of a shard of the job.

    It expires at ``expires``, in seconds since 1970. ``shard`` is the shard's name without its suffix."""

    job: str
    index: int
    kind: Kind
    shard: str
    offset: int
    size: int
    sha256: str
    expires: int

    @classmethod
    def to(cls, job: str, index: int, file: SampleFile, expires: int) -> TwinLink:
        """The link to a file in a shard of the job."""
        shard = file.key.removeprefix(keys.job_shards_prefix(job)).removesuffix(keys.SHARD_SUFFIX)
        return cls(job, index, file.kind, shard, file.offset or 0, file.bytes, file.sha256, expires)

    @classmethod
    def parse(
        cls, *, job: str, index: str, kind: str, shard: str, offset: str, size: str, sha256: str, expires: str
    ) -> TwinLink:
        """The link of these parts. Raises :class:`LinkInvalid` for parts of a form that is never written."""
        numbers = all(_NUMBER.fullmatch(part) for part in (index, offset, size, expires))
        whole = numbers and is_job_id(job) and kind in FOLDERS and _SHARD.fullmatch(shard) and _SHA256.fullmatch(sha256)
        if not whole:
            raise LinkInvalid("the link is not as it was given; ask the job for a new one")
        return cls(job, int(index), cast(Kind, kind), shard, int(offset), int(size), sha256, int(expires))

    @property
    def file(self) -> SampleFile:
        """The file that the link opens."""
        key = f"{keys.job_shards_prefix(self.job)}{self.shard}{keys.SHARD_SUFFIX}"
        return SampleFile(self.kind, key, self.sha256, self.size, self.offset)

    def signed(self, secret: bytes) -> str:
        """The link's path and query, with its signature."""
        return f"{self._unsigned(self.expires)}&{urlencode({'signature': self._sign(secret, self.expires)})}"

    def check(self, secret: bytes, signature: str) -> None:
        """Checks that the link was signed with ``secret`` and has not expired. Raises LinkInvalid or LinkExpired."""
        check_message(lambda expires: self._sign(secret, expires), self.expires, signature)

    def _unsigned(self, expires: int) -> str:
        where = {
            "shard": self.shard,
            "offset": self.offset,
            "bytes": self.size,
            "sha256": self.sha256,
            "expires": expires,
        }
        return f"{PATH}{self.job}/{self.index}/{self.kind}.png?{urlencode(where)}"

    def _sign(self, secret: bytes, expires: int) -> str:
        return sign_message(secret, f"twinset-twin-link-v1\n{self._unsigned(expires)}")
