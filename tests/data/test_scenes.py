"""Tests of the embedded data set: what decides a scene, what the domains share, and what the splits don't."""

import dataclasses
import itertools

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tunevlseg_jax.data import scenes

COUNT = 24


@pytest.mark.parametrize("domain", scenes.DOMAINS)
def test_shapes_and_types(domain):
    records = scenes.load(domain, "val", COUNT)
    assert (records.name, records.split, len(records)) == (f"scenes/{domain}", "val", COUNT)
    assert records.images.shape == (COUNT, scenes.SIZE, scenes.SIZE, 3) and records.images.dtype == np.uint8
    assert records.masks.shape == (COUNT, scenes.SIZE, scenes.SIZE) and records.masks.dtype == bool
    assert records.image.dtype == records.prompt.dtype == np.int32
    assert_array_equal(records.image, np.arange(COUNT))
    assert records.ids[12] == "val-00012" and len(set(records.ids)) == COUNT


@pytest.mark.parametrize("domain", scenes.DOMAINS)
def test_pixels_are_rounded_and_saturate(domain, monkeypatch):
    """A value that left [0, 1] ends at the nearest that a screen can show, and doesn't wrap round."""
    rendered, render = [], scenes.RENDERERS[domain]
    monkeypatch.setitem(scenes.RENDERERS, domain, lambda *a: rendered.append(render(*a)) or rendered[-1])
    images = scenes.load(domain, "train", COUNT).images
    assert np.abs(images - 255.0 * np.clip(rendered, 0.0, 1.0)).max() <= 0.5 + 1e-4
    assert images.max() >= 200 and int(images.max()) - int(images.min()) >= 120


@pytest.mark.parametrize("domain", scenes.DOMAINS)
def test_same_arguments_give_the_same_records(domain):
    once, again = (scenes.load(domain, "train", COUNT, seed=3, absent_fraction=0.2, varied=True) for _ in range(2))
    assert once.fingerprint() == again.fingerprint()


def test_seed_and_split_give_other_scenes():
    loads = [scenes.load("photo", split, 8, seed=seed) for split in scenes.SPLITS for seed in (0, 1)]
    assert all((a.masks != b.masks).any() for a, b in itertools.combinations(loads, 2))


@pytest.mark.parametrize("domain", scenes.DOMAINS)
def test_a_scene_does_not_depend_on_how_many_there_are(domain):
    few, many = scenes.load(domain, "train", 5), scenes.load(domain, "train", COUNT)
    for field in ("images", "masks", "image", "prompt"):
        assert_array_equal(getattr(few, field), getattr(many, field)[:5])
    assert few.ids == many.ids[:5]


def test_domains_show_the_same_scenes_differently():
    photo, *others = (scenes.load(domain, "test", COUNT, absent_fraction=0.3) for domain in scenes.DOMAINS)
    for other in others:
        assert_array_equal(photo.masks, other.masks)
        assert_array_equal(photo.prompt, other.prompt)
        assert np.abs(photo.images.astype(int) - other.images).mean() > 20


def test_digits_stand_out_in_every_domain():
    """Inside a mask the mean differs from outside, brighter everywhere but in ultrasound."""
    for domain in scenes.DOMAINS:
        records = scenes.load(domain, "train", 200)
        grey = records.images.mean(axis=-1)
        inside, outside = grey[records.masks].mean(), grey[~records.masks].mean()
        assert inside < 0.6 * outside if domain == "ultrasound" else inside > 1.15 * outside, domain


def test_splits_share_no_digit_and_no_background():
    rows = [scenes.digit_rows(split) for split in scenes.SPLITS]
    assert sorted(np.concatenate(rows)) == list(range(1797))
    columns = [range(640)[scenes.REGIONS[split]] for split in scenes.SPLITS]
    assert sorted(itertools.chain(*columns)) == list(range(640))


