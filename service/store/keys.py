"""The names of objects: which are allowed, and where each kind of object lies.

One rule for both stores, so that what a folder takes, S3 takes, and no key can leave the folder.
"""

from __future__ import annotations

import re
import unicodedata

from service.errors import InvalidKey

MAX_KEY_BYTES = 512
MAX_PART_BYTES = 200
"""Filesystems allow 255 bytes a name; the rest is room for the suffix of temporary files."""

_CONTENT_TYPES = {
    "png": "image/png",
    "json": "application/json",
    "jsonl": "application/x-ndjson",
    "tar": "application/x-tar",
    "zip": "application/zip",
    "csv": "text/csv; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
}
OCTET_STREAM = "application/octet-stream"
SHARD_SUFFIX = ".tar"
# What nearly every name is made of, and harmless at a glance; only of others is each character looked at.
_PLAIN_PART = re.compile(rf"[\w-][\w.-]{{0,{MAX_PART_BYTES - 1}}}", re.ASCII)
_PLAIN_TEXT = re.compile(rf"[\w./-]{{0,{MAX_KEY_BYTES}}}", re.ASCII)


def check_key(key: str) -> str:
    """The key itself, when it names an object that any store can hold.

    Refused with InvalidKey: empty keys and parts (so a leading, trailing or double '/'), parts that start
    with '.' (so '.' and '..', and names we keep for ourselves), backslashes, control characters (so NUL and
    newlines), unpaired surrogates, keys over MAX_KEY_BYTES and parts over MAX_PART_BYTES of UTF-8.
    """
    for part in _checked(key, "key").split("/"):
        if not part:
            raise InvalidKey(f"key {key!r} has an empty part; parts are joined by single '/'", key=key)
        _check_part(part, key)
    return key


def check_prefix(prefix: str, *, whole_parts: bool = False) -> str:
    """The prefix itself, when it may begin a key; its last part may be empty or unfinished.

    With ``whole_parts`` it must be '' or end in '/'. Raises InvalidKey.
    """
    if not prefix:
        return prefix
    *parts, last = _checked(prefix, "prefix").split("/")
    if whole_parts and last:
        raise InvalidKey(f"prefix {prefix!r} names no folder; end it with '/'", key=prefix)
    for part in parts:
        if not part:
            raise InvalidKey(f"prefix {prefix!r} has an empty part; parts are joined by single '/'", key=prefix)
        _check_part(part, prefix)
    if last:
        _check_part(last, prefix)
    return prefix


def check_start(start_after: str | None) -> str | None:
    """A place to go on listing from: any text that a key could be compared with. Raises InvalidKey."""
    return _checked(start_after, "start_after") if start_after else None


def is_key(key: str) -> bool:
    """Whether a name found in a store is a key; others, such as S3's folder markers, are none of ours."""
    try:
        return bool(check_key(key))
    except InvalidKey:
        return False


def is_part(name: str) -> bool:
    """Whether a file or folder of this name can be part of a key."""
    if _PLAIN_PART.fullmatch(name):
        return True
    try:
        _check_part(_checked(name, "name"), name)
    except InvalidKey:
        return False
    return bool(name) and "/" not in name


def _checked(text: str, what: str) -> str:
    if _PLAIN_TEXT.fullmatch(text):
        return text
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidKey(f"{what} {text!r} is not text that UTF-8 can hold", key=ascii(text)) from None
    if size > MAX_KEY_BYTES:
        raise InvalidKey(f"{what} {text[:60]!r}... has {size} bytes; the limit is {MAX_KEY_BYTES}", key=text)
    if "\\" in text or any(unicodedata.category(character) == "Cc" for character in text):
        raise InvalidKey(f"{what} {text!r} holds a backslash or a control character; leave it out", key=text)
    return text


def _check_part(part: str, key: str) -> None:
    if part.startswith("."):
        raise InvalidKey(f"key {key!r} has the part {part!r}; parts may not start with '.'", key=key)
    if len(part.encode()) > MAX_PART_BYTES:
        raise InvalidKey(f"key {key[:60]!r}... has a part over {MAX_PART_BYTES} bytes; shorten it", key=key)


def content_type(key: str) -> str:
    """The media type that belongs to a key's suffix; application/octet-stream where none does."""
    return _CONTENT_TYPES.get(key.rpartition(".")[2].lower(), OCTET_STREAM)


def jobs_prefix() -> str:
    return "jobs/"


def job_prefix(job: str) -> str:
    return f"jobs/{job}/"


def job_spec(job: str) -> str:
    return f"jobs/{job}/spec.json"


def job_started(job: str) -> str:
    """The mark that a worker has begun with the job."""
    return f"jobs/{job}/started.json"


def job_cancel(job: str) -> str:
    return f"jobs/{job}/cancel.json"


def job_image(job: str, index: int) -> str:
    return f"jobs/{job}/images/{index:08d}.png"


