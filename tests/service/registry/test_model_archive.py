"""Archives of models: the same bytes out and in, and refusals of all that is no model, whatever the tar says."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.errors import InvalidModel
from service.registry.archive_reading import ArchiveReader, ReceivedModel
from service.registry.archive_writing import folder_archive
from service.registry.safetensors_header import check_safetensors
from tests.service.registry.small_models import card_of, safetensors, write_model

WEIGHTS = safetensors(b"abcd")
CARD = card_of("polyps", "1.0.0", WEIGHTS).model_dump_json().encode()


def read(archive: bytes, folder: Path, *, piece: int = 1 << 20, max_bytes: int = 1 << 20) -> ReceivedModel:
    folder.mkdir(exist_ok=True, parents=True)
    reader = ArchiveReader(folder, max_bytes=max_bytes)
    try:
        for at in range(0, len(archive), piece):
            reader.feed(archive[at : at + piece])
        return reader.finish()
    finally:
        reader.close()


def packed(*files: tuple[str, bytes], form: int = tarfile.USTAR_FORMAT, **changes: Any) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for attribute, value in changes.items():
                setattr(info, attribute, value)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def good(**changes: Any) -> bytes:
    return packed(("card.json", CARD), ("model.safetensors", WEIGHTS), **changes)


@pytest.mark.parametrize("piece", [1, 7, 512, 1 << 20])
def test_an_archive_is_the_model_again_however_it_is_divided(tmp_path: Path, piece: int) -> None:
    card = write_model(tmp_path / "model", data=bytes(range(256)) * 3)
    archive = folder_archive(card, tmp_path / "model")
    data = b"".join(archive.pieces())
    assert len(data) == archive.size
    received = read(data, tmp_path / "in", piece=piece)
    assert received.card == card
    assert received.files["model.safetensors"].read_bytes() == safetensors(bytes(range(256)) * 3)
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        assert opened.getnames() == ["card.json", "SHA256SUMS", "model.safetensors"]
        sums = opened.extractfile("SHA256SUMS")
        assert sums is not None
        assert sums.read().decode().splitlines()[1] == f"{card.files['model.safetensors'].sha256}  model.safetensors"


@pytest.mark.parametrize(
    "archive",
    [
        good(),
        good(form=tarfile.GNU_FORMAT),
        good(form=tarfile.PAX_FORMAT, mtime=1.5),
        packed(("./model.safetensors", WEIGHTS), ("./card.json", CARD)),
    ],
)
def test_archives_of_other_programs_are_read(archive: bytes, tmp_path: Path) -> None:
    assert read(archive, tmp_path).card.id == "polyps@1.0.0"


class _Runs:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return (print, ("run",))


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Runs()))
    return out.getvalue()


def _with_weights(data: bytes, name: str = "model.safetensors") -> bytes:
    return packed(("card.json", card_of("polyps", "1.0.0", data).model_dump_json().encode()), (name, data))


def _header(text: bytes, rest: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text + rest


def _tensors(**tensors: Any) -> bytes:
    return json.dumps(tensors).encode()


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HOSTILE: dict[str, tuple[bytes, str]] = {
    "up": (packed(("card.json", CARD), ("../model.safetensors", WEIGHTS)), "leads out of the archive"),
    "deep up": (packed(("a/../../model.safetensors", WEIGHTS)), "leads out of the archive"),
    "absolute": (packed(("/etc/model.safetensors", WEIGHTS)), "leads out of the archive"),
    "folder": (packed(("sub/model.safetensors", WEIGHTS)), "is not a file of a model"),
    "symbolic link": (good(type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link"),
    "hard link": (good(type=tarfile.LNKTYPE, linkname="card.json"), "is a link"),
    "device": (good(type=tarfile.CHRTYPE), "is no plain file"),
    "sparse": (good(type=tarfile.GNUTYPE_SPARSE), "is no plain file"),
    "long name": (packed(("x" * 300 + ".safetensors", b""), form=tarfile.GNU_FORMAT), "is no plain file"),
    "renaming header": (
        packed(("card.json", CARD), form=tarfile.PAX_FORMAT, pax_headers={"path": "../card.json"}),
        'extended header with "path"',
    ),
    "resizing header": (
        packed(("card.json", CARD), form=tarfile.PAX_FORMAT, pax_headers={"GNU.sparse.size": "99"}),
        'extended header with "GNU.sparse.size"',
    ),
    "torch file": (packed(("card.json", CARD), ("model.pt", _zip())), "pickles may run code"),
    "pickle file": (packed(("weights.pkl", pickle.dumps(_Runs()))), "pickles may run code"),
    "pickle in disguise": (_with_weights(pickle.dumps(_Runs())), "it is a pickle"),
    "torch file in disguise": (_with_weights(_zip()), "it is a pickle"),
    "no weights": (packed(("card.json", CARD)), "is named by the card, but missing; a hash alone does not stand"),
    "no card": (packed(("model.safetensors", WEIGHTS)), "has no card.json"),
    "empty card": (packed(("card.json", b"{}")), "card.json is not a model card: name: Field required"),
    "card that is no JSON": (packed(("card.json", b"\x80")), "card.json is not a model card"),
    "deep card": (packed(("card.json", b"[" * 100_000)), "card.json"),
    "other weights": (
        packed(("card.json", CARD), ("model.safetensors", safetensors(b"abce"))),
        "has sha256 [0-9a-f]{64}, but the card says",
    ),
    "shorter weights": (
        packed(("card.json", CARD), ("model.safetensors", WEIGHTS[:-1])),
        f"has {len(WEIGHTS) - 1} bytes, but the card says {len(WEIGHTS)}",
    ),
    "unnamed weights": (
        packed(("card.json", CARD), ("model.safetensors", WEIGHTS), ("more.safetensors", WEIGHTS)),
        "more.safetensors is not named by the card",
    ),
    "twice": (packed(("card.json", CARD), ("card.json", CARD)), "comes twice"),
    "wrong sums": (
        packed(("card.json", CARD), ("model.safetensors", WEIGHTS), ("SHA256SUMS", b"0" * 64 + b"  card.json\n")),
        "another sha256 than SHA256SUMS says",
    ),
    "other file": (packed(("card.json", CARD), ("README.md", b"hello")), "is not a file of a model"),
    "many entries": (packed(*((f"w{number}.safetensors", b"") for number in range(65))), "more than 64 entries"),
    "large card": (packed(("card.json", bytes(5 << 20))), "has card.json of 5242880 bytes; at most 4194304"),
    "large": (packed(("model.safetensors", bytes(2 << 20))), r"has the model of 2097152 bytes; at most 1048576"),
    "gzip": (b"\x1f\x8b" + bytes(600), "is compressed"),
    "zip": (_zip().ljust(600), "is compressed"),
    "no tar": (b"hello" * 200, "damaged header at entry 1, or is no tar"),
    "empty": (b"", "is empty or cut off"),
    "cut off": (good()[:1300], "ends in the middle of card.json"),
    "two": (good() + good(), "goes on after its end"),
    "no length": (_with_weights(b"abc"), "has 3 bytes, too few"),
    "long header": (
        _with_weights((1 << 40).to_bytes(8, "little") + b"{}"),
        "header would have 1099511627776 bytes",
    ),
    "header of no JSON": (_with_weights(_header(b"{nope}")), "its header is not JSON"),
    "header of no object": (_with_weights(_header(b"[1, 2]")), "its header is not a JSON object"),
    "deep header": (_with_weights(_header(b"[" * 100_000)), "its header is not JSON"),
    "overlap": (
        _with_weights(_header(_tensors(a=F32, b={**F32, "data_offsets": [4, 12]}), bytes(12))),
        "its tensors overlap",
    ),
    "gap": (_with_weights(_header(_tensors(a={**F32, "data_offsets": [4, 12]}), bytes(12))), "its tensors overlap"),
    "more": (_with_weights(_header(_tensors(a=F32), bytes(9))), "its tensors take 8 bytes, but 9 follow"),
    "less": (_with_weights(_header(_tensors(a=F32), bytes(7))), "its tensors take 8 bytes, but 7 follow"),
    "shape": (_with_weights(_header(_tensors(a={**F32, "shape": [3]}), bytes(8))), "its shape and dtype take 12"),
    "dtype": (_with_weights(_header(_tensors(a={**F32, "dtype": "O"}), bytes(8))), "dtype 'O', which is not known"),
    "offsets": (
        _with_weights(_header(_tensors(a={**F32, "data_offsets": [-8, 0]}), bytes(8))),
        "no shape and data_offsets of whole numbers",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_model_is_refused_with_what_is_wrong(name: str, tmp_path: Path) -> None:
    archive, expected = HOSTILE[name]
    (tmp_path / "in").mkdir()
    with pytest.raises(InvalidModel, match=expected) as refused:
        read(archive, tmp_path / "in", piece=1000)
    assert refused.value.extra["errors"]
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert len(refused.value.detail) < 2000


def test_headers_are_read_as_safetensors_reads_them(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    path = tmp_path / "some.safetensors"
    tensors = {
        "a": torch.zeros(3, 4),
        "b": torch.zeros(5, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 2),
        "flags": torch.zeros(7, dtype=torch.bool),
        "long": torch.zeros((), dtype=torch.int64),
    }
    save_file(tensors, path, metadata={"format": "pt"})
    assert check_safetensors(path) == 5
    path.write_bytes(_header(b"{}"))
    assert check_safetensors(path) == 0
