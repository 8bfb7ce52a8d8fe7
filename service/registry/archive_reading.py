"""The tar of a model as it comes in: read piece by piece, its files written to disk, and nothing trusted.

It may hold ``card.json``, the ``*.safetensors`` that the card names and ``SHA256SUMS``, as plain files without folders.
The format is read here, not by :mod:`tarfile`: that follows headers of any length in memory, and knows links, sparse
files and devices, none of which a model has.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from model_store.card import CardInvalid, ModelCard, parse_card
from service.errors import InvalidModel
from service.kit.tar import BLOCK_BYTES
from service.kit.validation import truncated_repr
from service.registry.archive_writing import CARD, SUMS
from service.registry.safetensors_header import check_safetensors
from service.store.base import MAX_OBJECT_BYTES

MAX_MEMBERS = 64
MAX_CARD_BYTES = 4 << 20
MAX_TEXT_BYTES = 64 << 10
_WEIGHTS = re.compile(r"[a-z0-9][a-z0-9._-]{0,100}\.safetensors")
_PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".h5", ".msgpack", ".onnx")
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"PK\x03\x04", b"\x28\xb5\x2f\xfd")
_HARMLESS = re.compile(r"(a|c|m)time|uid|gid|uname|gname|comment|LIBARCHIVE\..*|SCHILY\..*")
_SUMS_LINE = re.compile(r"([0-9a-f]{64}) [ *](?:\./)?([^/\\]{1,120})")
_HOLDS = f"a model's archive holds {CARD} and its *.safetensors, and may hold {SUMS}"


def refusal(file: str, detail: str) -> InvalidModel:
    """The error for a file of the archive, or for all of it if ``file`` is empty."""
    text = f"{truncated_repr(file)} {detail}" if file else f"the archive {detail}"
    return InvalidModel(text, errors=[{"file": file[:200], "detail": text}])


@dataclass(frozen=True)
class ReceivedModel:
    """A model whose files are those of its card, on this disk."""

    card: ModelCard
    files: dict[str, Path]


@dataclass
class _Member:
    name: str
    size: int
    left: int
    out: IO[bytes] | None = None
    text: bytearray | None = None
    digest: Any = None


class ArchiveReader:
    """Takes an archive's bytes in pieces of any size, and writes its files into ``folder``.

    Every method raises :class:`InvalidModel`, which says what is wrong with the archive.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        """``max_bytes``: of all files together."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._block = bytearray()
        self._member: _Member | None = None
        self._skip = 0
        self._ended = False
        self._members = 0
        self._bytes = 0
        self._texts: dict[str, bytes] = {}
        self._hashes: dict[str, str] = {}
        self._sizes: dict[str, int] = {}

    def feed(self, data: bytes) -> None:
        """Takes the next bytes."""
        view = memoryview(data)
        while view:
            if self._skip:
                taken = min(self._skip, len(view))
                self._skip -= taken
            elif self._member is not None:
                taken = min(self._member.left, len(view))
                self._take(self._member, view[:taken])
            else:
                taken = min(BLOCK_BYTES - len(self._block), len(view))
                self._block += view[:taken]
                if len(self._block) == BLOCK_BYTES:
                    block, self._block = bytes(self._block), bytearray()
                    self._read_header(block)
            view = view[taken:]

    def close(self) -> None:
        """Closes the file that was being written."""
        if self._member is not None and self._member.out is not None:
            self._member.out.close()

    def finish(self) -> ReceivedModel:
        """The model, once all bytes are there and every file is what the card says."""
        if self._member is not None or self._skip or self._block or not (self._ended or self._members):
            what = f"ends in the middle of {self._member.name}" if self._member else "is empty or cut off"
            raise refusal("", f"{what}; send it whole")
        if CARD not in self._texts:
            raise refusal("", f"has no {CARD}; {_HOLDS}")
        try:
            card = parse_card(self._texts[CARD], where=CARD)
        except CardInvalid as error:
            raise InvalidModel(str(error), errors=[{"file": CARD, "detail": str(error)}]) from None
        except RecursionError:
            raise refusal(CARD, "is nested too deeply to be a model card") from None
        faults = [*self._differences(card), *self._wrong_sums()]
        if not faults:
            faults = self._wrong_weights(card)
        if faults:
            errors = [{"file": file, "detail": f"{file} {detail}"} for file, detail in faults]
            raise InvalidModel("; ".join(error["detail"] for error in errors[:10]), errors=errors)
        return ReceivedModel(card, {name: self._folder / name for name in card.files})

    def _differences(self, card: ModelCard) -> list[tuple[str, str]]:
        """What of the card's files is missing or wrong, and what the card does not name."""
        faults = []
        if not card.files:
            faults.append((CARD, "names no files; a model has at least one *.safetensors under 'files'"))
        for name, file in card.files.items():
            found = self._hashes.get(name)
            if found is None:
                faults.append((name, "is named by the card, but missing; a hash alone does not stand for the file"))
            elif self._sizes[name] != file.bytes:
                faults.append((name, f"has {self._sizes[name]} bytes, but the card says {file.bytes}"))
            elif found != file.sha256:
                faults.append((name, f"has sha256 {found}, but the card says {file.sha256}; export the model again"))
        unknown = sorted(self._hashes.keys() - card.files.keys())
        return faults + [(name, "is not named by the card; leave it out") for name in unknown]

    def _wrong_sums(self) -> list[tuple[str, str]]:
        """The lines of SHA256SUMS that are not true."""
        found = {**self._hashes, CARD: hashlib.sha256(self._texts[CARD]).hexdigest()}
        faults = []
        for line in self._texts.get(SUMS, b"").decode("utf-8", "replace").splitlines():
            match = _SUMS_LINE.fullmatch(line)
            if match is None:
                faults.append((SUMS, f"has the line {truncated_repr(line)}, which is not 'sha256  file'"))
            elif found.get(match[2]) != match[1]:
                faults.append((match[2], f"has another sha256 than {SUMS} says, or is missing"))
        return faults[:MAX_MEMBERS]

    def _wrong_weights(self, card: ModelCard) -> list[tuple[str, str]]:
        faults = []
        for name in card.files:
            try:
                check_safetensors(self._folder / name)
            except ValueError as error:
                faults.append((name, f"is not usable as weights: {error}"))
        return faults

    def _read_header(self, block: bytes) -> None:
        if not block.strip(b"\0"):
            self._ended = True
            return
        if self._ended:
            raise refusal("", "goes on after its end; send one tar")
        if not self._members and block.startswith(_COMPRESSED):
            raise refusal("", "is compressed; send a plain tar, since weights hardly get smaller")
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise refusal("", f"has more than {MAX_MEMBERS} entries; {_HOLDS}")
        if _number(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * ord(" "):
            raise refusal("", f"has a damaged header at entry {self._members}, or is no tar")
        name, size = _name(block), _number(block[124:136])
        self._begin(name, size, block[156:157])

    def _begin(self, name: str, size: int | None, kind: bytes) -> None:
        """Begins a member. Whatever is not a plain file of a model is refused."""
        if size is None:
            raise refusal(name, "has no valid size")
        if kind in (b"x", b"g"):
            self._check_size("an extended header", size, MAX_TEXT_BYTES)
            self._member = _Member("", size, size, text=bytearray())
        elif kind == b"5" and name.rstrip("/") in ("", "."):
            self._skip = size + -size % BLOCK_BYTES
        elif kind in (b"0", b"\0"):
            self._begin_file(name.removeprefix("./"), size)
        else:
            what = {b"1": "a link", b"2": "a link", b"5": "a folder"}.get(kind, "no plain file")
            raise refusal(name, f"is {what}; {_HOLDS}, as plain files")
        if self._member is not None and not self._member.left:
            self._end_member(self._member)

    def _begin_file(self, name: str, size: int) -> None:
        _check_name(name)
        if name in self._texts or name in self._hashes:
            raise refusal(name, "comes twice")
        if name in (CARD, SUMS):
            self._check_size(name, size, MAX_CARD_BYTES if name == CARD else MAX_TEXT_BYTES)
            self._member = _Member(name, size, size, text=bytearray())
            return
        self._check_size(name, size, MAX_OBJECT_BYTES)
        self._bytes += size
        self._check_size("the model", self._bytes, self._max_bytes, "TWINSET_MAX_MODEL_BYTES")
        out = open(self._folder / name, "xb")  # noqa: SIM115, closed once all of the member has come
        self._member = _Member(name, size, size, out=out, digest=hashlib.sha256())

    def _check_size(self, what: str, size: int, limit: int, setting: str = "") -> None:
        if size > limit:
            by = f" ({setting})" if setting else ""
            raise refusal("", f"has {what} of {size} bytes; at most {limit} are allowed{by}")

    def _take(self, member: _Member, data: memoryview) -> None:
        if member.text is not None:
            member.text += data
        else:
            assert member.out is not None
            member.out.write(data)
            member.digest.update(data)
        member.left -= len(data)
        if not member.left:
            self._end_member(member)

    def _end_member(self, member: _Member) -> None:
        self._member, self._skip = None, -member.size % BLOCK_BYTES
        if member.out is not None:
            member.out.close()
            self._hashes[member.name], self._sizes[member.name] = member.digest.hexdigest(), member.size
        elif member.name:
            self._texts[member.name] = bytes(member.text or b"")
        else:
            _check_extended(bytes(member.text or b""))


def _check_name(name: str) -> None:
    if name in (CARD, SUMS) or _WEIGHTS.fullmatch(name):
        return
    if name.startswith("/") or ".." in name.split("/") or "\\" in name:
        raise refusal(name, f"leads out of the archive; {_HOLDS}, without folders")
    if name.lower().endswith(_PICKLES):
        raise refusal(name, "is not safetensors; pickles may run code when they are read, so convert the weights")
    raise refusal(name, f"is not a file of a model; {_HOLDS}, without folders")


def _name(block: bytes) -> str:
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "replace")


def _number(field: bytes) -> int | None:
    """An octal number of a header; None for anything else."""
    text = field.strip(b"\0 ")
    return int(text, 8) if re.fullmatch(rb"[0-7]{1,12}", text) else None


def _check_extended(text: bytes) -> None:
    """Refuses a pax header that gives the next file another name, size or kind; times and owners do no harm."""
    at = 0
    while at < len(text):
        length = text[at:].partition(b" ")[0]
        if not re.fullmatch(rb"[1-9][0-9]{0,6}", length):
            raise refusal("", "has a damaged extended header")
        record = text[at + len(length) + 1 : at + int(length)]
        keyword = record.partition(b"=")[0].decode("utf-8", "replace")
        if not record.endswith(b"\n") or not _HARMLESS.fullmatch(keyword):
            raise refusal("", f"has an extended header with {truncated_repr(keyword)}; make it as plain ustar")
        at += int(length)
