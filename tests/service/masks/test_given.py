"""The members ``mask`` and ``instances``: their forms, what is told of wrong ones, and ids in the place of files."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from service.errors import InvalidRequest
from service.jobs.request import EXAMPLE_MASK_PNG, EXAMPLE_UPLOAD
from service.kit.validation import Faults
from service.masks.given import GivenFile, GivenPair, parse_masks, with_references

PNG = base64.b64decode(EXAMPLE_MASK_PNG)
OTHER = "ab" * 32


def faults_of(value: Any, max_masks: int = 5) -> list[tuple[str, str]]:
    faults = Faults()
    parse_masks(value, None, max_masks=max_masks, faults=faults)
    with pytest.raises(InvalidRequest) as raised:
        faults.raise_if_any()
    return [(fault["pointer"], fault["detail"]) for fault in raised.value.extra["errors"]]


def test_one_mask_and_a_list_of_masks_are_told_apart_by_their_pointers() -> None:
    faults = Faults()
    assert parse_masks({"png": EXAMPLE_MASK_PNG}, None, max_masks=5, faults=faults) == [
        GivenPair(GivenFile("mask", "/mask", EXAMPLE_UPLOAD, PNG))
    ]
    assert parse_masks([{"upload": OTHER}, {"png": EXAMPLE_MASK_PNG}], None, max_masks=2, faults=faults) == [
        GivenPair(GivenFile("mask[0]", "/mask/0", OTHER)),
        GivenPair(GivenFile("mask[1]", "/mask/1", EXAMPLE_UPLOAD, PNG)),
    ]
    faults.raise_if_any()
    assert hashlib.sha256(PNG).hexdigest() == EXAMPLE_UPLOAD


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("x", ['mask is "x"; give {"png": "<base64>"} or {"upload": "<id from POST /uploads>"}, or a list of these']),
        (7, ["mask is 7"]),
        ({}, ["mask is {}"]),
        ({"png": "", "upload": OTHER}, ["mask is {", "give"]),
        ({"image": "x"}, ['{"image": "x"}']),
        ({"png": 7}, ["png 7"]),
        ({"png": None}, ["png null"]),
        ({"upload": None}, ["upload null, which is not an id"]),
        ({"upload": "../../etc"}, ["not an id; POST /uploads gives one"]),
        ({"upload": OTHER.upper()}, ["not an id"]),
        ({"png": "iVBO*w0K"}, ['not base64: "*" at character 4', "one line"]),
        ({"png": "iVBO\niVBO"}, ['"\\n" at character 4']),
        ({"png": "iVBO-_"}, ['"-" at character 4', "alphabet with + and /"]),
        ({"png": "iVBOx"}, ["not base64", "with its padding"]),
        ({"png": "data:image/png;base64," + EXAMPLE_MASK_PNG}, ["begins with 'data:'; send the base64 alone"]),
        ([], ["mask is []: the list is empty; give 1 to 5 masks"]),
        ([{"upload": OTHER}] * 6, ["mask lists 6 masks; a job takes 1 to 5; send several jobs"]),
    ],
)
def test_what_is_no_mask_member_is_told_with_the_form_it_should_have(value: Any, words: list[str]) -> None:
    [(pointer, detail)] = faults_of(value)
    assert pointer == "/mask"
    for word in words:
        assert word in detail


def test_every_wrong_entry_of_a_list_is_told() -> None:
    found = faults_of([{"upload": OTHER}, "x", {"png": "?"}, {"png": EXAMPLE_MASK_PNG}, []])
    assert [pointer for pointer, _ in found] == ["/mask/1", "/mask/2", "/mask/4"]
    assert found[0][1].startswith('mask[1] is "x"; give')


def test_files_are_named_instead_of_carried_and_nothing_else_is_changed() -> None:
    body = {"model": "m", "count": 2, "mask": [{"png": EXAMPLE_MASK_PNG}, {"upload": OTHER}, {"png": "?"}, 7]}
    named = with_references(body, max_masks=10)
    assert named == {**body, "mask": [{"upload": EXAMPLE_UPLOAD}, {"upload": OTHER}, {"png": "?"}, 7]}
    assert with_references(named, max_masks=10) == named
    assert with_references({"mask": {"png": EXAMPLE_MASK_PNG}}, max_masks=10) == {"mask": {"upload": EXAMPLE_UPLOAD}}
    assert with_references({"model": "m"}, max_masks=10) == {"model": "m"}


def test_each_mask_has_its_instance_map_or_none() -> None:
    faults = Faults()
    masks, maps = [{"upload": OTHER}, {"upload": OTHER}], [None, {"png": EXAMPLE_MASK_PNG}]
    assert parse_masks(masks, maps, max_masks=2, faults=faults) == [
        GivenPair(GivenFile("mask[0]", "/mask/0", OTHER)),
        GivenPair(
            GivenFile("mask[1]", "/mask/1", OTHER), GivenFile("instances[1]", "/instances/1", EXAMPLE_UPLOAD, PNG)
        ),
    ]
    one = parse_masks({"upload": OTHER}, {"upload": OTHER}, max_masks=2, faults=faults)
    assert one == [GivenPair(GivenFile("mask", "/mask", OTHER), GivenFile("instances", "/instances", OTHER))]
    faults.raise_if_any()


@pytest.mark.parametrize(
    ("mask", "instances", "pointer", "words"),
    [
        ([1, 2], [1], "/instances", "mask is a list of 2 and instances a list of 1; give a list with one entry for"),
        ({"upload": OTHER}, [None], "/instances", "mask is no list and instances a list of 1; give one map"),
        ([{"upload": OTHER}], {"upload": OTHER}, "/instances", "mask is a list of 1 and instances no list"),
        ([{"upload": OTHER}], [7], "/instances/0", "instances[0] is 7; give"),
    ],
)
def test_maps_that_do_not_go_with_the_masks_are_refused(mask: Any, instances: Any, pointer: str, words: str) -> None:
    faults = Faults()
    parse_masks(mask, instances, max_masks=5, faults=faults)
    assert [fault["detail"].startswith(words) for fault in faults.found if fault["pointer"] == pointer] == [True]


def test_files_of_instances_are_replaced_by_their_ids_too() -> None:
    body = {"mask": [{"png": EXAMPLE_MASK_PNG}], "instances": [{"png": EXAMPLE_MASK_PNG}], "count": 3}
    stands_for = {"upload": EXAMPLE_UPLOAD}
    assert with_references(body, max_masks=2) == {"mask": [stands_for], "instances": [stands_for], "count": 3}
    assert with_references({"instances": {"png": EXAMPLE_MASK_PNG}}, max_masks=2) == {"instances": stands_for}
    assert with_references({"instances": [None]}, max_masks=2) == {"instances": [None]}