def job_mask(job: str, index: int) -> str:
    return f"jobs/{job}/masks/{index:08d}.png"


def job_shard(job: str, chunk: int) -> str:
    """Where the twins of a chunk lie together."""
    return f"jobs/{job}/shards/{chunk:06d}{SHARD_SUFFIX}"


def job_shard_beside(job: str, chunk: int, sha256: str) -> str:
    """The same for a shard with ``sha256`` that met another one there."""
    return f"jobs/{job}/shards/{chunk:06d}.{_checked_sha256(sha256)}{SHARD_SUFFIX}"


def job_shards_prefix(job: str) -> str:
    return f"jobs/{job}/shards/"


def job_pictures_prefixes(job: str) -> tuple[str, ...]:
    """Below these lies all that a job's records count."""
    return f"jobs/{job}/images/", f"jobs/{job}/masks/", job_shards_prefix(job)


def job_input(job: str, number: int) -> str:
    """Where given mask ``number`` (0, 1, ...) lies, as class indices at the job's size."""
    return f"jobs/{job}/inputs/{number:06d}.png"


def job_inputs_prefix(job: str) -> str:
    return f"jobs/{job}/inputs/"


def job_chunks_prefix(job: str) -> str:
    return f"jobs/{job}/chunks/"


def job_chunk(job: str, chunk: int) -> str:
    return f"jobs/{job}/chunks/{chunk:06d}.json"


def job_manifest(job: str) -> str:
    return f"jobs/{job}/manifest.jsonl"


def job_summary(job: str) -> str:
    return f"jobs/{job}/summary.json"


def job_retry(job: str) -> str:
    """Which job makes what is missing of this one."""
    return f"jobs/{job}/retry.json"


def job_callbacks_prefix(job: str) -> str:
    return f"jobs/{job}/callbacks/"


def job_callback(job: str, attempt: int) -> str:
    """Where attempt ``attempt`` (1, 2, ...) at the job's callback is recorded."""
    return f"jobs/{job}/callbacks/{attempt:04d}.json"


def pending_callbacks_prefix() -> str:
    return "callbacks/pending/"


def pending_callback(subject: str) -> str:
    """The note that the callback of a job, or of a run, is due, or soon will be."""
    return f"callbacks/pending/{subject}.json"


def deletions_prefix() -> str:
    return "deleting/"


def deletion(job: str) -> str:
    """The note that the job is deleted: from the moment it is there, the job is not."""
    return f"deleting/{job}.json"


def models_prefix() -> str:
    return "models/"


def model_prefix(name: str, version: str) -> str:
    return f"models/{name}/{version}/"


def model_card(name: str, version: str) -> str:
    return f"models/{name}/{version}/card.json"


def model_file(name: str, version: str, file: str) -> str:
    return f"models/{name}/{version}/{file}"


def shape_choice(name: str, version: str, machine_sha256: str) -> str:
    """Where the batch shape of a model on a machine type is remembered."""
    return f"shapes/{name}/{version}/{_checked_sha256(machine_sha256)}.json"


def idempotency(tenant: str, sha256: str) -> str:
    """Where the job of an Idempotency-Key is remembered; hashed, for such a key may hold anything."""
    return f"idempotency/{tenant}/{_checked_sha256(sha256)}.json"


def upload(tenant: str, sha256: str) -> str:
    """Where a file that was sent lies, under the sha256 of its bytes."""
    return f"uploads/{tenant}/{_checked_sha256(sha256)}.png"


def uploads_prefix(tenant: str) -> str:
    return f"uploads/{tenant}/"


def api_keys_prefix() -> str:
    return "keys/"


def api_key(key_id: str) -> str:
    """Where an API key's record lies: whose it is, and the hash of its secret."""
    return f"keys/{key_id}.json"


def tenants_prefix() -> str:
    return "tenants/"


def tenant_jobs_prefix(tenant: str) -> str:
    return f"tenants/{tenant}/jobs/"


def tenant_job(tenant: str, job: str) -> str:
    """The entry by which a job is found among its tenant's; empty, for its name says all."""
    return f"tenants/{tenant}/jobs/{job}"


def tenant_open_prefix(tenant: str) -> str:
    return f"tenants/{tenant}/open/"


def tenant_open_job(tenant: str, job: str, samples: int) -> str:
    """The entry of a job that has not ended, with its samples in its name, so that a listing tells their sum."""
    return f"tenants/{tenant}/open/{job}.{samples}"


def tenant_stored_prefix(tenant: str) -> str:
    return f"tenants/{tenant}/stored/"


def tenant_stored_job(tenant: str, job: str, size: int) -> str:
    """The entry of a job that has ended, with the bytes of its files in its name."""
    return f"tenants/{tenant}/stored/{job}.{size}"


def _checked_sha256(sha256: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ValueError(f"{sha256!r} is no sha256 in hex")
    return sha256
