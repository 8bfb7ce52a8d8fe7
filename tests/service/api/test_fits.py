"""POST /generate with rectangles: what each fit makes of masks and sizes, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from model_store.masks.resize import majority_resize
from service.api.app import create_app
from service.jobs.repository import JobRepository
from service.store import ObjectStore
from tests.service.api.support import DictLiveState, NotingQueue, card, mask_card, register, settings_for
from tests.service.api.test_masks import make, sent, stored, upload
from tests.service.masks.support import pillow_file, stripes

WIDE = stripes(side=256)[:160, :200].copy()
TALL = stripes(side=128)[:, :96].copy()


@pytest.fixture(autouse=True)
def models(store: ObjectStore) -> None:
    register(store, card(), mask_card())


@pytest.fixture
def small(tmp_path: Path, store: ObjectStore) -> Iterator[TestClient]:
    """A service whose twins have 30,000 pixels at most."""
    settings = settings_for(tmp_path, max_canvas_px=30_000)
    app = create_app(settings, store=store, queue=NotingQueue(), live_state=DictLiveState())
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def pixels(repository: JobRepository, job: str, number: int = 0) -> np.ndarray:
    return np.asarray(stored(repository, job, number))


@pytest.mark.parametrize("fit", ["canvas", "stretch"])
def test_masks_of_any_size_are_stored_as_they_are_and_each_twin_is_as_large_as_its_mask(
    client: TestClient, repository: JobRepository, fit: str
) -> None:
    job = make(client, mask=[sent(pillow_file(WIDE)), upload(client, pillow_file(TALL))], fit=fit)
    assert (job["total"], job["parameters"]["size"], job["parameters"]["fit"]) == (2, None, fit)
    windows = {"window_px": 64, "overlap_px": 32, "weights": "smooth"}
    assert job["parameters"]["canvas"] == (windows if fit == "canvas" else None)
    assert np.array_equal(pixels(repository, job["id"], 0), WIDE)
    assert np.array_equal(pixels(repository, job["id"], 1), TALL)
    spec = repository.read_spec(job["id"])
    assert [spec.sides(index) for index in range(3)] == [(200, 160), (96, 128), (200, 160)]
    assert spec.format == 4, "older workers leave it to newer ones"
    again = {name: value for name, value in job["parameters"].items() if value is not None}
    assert make(client, **again)["parameters"] == job["parameters"]


def test_a_size_given_with_masks_is_theirs_by_majority(client: TestClient, repository: JobRepository) -> None:
    job = make(client, mask=[sent(pillow_file(WIDE)), sent(pillow_file(TALL))], fit="canvas", size="150x90")
    assert job["parameters"]["size"] == "150x90"
    for number, mask in enumerate((WIDE, TALL)):
        assert np.array_equal(pixels(repository, job["id"], number), majority_resize(mask, (150, 90)))
    assert repository.read_spec(job["id"]).sides(1) == (150, 90)


def test_crop_takes_the_centre_square_of_a_mask(client: TestClient, repository: JobRepository) -> None:
    job = make(client, mask=sent(pillow_file(WIDE)), fit="crop", size=64)
    assert np.array_equal(pixels(repository, job["id"]), majority_resize(WIDE[:, 20:180], 64))
    spec = repository.read_spec(job["id"])
    assert (spec.size, spec.canvas, spec.format) == (64, None, 3), "a worker sees squares of its own size"


def test_a_canvas_of_classes_has_its_windows_recorded(client: TestClient, repository: JobRepository) -> None:
    windows = {"window_px": 128, "overlap_px": 32, "weights": "uniform"}
    body = {"model": "aerial", "classes": ["water"], "count": 2, "fit": "canvas"}
    job = make(client, **body, size="854x480", canvas=windows)
    assert (job["parameters"]["size"], job["parameters"]["canvas"]) == ("854x480", windows)
    assert repository.read_spec(job["id"]).request["canvas"] == windows
    assert make(client, **body, size="512x512")["parameters"]["size"] == 512


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a rectangle without fit": (
        {"mask": sent(pillow_file(WIDE))},
        "/mask",
        "mask is 200 x 160 px, and masks are square; crop or pad it to 160 or 200 px, or give fit: stretch, crop "
        "(its centre square) or canvas (an image as large as the mask)",
    ),
    "a rectangular size without fit": (
        {"prompt": "cells", "count": 1, "size": "200x160"},
        "/size",
        'size is "200x160": it is no square, and without fit twins are; take one of 64, 128 px, or fit stretch (drawn '
        "as a square) or canvas (drawn as large as it is, by windows)",
    ),
    "a size in words": (
        {"prompt": "cells", "count": 1, "size": "large", "fit": "canvas"},
        "/size",
        'size is "large": give the side of a square in pixels, or WIDTHxHEIGHT as 854x480',
    ),
    "a size that is neither a number nor words": (
        {"prompt": "cells", "count": 1, "size": [200, 160], "fit": "canvas"},
        "/size",
        "size is [200, 160]: give the side of a square in pixels, or WIDTHxHEIGHT as 854x480",
    ),
    "no size at all": (
        {"prompt": "cells", "count": 1, "fit": "stretch"},
        "/size",
        "fit is stretch, and nothing says how large; give size, as 854x480",
    ),
    "crop without a mask": (
        {"prompt": "cells", "count": 1, "fit": "crop"},
        "/fit",
        'fit is "crop": it cuts the centre square out of masks, and none is given; leave fit out',
    ),
    "crop to a rectangle": (
        {"mask": sent(pillow_file(WIDE)), "fit": "crop", "size": "200x160"},
        "/size",
        'size is "200x160": fit crop gives squares; take one of 64, 128 px',
    ),
    "a canvas below its window": (
        {"mask": sent(pillow_file(WIDE[:40])), "fit": "canvas"},
        "/mask",
        "mask is 200 x 40 px, and a canvas is at least its window of 64 x 64; give fit stretch",
    ),
    "a canvas above the limit": (
        {"mask": sent(pillow_file(WIDE)), "fit": "canvas"},
        "/mask",
        "mask is 200 x 160 px, 32000 pixels, and a twin has at most 30000; cut it into several, or ask the operator of "
        "this service to raise TWINSET_MAX_CANVAS_PX",
    ),
    "a size above the limit": (
        {"prompt": "cells", "count": 1, "fit": "stretch", "size": "301x100"},
        "/size",
        "size is 301 x 100 px, 30100 pixels, and a twin has at most 30000",
    ),
    "windows of another size": (
        {"mask": sent(pillow_file(TALL)), "fit": "canvas", "canvas": {"window_px": 96}},
        "/canvas/window_px",
        "canvas.window_px is 96; tissue@1.0.0 makes 64, 128 px, take one",
    ),
    "too much overlap": (
        {"mask": sent(pillow_file(TALL)), "fit": "canvas", "canvas": {"overlap_px": 49}},
        "/canvas/overlap_px",
        "canvas.overlap_px is 49; windows of 64 px overlap by 0 to 48 px, and by 32 if it is left out",
    ),
    "windows without a canvas": (
        {"prompt": "cells", "count": 1, "canvas": {"overlap_px": 8}},
        "/canvas",
        "canvas is about windows, and fit is left out; give fit canvas",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_fits_nothing_is_refused_with_value_limit_and_remedy(small: TestClient, case: str) -> None:
    body, pointer, words = REFUSED[case]
    answer = small.post("/generate", json={"model": "tissue", **body})
    assert answer.status_code == 422, answer.json()
    [fault] = answer.json()["errors"]
    assert fault["pointer"] == pointer
    assert words in fault["detail"]


def trained(name: str, kind: str, **about: Any) -> dict[str, Any]:
    """A card of 64 and 128 px that says how the images of its training were fitted."""
    return mask_card(name, training={"fit": {"kind": kind, "size_px": 64, **about}})


FROM_THE_CARD: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[int | str | None, str | None]]] = {
    "crop, a rectangle": (trained("a", "crop"), {"mask": WIDE}, (64, "crop")),
    "crop, a prompt": (trained("a", "crop"), {"prompt": "cells"}, (64, None)),
    "stretch, a rectangle": (trained("a", "stretch"), {"mask": WIDE}, (None, "stretch")),
    "stretch, a prompt": (
        trained("a", "stretch", native_sizes_px={"300x200": 1, "854x480": 5}),
        {"prompt": "cells"},
        ("854x480", "stretch"),
    ),
    "stretch, a native size over the limit": (
        trained("a", "stretch", native_sizes_px={"9000x9000": 5}),
        {"prompt": "cells"},
        (64, None),
    ),
    "stretch, the model's square": (
        trained("a", "stretch", native_sizes_px={"854x480": 5}),
        {"prompt": "cells", "size": 128},
        (128, None),
    ),
    "tiles at the masks' scale": (trained("a", "tiles", tile_px=128), {"mask": WIDE}, (None, "canvas")),
    "tiles at the masks' scale, a size": (
        trained("a", "tiles", tile_px=128),
        {"prompt": "cells", "size": "300x200"},
        ("300x200", "canvas"),
    ),
    "tiles at another scale": (trained("a", "tiles", tile_px=96), {"mask": TALL[:96]}, (64, None)),
    "fit of the request": (trained("a", "tiles", tile_px=128), {"mask": WIDE, "fit": "stretch"}, (None, "stretch")),
    "a card of another form": (
        mask_card("a", training={"fit": [{"kind": "tiles", "tile_px": 0}]}),
        {"prompt": "cells"},
        (64, None),
    ),
    "a card that does not say": (mask_card("a"), {"prompt": "cells"}, (64, None)),
}


@pytest.mark.parametrize("case", FROM_THE_CARD)
def test_without_fit_a_request_has_that_of_the_models_training(
    client: TestClient, store: ObjectStore, case: str
) -> None:
    about, body, (size, fit) = FROM_THE_CARD[case]
    register(store, about)
    mask = {"mask": sent(pillow_file(body["mask"]))} if "mask" in body else {}
    job = make(client, **{**body, **mask, "model": "a", "count": 1})
    parameters = job["parameters"]
    assert (parameters["size"], parameters["fit"]) == (size, fit)
    if fit == "canvas":
        assert parameters["canvas"]["window_px"] == 128, "a window shows as much as a tile did"
    again = {name: value for name, value in parameters.items() if value is not None}
    assert make(client, **again)["parameters"] == parameters
