"""Signed links that the API serves itself: anyone who has the link may GET that one object until it expires.

The signature is the HMAC-SHA256 of key and expiry time, in hex. S3 signs its own links to objects.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, urlencode

from service.errors import LinkExpired, LinkInvalid, SettingsError

LINK_PATH = "/objects/"
_log = logging.getLogger("twinset.store")


def signature(secret: bytes, key: str, expires: int, sha256: str | None = None) -> str:
    """The signature of a link to ``key`` that expires at ``expires`` (seconds since 1970).

    With ``sha256`` the link is to these bytes only. No key contains a line break, so no two links share a message.
    """
    return sign_message(secret, f"twinset-link-v1\n{expires}\n{key}" + (f"\n{sha256}" if sha256 else ""))


def sign_message(secret: bytes, message: str) -> str:
    """The signature of a link's message, which begins with the name of the kind of link. Raises UnicodeEncodeError."""
    return hmac.new(secret, message.encode(), hashlib.sha256).hexdigest()


def sign_path(secret: bytes, key: str, expires: int, sha256: str | None = None) -> str:
    """Path and query of a link: ``/objects/{key}?expires=..[&sha256=..]&signature=..``."""
    named = {"sha256": sha256} if sha256 else {}
    query = urlencode({"expires": expires, **named, "signature": signature(secret, key, expires, sha256)})
    return f"{LINK_PATH}{quote(key, safe='/')}?{query}"


def check_signature(
    secret: bytes, key: str, expires: int | str, given: str, *, sha256: str | None = None, now: float | None = None
) -> None:
    """Checks a link. Raises LinkInvalid if the signature is wrong, otherwise LinkExpired if it is too late.

    The signature is checked first, and in constant time, so that a forger learns nothing.
    """
    check_message(lambda until: signature(secret, key, until, sha256), expires, given, now=now)


def check_message(sign: Callable[[int], str], expires: int | str, given: str, *, now: float | None = None) -> None:
    """As :func:`check_signature`, for a link whose signature is ``sign(expires)``."""
    try:
        until = int(expires)
        if str(until) != str(expires):
            raise ValueError("another spelling of the number")
        fits = hmac.compare_digest(sign(until).encode(), given.encode())
    except (ValueError, UnicodeEncodeError):
        fits = False
    if not fits:
        raise LinkInvalid("the link was changed or signed by another server; ask the job for a new one")
    if (time.time() if now is None else now) >= until:
        raise LinkExpired("the link has expired; ask the job for a new one", expires=until)


def load_or_create_secret(
    path: Path,
    *,
    make: Callable[[], str] = lambda: secrets.token_hex(32),
    name: str = "link secret",
    setting: str = "TWINSET_LINK_SECRET",
) -> bytes:
    """The secret in the file ``path``, created on first use with mode 0600; racing processes agree on one.

    The file is flushed to disk before it gets its name. One that a power cut has emptied is replaced by a new one.
    Raises SettingsError, which calls the secret ``name`` and mentions the ``setting`` that would replace it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        set_aside_emptied(path)
        if not path.exists():
            _create(path, make())
        secret = path.read_text(errors="replace").strip().encode()
    except OSError as error:
        raise SettingsError(
            f"the {name} at {path} cannot be read or created ({error.strerror}); "
            f"make the folder writable, or set {setting}"
        ) from error
    if len(secret) < 16:
        raise SettingsError(f"the {name} at {path} is shorter than 16 characters; delete it to get a new one")
    return secret


def set_aside_emptied(path: Path) -> Path | None:
    """Renames a secret's file that a power cut has emptied or filled with zeros; its new path, None if it is whole."""
    if not path.exists():
        return None
    with _lock(path.parent):  # another process may have replaced it by now
        data = path.read_bytes() if path.exists() else b"gone"
        if data.strip() and b"\0" not in data:
            return None
        aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
        path.rename(aside)
    _log.warning("%s was empty or damaged, as after a power cut. It is now %s, and a new one is made", path, aside.name)
    return aside


def _create(path: Path, text: str) -> None:
    """Creates the file with ``text``, flushed to disk, unless it exists."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    with _lock(path.parent) as folder:
        os.fsync(folder)


@contextmanager
def _lock(folder: Path) -> Iterator[int]:
    """A lock among processes on ``folder``, as its descriptor."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
