"""Requests to mask models: test masks with and without captions, and captions by label over the same masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.workers.evaluation.discs import (
    Follower,
    disc,
    disc_card,
    write_discs,
)
from workers.data.listings import DatasetInvalid
from workers.data.training_set import TrainingSet
from workers.evaluation.captions import captions_of, read_captions
from workers.evaluation.mask_requests import (
    check_takes_masks,
    given_mask,
    mask_ways,
    requests_by_label,
    requests_by_mask,
    text_way,
    texts_to_show,
)
from workers.evaluation.sampling import SamplingSettings, make_images, sampling_for
from workers.evaluation.text_control import label_accuracy, read_labels


def some_masks(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([disc(rng) for _ in range(count)])


def test_the_card_and_the_captions_say_how_a_model_can_be_asked() -> None:
    pathdiff, siamese = disc_card("pathdiff"), disc_card("siamese-diffusion")
    assert mask_ways(pathdiff, ["a"]) == mask_ways(siamese, ["a"]) == ("mask", "mask+caption")
    assert mask_ways(pathdiff, None) == ("mask",)
    assert (text_way(pathdiff), text_way(siamese)) == ("caption", "mask+caption")
    assert text_way(disc_card(input_sets=(("mask",),))) is None
    with pytest.raises(ValueError, match="takes prompt and no masks"):
        check_takes_masks(disc_card(input_sets=(("prompt",),)))


def test_ways_differ_in_their_text_alone_and_unknown_pixels_are_given_as_background() -> None:
    masks = some_masks(3)
    masks[0, 0, 0] = 255
    plain, spoken = (
        requests_by_mask(masks, "mask", None, seed=1),
        requests_by_mask(masks, "mask+caption", ["a", "b", "c"], seed=1, target="text"),
    )
    assert [request.condition.prompt for request in spoken] == ["a", "b", "c"]
    assert {request.condition.prompt for request in plain} == {None}
    assert [(a.seed, a.condition.mask) for a in plain] == [(b.seed, b.condition.mask) for b in spoken]
    assert len({request.seed for request in plain}) == 3
    assert spoken[0].condition.guidance_target == "text"
    assert given_mask(masks[0]).indices[0, 0] == 0
    with pytest.raises(ValueError, match="leave that way out"):
        requests_by_mask(masks, "mask+caption", None, seed=1)


def test_labels_are_requested_in_rotation_and_the_images_of_a_round_differ_in_their_text_alone() -> None:
    masks, texts = some_masks(4), {"dark": ["d1", "d2"], "red": ["r1"]}
    requests, asked = requests_by_label(texts, masks, count=9, seed=3)
    assert asked.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert sorted(request.condition.prompt for request in requests[:4]) == ["d1", "d2", "r1", "r1"], (
        "every caption before any comes again"
    )
    for first, second in zip(requests[0:8:2], requests[1:8:2], strict=True):
        assert (first.seed, first.condition.mask) == (second.seed, second.condition.mask)
    assert len({request.condition.mask for request in requests[0:8:2]}) == 4, "every mask before any comes again"
    alone, _ = requests_by_label(texts, None, count=4, seed=3)
    assert all(request.condition.mask is None and request.condition.prompt for request in alone)


def test_the_texts_shown_are_the_most_frequent_of_each_label_or_of_all() -> None:
    assert texts_to_show({"dark": ["a", "b", "b"], "red": ["c"]}, []) == ["b", "c"]
    assert texts_to_show({}, ["x", "y", "y", "z", "z", "z"], max_texts=2) == ["z", "y"]


def test_samples_that_guidance_compares_and_those_it_cannot_are_made_apart_and_come_back_in_order() -> None:
    system, masks, reported = Follower(), some_masks(5), []
    with_text = requests_by_mask(masks, "mask+caption", ["A red image", "", "A bright image", "", ""], seed=0)
    requests, seeds = [request.condition for request in with_text], [request.seed for request in with_text]
    settings = SamplingSettings(steps=3, guidance_scale=1.2, eta=0.0)
    made = make_images(system, requests, seeds, settings, on_step=lambda done, total: reported.append((done, total)))
    assert system.rows == [4, 4, 4, 3, 3, 3], "two with two sides, three with one"
    assert reported == [(0, 3), (1, 3), (1, 3), (2, 3), (2, 3), (3, 3)]
    reds = made[:, :, :, 0].mean(axis=(1, 2)) - made[:, :, :, 1].mean(axis=(1, 2))
    assert reds.argmax() == 0
    assert made.mean(axis=(1, 2, 3)).argmax() == 2
    # each is the image of its own request, made alone (the noise that decoding adds goes by the place in a batch)
    alone = make_images(Follower(), requests, seeds, settings, batch_size=1).astype(int)
    assert np.abs(made.astype(int) - alone).mean() < 12


def test_sampling_is_the_cards_but_for_what_is_given_and_a_target_must_be_listed() -> None:
    card = disc_card(guidance_targets=("text", "mask"))
    found = sampling_for(card, steps=None, guidance_scale=2.0, eta=None)
    assert found == SamplingSettings(steps=2, guidance_scale=2.0, eta=0.0, guidance_target="text")
    assert sampling_for(card, steps=3, guidance_scale=None, eta=None, guidance_target="mask").guidance_target == "mask"
    with pytest.raises(ValueError, match="guidance targets: text, mask"):
        sampling_for(card, steps=None, guidance_scale=None, eta=None, guidance_target="joint")


def test_what_is_wrong_with_captions_is_said(discs: TrainingSet, tmp_path: Path) -> None:
    captions = read_captions(discs, "modality")
    assert captions["train00"].label == "dark"
    assert captions["train00"].text.startswith("A dark image")
    assert captions_of(discs, ["nobody"], captions) is None
    with pytest.raises(DatasetInvalid, match="no text for 1 of 2 test images, 'nobody' first"):
        captions_of(discs, ["test00", "nobody"], captions)
    with pytest.raises(DatasetInvalid, match=r"gives 0 labels as 'stain'.*name another member with --label"):
        read_labels(discs, read_captions(discs, "stain"), "stain")
    bare = write_discs(tmp_path / "bare", captions=False)
    assert read_captions(bare) == {}
    path = bare.folder / "captions.jsonl"
    path.write_text(json.dumps({"stem": "test00", "text": "b", "classes": ["disc"]}))
    with pytest.raises(DatasetInvalid, match="a label is text"):
        read_captions(TrainingSet.open(bare.folder), "classes")


def test_labels_of_one_split_alone_are_left_out_and_named(discs: TrainingSet) -> None:
    captions = read_captions(discs, "modality")
    some = {
        stem: caption for stem, caption in captions.items() if not (stem.startswith("test") and caption.label == "red")
    }
    labels = read_labels(discs, some, "modality")
    assert (labels.names, labels.left_out) == (("bright", "dark"), ("red",))
    assert len(labels.train) == 42
    assert len(labels.test) == 12
    assert len(labels.texts["dark"]) == 8


def test_the_confusion_table_by_hand() -> None:
    found = label_accuracy(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), ("a", "b", "c"))
    assert found["accuracy"] == 0.75
    assert found["mean_over_labels"] == pytest.approx((2 / 3 + 1) / 2, abs=1e-4)
    assert found["by_label"]["a"] == {"images": 3, "accuracy": 0.6667, "predicted_as": {"a": 2, "b": 1, "c": 0}}
    assert found["by_label"]["c"] == {"images": 0, "accuracy": None, "predicted_as": {"a": 0, "b": 0, "c": 0}}
