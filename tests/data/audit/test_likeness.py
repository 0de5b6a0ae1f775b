"""Tests of images that show the same in another light, and of images that are alike by nature."""

import dataclasses

import cv2
import fake_downloads
import numpy as np
import pytest
from fake_downloads import in_another_light, smooth

from tunevlseg_jax.data import prepared, scenes
from tunevlseg_jax.data.audit import duplicates, likeness
from tunevlseg_jax.data.audit.image_stats import ImageStats, image_stats
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.catalogue import PUBLIC
from tunevlseg_jax.data.builders.writer import write
from tunevlseg_jax.data.examples import Example
from tunevlseg_jax.data.images import encode_png


def stats_of(images: list[np.ndarray]) -> list[ImageStats]:
    examples = [Example(f"{number}", "", encode_png(image), (), ()) for number, image in enumerate(images)]
    return [image_stats("train", number, example) for number, example in enumerate(examples)]


@pytest.mark.parametrize("size", [(32, 48), (96, 128)])
def test_one_frame_in_two_lights_is_a_near_copy(size):
    """Colours are far apart, and a JPEG's noise is added."""
    rng = np.random.default_rng(0)
    frames = [smooth(rng, size) for _ in range(30)]
    lit = [cv2.imdecode(cv2.imencode(".jpg", in_another_light(frame))[1], cv2.IMREAD_COLOR) for frame in frames[:6]]
    found = duplicates.near_copies(stats_of(frames + lit))
    assert {(first, second) for first, second in found} == {(number, 30 + number) for number in range(6)}


def lesion(rng: np.random.Generator) -> np.ndarray:
    """(150, 200, 3) uint8: a dark, round lesion in the middle of skin, in the vignette of a lens."""
    rows, columns = np.mgrid[:150, :200]
    wave = cv2.GaussianBlur(rng.normal(size=(150, 200)).astype(np.float32), (0, 0), 6) * 25
    distance = np.hypot(rows - 75 + rng.normal(0, 6), columns - 100 + rng.normal(0, 8)) + wave
    dark = 1 / (1 + np.exp((distance - rng.uniform(30, 50)) / 4))
    light = (200 - rng.uniform(70, 110) * dark) * (1 - 0.3 * (np.hypot(rows - 75, columns - 100) / 120) ** 2)
    texture = cv2.GaussianBlur(rng.normal(size=(150, 200)).astype(np.float32), (0, 0), 1.5) * 8
    return np.clip((light + texture)[..., None] * np.asarray([1, 0.8, 0.7]), 0, 255).astype(np.uint8)


def test_lesions_in_the_middle_of_skin_are_alike_in_any_light_only_to_themselves():
    """The brightness of many pairs correlates above 0.96; copies are those that differ by few grey levels as well."""
    rng = np.random.default_rng(0)
    lesions = [lesion(rng) for _ in range(60)]
    stats = stats_of([*lesions, in_another_light(lesions[7])])
    pairs = [(one, other) for one in range(60) for other in range(one) if alike(stats[one], stats[other])]
    assert len(pairs) > 20
    found = duplicates.near_copies(stats)
    assert [pair for pair in found if flipped(stats, pair) > duplicates.FLIPPED or 60 in pair] == [(7, 60)]


def alike(first: ImageStats, second: ImageStats) -> bool:
    return likeness.same_shapes(first, second, -1)


def flipped(stats: list[ImageStats], pair: duplicates.Pair) -> int:
    return int(np.bitwise_count(stats[pair.first].bits ^ stats[pair.second].bits).sum())


def test_many_frames_of_one_scene_are_few_pairs():
    """Each frame is paired with the first of each split, so that pairs grow with the frames, not with their square."""
    rng = np.random.default_rng(0)
    scene = smooth(rng, (32, 48))
    frames = stats_of([(scene.clip(3, 250) + rng.integers(-3, 4, scene.shape)).astype(np.uint8) for _ in range(60)])
    splits = ("train", "val", "test")
    frames = [dataclasses.replace(frame, split=splits[number % 3]) for number, frame in enumerate(frames)]
    found = duplicates.near_copies(frames)
    expected = {(first, second) for second in range(60) for first in range(min(second, 3))}
    assert {(first, second) for first, second in found} == expected


def test_a_pair_that_alone_connects_two_images_is_kept():
    """Two shades of grey are too far apart to be copies; a shade between them is a copy of both."""
    shades = stats_of([np.full((8, 8, 3), shade, np.uint8) for shade in (100, 116, 108, 109)])
    assert duplicates.near_copies(shades) == [(0, 2), (0, 3), (1, 2)]
    assert len(duplicates.components(4, duplicates.near_copies(shades))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("domain", ["endoscopy", "ultrasound"])
def test_scenes_have_no_near_copies(domain):
    assert duplicates.near_copies(stats_of(list(scenes.load(domain, "train", 60).images))) == []


@pytest.mark.parametrize(
    ("name", "copy", "pairs"),
    [
        ("bkai", fake_downloads.bkai, {frozenset({"0f", "1f"}), frozenset({"2f", "3f"})}),
        ("busi", fake_downloads.busi, {frozenset({"6_benign", "5_malignant"})}),
    ],
)
def test_the_copies_that_public_sets_hold_are_found(name, copy, pairs, tmp_path):
    copy(tmp_path / "source", np.random.default_rng(0))
    splits = PUBLIC[name].splits(SourceFiles([tmp_path / "source"], tmp_path / "unpacked"), None, 0)
    write(tmp_path, name, splits, "a test")
    stats = [
        image_stats(split, index, example)
        for split in prepared.SPLITS
        for index, example in enumerate(prepared.load(tmp_path, name, split))
    ]
    found = duplicates.same_content(stats) + duplicates.near_copies(stats)
    assert {frozenset({stats[first].id, stats[second].id}) for first, second in found} == pairs
