"""Image files from outside: only allowed decoders open them, in every part of the project."""

from __future__ import annotations

import ast
import io
import os
from pathlib import Path

import pytest
from PIL import Image

from service.kit.image_files import ALLOWED_FORMATS, UNREADABLE, open_image_file

ROOT = Path(__file__).resolve().parents[3]
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n(x) pop\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("format", ALLOWED_FORMATS)
def test_an_allowed_format_is_read(format: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (5, 7), (200, 10, 10)).save(out, format)
    with open_image_file(out.getvalue()) as image:
        assert image.size == (5, 7)


def test_postscript_called_png_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gs", "gswin64c", "gswin32c"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "a.png").write_bytes(POSTSCRIPT)
    with pytest.raises(UNREADABLE), open_image_file(tmp_path / "a.png") as image:
        image.load()
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("format", ["EPS", "PPM", "ICO", "TGA", "PCX", "SGI", "JPEG2000", "PDF"])
def test_another_format_is_refused(format: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, format)
    with pytest.raises(UNREADABLE):
        open_image_file(out.getvalue())


def test_the_number_of_pixels_is_checked_before_they_are_decoded() -> None:
    out = io.BytesIO()
    Image.new("1", (300, 300)).save(out, "PNG")
    with pytest.raises(Image.DecompressionBombError, match="300 x 300 pixels; the limit is 89999"):
        open_image_file(out.getvalue(), max_pixels=89_999)
    assert open_image_file(out.getvalue(), max_pixels=90_000).size == (300, 300)


def test_no_other_part_of_the_project_opens_images() -> None:
    found = []
    for package in ("service", "workers", "model_store"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and node.attr == "open" and getattr(node.value, "id", "") == "Image":
                    found.append(path.relative_to(ROOT).as_posix())
    assert found == ["service/kit/image_files.py"]
