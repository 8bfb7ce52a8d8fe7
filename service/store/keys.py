"""Keys of objects: which are valid, and where each kind of object lies.

One rule for both stores: a key that is valid in a folder is valid on S3, and no key can lead out of the folder.

    jobs/{job}/spec.json  started.json  cancel.json  summary.json  retry.json  swept.json
               images/{index:08d}.{attempt}.png  masks/{index:08d}.{attempt}.png  instances/{index:08d}.{attempt}.png
               shards/{chunk:06d}.{attempt}.tar                  instead of these, in jobs of shards
               inputs/{number:06d}.{attempt}.png                 the given masks
               inputs/{number:06d}.instances.{attempt}.png       the instance maps of these
               chunks/{chunk:06d}.json                           the record of a chunk
               chunks/{chunk:06d}.r{number:04d}.json             the record that was put in its place
               repairs/{number:04d}.json                         what a repair found and did
               manifest.{attempt}.jsonl
    tenants/{tenant}/...  keys/  uploads/  callbacks/  deleting/  repairing/  shapes/  models/

{attempt} is the beginning of the sha256 of the object's bytes. Two workers of different machines make different bytes
of the same twin; so they never write the same key, and no late write changes what a record counts. Readers take keys
from the records: the spec (given masks), the chunk's record (images, masks, shards), the summary (the manifest). Specs
of format 2 and summaries of format 1 are of jobs whose keys have no attempt; ``sha256=None`` gives these.
"""

from __future__ import annotations

import re
import unicodedata

from service.errors import InvalidKey

MAX_KEY_BYTES = 512
MAX_PART_BYTES = 200
"""Filesystems allow names of 255 bytes; the rest is for the suffix of temporary files."""

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
# Nearly every name has this form and needs no further check; other names are checked character by character.
_PLAIN_PART = re.compile(rf"[\w-][\w.-]{{0,{MAX_PART_BYTES - 1}}}", re.ASCII)
_TWINS = re.compile(r"jobs/([^/]+)/(images|masks|instances|shards)/")
ATTEMPT = "[0-9a-f]{16}"
"""Pattern of an attempt in a key."""
_PLAIN_TEXT = re.compile(rf"[\w./-]{{0,{MAX_KEY_BYTES}}}", re.ASCII)


def check_key(key: str) -> str:
    """The key itself, if any store can hold an object of this name.

    Raises InvalidKey for: empty keys and parts (so a leading, trailing or double '/'), parts that start
    with '.' (so '.' and '..', and reserved names), backslashes, control characters (so NUL and
    newlines), unpaired surrogates, keys over MAX_KEY_BYTES and parts over MAX_PART_BYTES of UTF-8.
    """
    for part in _checked(key, "key").split("/"):
        if not part:
            raise InvalidKey(f"key {key!r} has an empty part; parts are joined by single '/'", key=key)
        _check_part(part, key)
    return key


def check_prefix(prefix: str, *, whole_parts: bool = False) -> str:
    """The prefix itself, if a key may begin with it; its last part may be empty or incomplete.

    With ``whole_parts`` it must be '' or end in '/'. Raises InvalidKey.
    """
    if not prefix:
        return prefix
    *parts, last = _checked(prefix, "prefix").split("/")
    if whole_parts and last:
        raise InvalidKey(f"prefix {prefix!r} is not a folder; end it with '/'", key=prefix)
    for part in parts:
        if not part:
            raise InvalidKey(f"prefix {prefix!r} has an empty part; parts are joined by single '/'", key=prefix)
        _check_part(part, prefix)
    if last:
        _check_part(last, prefix)
    return prefix


def check_start(start_after: str | None) -> str | None:
    """The start of a listing: any text that a key can be compared with. Raises InvalidKey."""
    return _checked(start_after, "start_after") if start_after else None