@pytest.mark.parametrize("split", scenes.SPLITS)
def test_a_split_draws_from_its_own_digits_alone(split, monkeypatch):
    ink, labels = scenes._digits()
    held_out = np.setdiff1d(np.arange(1797), scenes.digit_rows(split))
    blanked = ink.copy()
    blanked[held_out] = np.nan  # a NaN would reach the mask, and so the comparison
    expected = scenes.load("xray", split, COUNT).fingerprint()
    monkeypatch.setattr(scenes, "_digits", lambda: (blanked, labels))
    assert scenes.load("xray", split, COUNT).fingerprint() == expected


def test_every_class_is_asked_for_and_digits_are_large_enough_to_see():
    records = scenes.load("xray", "train", 400)
    assert set(records.prompt.tolist()) == set(range(10))
    pixels = records.masks.sum(axis=(1, 2))
    assert pixels.min() >= 60 and pixels.max() <= 0.3 * scenes.SIZE**2


def test_absent_fraction_is_the_share_of_empty_masks():
    empty = [~scenes.load("xray", "train", 400, absent_fraction=f).masks.any(axis=(1, 2)) for f in (0.0, 0.25, 1.0)]
    assert not empty[0].any() and 0.17 < empty[1].mean() < 0.33 and empty[2].all()


def test_absent_fraction_changes_no_pixel():
    present, absent = (scenes.load("endoscopy", "train", COUNT, absent_fraction=f) for f in (0.0, 1.0))
    assert_array_equal(present.images, absent.images)


def test_several_prompts_to_an_image():
    one, all_ten = (scenes.load("photo", "train", COUNT, prompts_per_image=n) for n in (1, 10))
    assert_array_equal(one.images, all_ten.images)
    assert_array_equal(all_ten.image, np.repeat(np.arange(COUNT), 10))
    assert_array_equal(one.prompt, all_ten.prompt[::10])
    assert_array_equal(one.masks, all_ten.masks[::10])
    assert len(set(all_ten.ids)) == 10 * COUNT
    asked, there = all_ten.prompt.reshape(COUNT, 10), all_ten.masks.any(axis=(1, 2)).reshape(COUNT, 10)
    assert_array_equal(np.sort(asked, axis=1), np.tile(np.arange(10), (COUNT, 1)))
    assert (there[:, :-1] >= there[:, 1:]).all()  # what is there comes first
    assert set(there.sum(axis=1).tolist()) == {1, 2, 3}


def test_digits_hardly_hide_one_another(monkeypatch):
    whole, stroke = [], scenes._stroke
    monkeypatch.setattr(scenes, "_stroke", lambda *a: whole.append(stroke(*a)) or whole[-1].copy())
    counts = []
    for index in range(300):
        whole.clear()
        scene = scenes._scene(scenes._generator(0, "train", index, 0), "train")
        counts.append(len(scene.labels))
        assert scene.cover.max() <= 1.0 + 1e-5
        assert (scene.alphas.sum(axis=(1, 2)) > 0.8 * np.sum(whole, axis=(1, 2))).all()
    assert_array_equal(np.unique(counts), (1, 2, 3))


def test_phrasings():
    plain, varied = (scenes.load("photo", "train", 2, varied=v) for v in (False, True))
    assert plain.prompts == tuple((name,) for name in scenes.CLASSES)
    assert [phrasings[0] for phrasings in varied.prompts] == list(scenes.CLASSES)
    for name, phrasings in zip(scenes.CLASSES, varied.prompts, strict=True):
        assert len(set(phrasings)) == len(scenes.PHRASINGS) and all(name in phrase for phrase in phrasings)
    assert dataclasses.replace(varied, prompts=plain.prompts).fingerprint() == plain.fingerprint()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"domain": "x-ray"}, "no domain 'x-ray'.*'xray'"),
        ({"split": "validation"}, "no split 'validation'.*'val'"),
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"absent_fraction": 1.5}, r"absent_fraction must be in \[0, 1\], got 1.5"),
        ({"absent_fraction": float("nan")}, "absent_fraction"),
        ({"prompts_per_image": 11}, "prompts_per_image must be 1 to 10, got 11"),
    ],
)
def test_errors_are_one_clear_line(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        scenes.load(**{"domain": "photo", "split": "train", "count": 1, **arguments})
    assert "\n" not in str(caught.value)