def is_key(key: str) -> bool:
    """Whether a name found in a store is a valid key; others, such as S3's folder markers, are ignored."""
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
        raise InvalidKey(f"{what} {text!r} cannot be encoded as UTF-8", key=ascii(text)) from None
    if size > MAX_KEY_BYTES:
        raise InvalidKey(f"{what} {text[:60]!r}... has {size} bytes; the limit is {MAX_KEY_BYTES}", key=text)
    if "\\" in text or any(unicodedata.category(character) == "Cc" for character in text):
        raise InvalidKey(f"{what} {text!r} has a backslash or a control character; leave it out", key=text)
    return text


def _check_part(part: str, key: str) -> None:
    if part.startswith("."):
        raise InvalidKey(f"key {key!r} has the part {part!r}; parts may not start with '.'", key=key)
    if len(part.encode()) > MAX_PART_BYTES:
        raise InvalidKey(f"key {key[:60]!r}... has a part over {MAX_PART_BYTES} bytes; shorten it", key=key)


def content_type(key: str) -> str:
    """The media type of a key's suffix; application/octet-stream for an unknown one."""
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


def attempt(sha256: str) -> str:
    """The attempt in the keys of an object with this sha256: its first 16 digits."""
    return _checked_sha256(sha256)[:16]


def with_attempt(key: str, sha256: str) -> str:
    """The key of an object with this sha256: ``key`` with the attempt before its suffix, or at its end without one."""
    folder, slash, name = key.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    with_it = f"{stem}.{attempt(sha256)}.{suffix}" if dot else f"{name}.{attempt(sha256)}"
    return f"{folder}{slash}{with_it}"


def job_image(job: str, index: int, sha256: str) -> str:
    return with_attempt(f"jobs/{job}/images/{index:08d}.png", sha256)


def job_mask(job: str, index: int, sha256: str) -> str:
    return with_attempt(f"jobs/{job}/masks/{index:08d}.png", sha256)


def job_instances(job: str, index: int, sha256: str) -> str:
    return with_attempt(f"jobs/{job}/instances/{index:08d}.png", sha256)


def job_shard(job: str, chunk: int, sha256: str) -> str:
    """The tar with all twins of a chunk."""
    return with_attempt(f"jobs/{job}/shards/{chunk:06d}{SHARD_SUFFIX}", sha256)


def job_shards_prefix(job: str) -> str:
    return f"jobs/{job}/shards/"


def job_sample_prefixes(job: str) -> tuple[str, ...]:
    """The prefixes of all twins' objects."""
    return f"jobs/{job}/images/", f"jobs/{job}/masks/", f"jobs/{job}/instances/", job_shards_prefix(job)


def job_of_twin(key: str) -> str | None:
    """The job whose twins' files are in the object, or None if it is another kind of object."""
    found = _TWINS.match(key)
    return None if found is None else found[1]


def job_input(job: str, number: int, sha256: str | None) -> str:
    """Input mask ``number`` (0, 1, ...), as class indices at the job's size."""
    key = f"jobs/{job}/inputs/{number:06d}.png"
    return key if sha256 is None else with_attempt(key, sha256)


def job_input_instances(job: str, number: int, sha256: str) -> str:
    """The instance map of input mask ``number``, at the job's size."""
    return with_attempt(f"jobs/{job}/inputs/{number:06d}.instances.png", sha256)


def job_inputs_prefix(job: str) -> str:
    return f"jobs/{job}/inputs/"


def job_chunks_prefix(job: str) -> str:
    return f"jobs/{job}/chunks/"


def job_chunk(job: str, chunk: int) -> str:
    return f"jobs/{job}/chunks/{chunk:06d}.json"


def job_repaired_chunk(job: str, chunk: int, number: int) -> str:
    """Record ``number`` (1, 2, ...) that was put in the place of the chunk's record, in a repair or because that
    could not be read."""
    return f"jobs/{job}/chunks/{chunk:06d}.r{number:04d}.json"


def job_manifest(job: str, sha256: str | None) -> str:
    key = f"jobs/{job}/manifest.jsonl"
    return key if sha256 is None else with_attempt(key, sha256)


def job_manifests_prefix(job: str) -> str:
    return f"jobs/{job}/manifest."


def job_summary(job: str) -> str:
    return f"jobs/{job}/summary.json"


def job_retry(job: str) -> str:
    """The record of the job that retries this one."""
    return f"jobs/{job}/retry.json"


def job_swept(job: str) -> str:
    """The mark that the ended job was searched for objects that no record counts."""
    return f"jobs/{job}/swept.json"


def job_repairs_prefix(job: str) -> str:
    return f"jobs/{job}/repairs/"


def job_repair(job: str, number: int) -> str:
    """What repair ``number`` (1, 2, ...) of the job found and did."""
    return f"jobs/{job}/repairs/{number:04d}.json"


def pending_repairs_prefix() -> str:
    return "repairing/"


def pending_repair(job: str) -> str:
    """The entry of a job whose repair was requested and is not done."""
    return f"repairing/{job}.json"


def job_callbacks_prefix(job: str) -> str:
    return f"jobs/{job}/callbacks/"


def job_callback(job: str, attempt: int) -> str:
    """The record of attempt ``attempt`` (1, 2, ...) at the job's webhook."""
    return f"jobs/{job}/callbacks/{attempt:04d}.json"


def pending_callbacks_prefix() -> str:
    return "callbacks/pending/"


def pending_callback(subject: str) -> str:
    """The entry of a job or a run whose webhook is due, or soon will be."""
    return f"callbacks/pending/{subject}.json"


def deletions_prefix() -> str:
    return "deleting/"


def deletion(job: str) -> str:
    """The entry of a deleted job: once it exists, the job no longer does."""
    return f"deleting/{job}.json"


def models_prefix() -> str:
    return "models/"


def model_prefix(name: str, version: str) -> str:
    return f"models/{name}/{version}/"


def model_card(name: str, version: str) -> str:
    return f"models/{name}/{version}/card.json"


def model_file(name: str, version: str, file: str) -> str:
    return f"models/{name}/{version}/{file}"


def shape_choices_prefix(model: str) -> str:
    """The batch shapes measured for a model, by its key: ``name@version``, or ``owner:name@version``."""
    owner, _, own = model.rpartition(":")
    name, _, version = own.partition("@")
    return f"shapes/{owner}/{name}/{version}/" if owner else f"shapes/{name}/{version}/"


def shape_choice(model: str, machine_sha256: str) -> str:
    """The batch shape measured for a model, by its key, on a machine type."""
    return f"{shape_choices_prefix(model)}{_checked_sha256(machine_sha256)}.json"


def idempotency(tenant: str, sha256: str) -> str:
    """The job of an Idempotency-Key, which is hashed because it may contain any character."""
    return f"idempotency/{tenant}/{_checked_sha256(sha256)}.json"


def upload(tenant: str, sha256: str) -> str:
    """An uploaded file, by the sha256 of its bytes."""
    return f"uploads/{tenant}/{_checked_sha256(sha256)}.png"


def uploads_prefix(tenant: str) -> str:
    return f"uploads/{tenant}/"


def api_keys_prefix() -> str:
    return "keys/"


def api_key(key_id: str) -> str:
    """The record of an API key: its tenant, and the hash of its secret."""
    return f"keys/{key_id}.json"


def tenants_prefix() -> str:
    return "tenants/"


def tenant_jobs_prefix(tenant: str) -> str:
    return f"tenants/{tenant}/jobs/"


def tenant_job(tenant: str, job: str) -> str:
    """The entry in the list of the tenant's jobs; an empty object, only its key counts."""
    return f"tenants/{tenant}/jobs/{job}"


def tenant_open_prefix(tenant: str) -> str:
    return f"tenants/{tenant}/open/"


def tenant_open_job(tenant: str, job: str, samples: int) -> str:
    """The entry of a job that has not ended, with its number of samples in the key, so that a listing gives the sum."""
    return f"tenants/{tenant}/open/{job}.{samples}"


def tenant_stored_prefix(tenant: str) -> str:
    return f"tenants/{tenant}/stored/"


def tenant_stored_job(tenant: str, job: str, size: int) -> str:
    """The entry of a job that has ended, with the bytes of its files in the key."""
    return f"tenants/{tenant}/stored/{job}.{size}"


def _checked_sha256(sha256: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ValueError(f"{sha256!r} is not a sha256 in hex")
    return sha256
