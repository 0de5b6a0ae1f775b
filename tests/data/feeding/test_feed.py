"""Tests of how batches reach the devices: resident or streamed, augmented or not, they are the same."""

import dataclasses

import cv2
import jax
import jax.numpy as jnp
import mistakes
import numpy as np
import pytest
import small
from numpy.testing import assert_allclose, assert_array_equal
from rich.console import Console
from sklearn.datasets import load_sample_image

from tunevlseg_jax.benchmarks import loading
from tunevlseg_jax.data import scenes
from tunevlseg_jax.data.feeding import augment, augmented_views
from tunevlseg_jax.data.feeding.batch import Batch, gather
from tunevlseg_jax.data.feeding.feed import RESIDENT_SHARE, Feed
from tunevlseg_jax.data.settings import Data, Scenes
from tunevlseg_jax.runs import trainer
from tunevlseg_jax.runtime import sharding

quick_compilation = small.quick_compilation

batch_of = jax.jit(gather)


@pytest.fixture(scope="module")
def records():
    """Three records to an image."""
    return scenes.load("xray", "train", 6, prompts_per_image=3, varied=True)


def epoch(records, number: int = 1, **settings) -> list[Batch]:
    feed = Feed(records, sharding.mesh(), **{"placement": "streaming", **settings})
    return [batch_of(source) for source in feed.training(6, seed=3, epoch=number, augment=True)]


def assert_same(batches: list[Batch], others: list[Batch]) -> None:
    assert len(batches) == len(others)
    jax.tree.map(assert_array_equal, batches, others)


def test_every_placement_gives_the_same_batches(records):
    streamed = epoch(records)
    for settings in ({"workers": 0}, {"workers": 2}, {"placement": "resident"}):
        assert_same(epoch(records, **settings), streamed)
    fewer = records.take(np.arange(3, 12))  # a resident split leaves out unused images and maps
    assert_same(epoch(fewer, placement="resident"), epoch(fewer))
    assert [batch.images.shape[0] for batch in streamed] == [2, 2, 2]  # an image's records share it


@pytest.mark.slow
def test_resident_runs_have_the_losses_of_streamed_ones(tmp_path):
    """To the bit, and their scores too; with augmentation, phrasings to choose from and several prompts an image."""
    data = Data(name="scenes/photo", scenes=Scenes(train=4, val=5, test=6, prompts_per_image=2, varied=True))
    for placement in ("streaming", "resident"):
        config = small.config(tmp_path / placement, data=dataclasses.replace(data, placement=placement))
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, augment=True))
        trainer.train(config, Console(quiet=True))
    one, other = (tmp_path / placement for placement in ("streaming", "resident"))
    assert small.metrics(one) == small.metrics(other)
    for name in ("prompts.safetensors", "results.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_a_split_is_resident_if_it_fits(records, monkeypatch):
    size = records.images.nbytes + records.maps.nbytes
    for free, placement, expected in (
        (None, "auto", False),  # the devices' memory is the host's
        (int(size / RESIDENT_SHARE) + 1, "auto", True),
        (int(size / RESIDENT_SHARE) - 8, "auto", False),
        (size, "resident", True),
        (10 * size, "streaming", False),
    ):
        monkeypatch.setattr(sharding, "free_memory", lambda mesh, free=free: free)
        assert Feed(records, sharding.mesh(), placement).resident is expected
    monkeypatch.setattr(sharding, "free_memory", lambda mesh: size - 1)
    with mistakes.raises(r"device-memory: scenes/xray, train .*--data\.placement streaming"):
        _ = Feed(records, sharding.mesh(), "resident").resident


def test_augmentation_differs_between_epochs_and_images(records):
    first, second = (np.concatenate([batch.images for batch in epoch(records, number)]) for number in (1, 2))
    assert_same(epoch(records), epoch(records))
    plain = {image.tobytes() for image in records.images}
    changed = [image.tobytes() not in plain for image in (*first, *second)]
    assert 0 < sum(changed) < len(changed)


def test_augmentation_of_an_image_does_not_depend_on_the_others():
    images = jnp.asarray(scenes.load("photo", "train", 5).images)
    masks = jnp.zeros((5, 96, 96), bool)
    key = jax.random.key(1)
    augmented = jax.jit(augment.augment)
    assert_array_equal(augmented(key, images, masks)[0][:3], augmented(key, images[:3], masks[:3])[0])


def matrices(height: int, width: int) -> list[np.ndarray]:
    """OpenCV's matrices of the extreme affine maps, from input to output."""
    corners = [(scale, angle, x, y) for scale in (0.98, 1.02) for angle in (-5, 5) for x, y in ((0.02, -0.02),)]
    matrices = []
    for scale, angle, x, y in corners:
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, scale)
        matrix[:, 2] += x * width, y * height
        matrices.append(matrix)
    return matrices


def test_warping_agrees_with_opencv():
    """A photograph and noise; 2 grey levels on 99.9 % of the pixels."""
    rng = np.random.default_rng(0)
    images = load_sample_image("china.jpg")[:120, :160], rng.integers(0, 256, (120, 160, 3)).astype(np.uint8)
    mask = cv2.GaussianBlur(rng.normal(size=(120, 160)), (0, 0), 3) > 0
    for matrix in matrices(120, 160):
        back = jnp.asarray(cv2.invertAffineTransform(matrix), jnp.float32)
        for image in images:
            expected = cv2.warpAffine(image, matrix, (160, 120), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
            difference = np.abs(np.asarray(augment.warp(jnp.asarray(image), back), int) - expected)
            assert (difference <= 2).mean() >= 0.999
        moved = cv2.warpAffine(
            mask.astype(np.uint8), matrix, (160, 120), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE
        )
        ours = augment.warp_masks(jnp.asarray(mask)[None], back)[0]
        assert (np.asarray(ours) == moved).mean() >= 0.999


def test_random_numbers_map_to_opencvs_matrices():
    """Draws of 0 and nearly 1 are the corners, 0.5 the middle; without the map nothing moves."""
    one = 1 - 2.0**-24
    for draws, matrix in zip(
        ((0, 0, one, 0), (0, one, one, 0), (one, 0, one, 0), (one, one, one, 0)), matrices(50, 80), strict=True
    ):
        scale, angle, x, y = draws
        ours = augment.affine(jnp.asarray([0.1, scale, angle, x, y], jnp.float32), 50, 80)
        assert_allclose(ours, cv2.invertAffineTransform(matrix), atol=1e-4)
    assert_array_equal(augment.affine(jnp.asarray([0.2, 0, 0, 0, 0], jnp.float32), 50, 80), np.eye(2, 3))
    image = jnp.asarray(load_sample_image("china.jpg")[:40, :40])
    assert_array_equal(augment.warp(image, jnp.eye(2, 3)), image)


def test_brightness_and_contrast():
    image = jnp.asarray([[[0, 100, 255]]], jnp.uint8)
    brighter, more = (augment.recolour(image, jnp.asarray(draws)) for draws in ([0.1, 0.5, 1.0], [0.1, 1.0, 0.5]))
    assert_array_equal(brighter, [[[26, 126, 255]]])  # 25.5 rounds to even
    assert_array_equal(more, [[[0, 110, 255]]])
    assert_array_equal(augment.recolour(image, jnp.asarray([0.2, 1.0, 1.0])), image)


def test_the_affine_map_has_the_papers_probability():
    draws = jax.vmap(lambda key: jax.random.uniform(key, (8,)))(jax.random.split(jax.random.key(0), 2000))
    moved = (np.asarray(jax.vmap(augment.affine, (0, None, None))(draws[:, :5], 8, 8)) != np.eye(2, 3)).any(axis=(1, 2))
    assert 0.17 < moved.mean() < 0.23


def test_speed_is_reported_for_every_placement(monkeypatch, capsys):
    small.run(monkeypatch, loading.main, "--images", 6, "--size", 24, "--batch-size", 4, "--epochs", 1, "--workers", 1)
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "streaming" in line or "resident" in line]
    assert len(rows) == 2 and all(int(row[place]) > 0 for row in rows for place in (-2, -4))


@pytest.fixture(scope="module")
def view(records):
    return augmented_views.view(records, 1, seed=5)


def test_a_view_has_augmented_images_and_masks(records, view):
    draws = augment.draw(jax.random.fold_in(jax.random.key(5), 1), len(records.images))
    expected = jax.jit(augment.augmented)(records.images, draws)
    assert_array_equal(view.images, expected)
    matrices = augment.affine_of(draws, *records.images.shape[1:3])
    for row, image in enumerate(records.image):
        assert_array_equal(view.mask(row), augment.warp_masks(jnp.asarray(records.mask(row))[None], matrices[image])[0])


def test_views_differ_and_are_reproducible(records, view):
    """By number and seed, and every record keeps its image's prompts."""
    again, others = (
        augmented_views.view(records, 1, seed=5),
        [augmented_views.view(records, 2, seed=5), augmented_views.view(records, 1, seed=6)],
    )
    assert again.fingerprint() == view.fingerprint()
    assert len({view.fingerprint(), *(other.fingerprint() for other in others)}) == 3
    assert view.ids == records.ids and view.phrases == records.phrases
    assert view.prompts_per_image == records.prompts_per_image


def test_views_of_more_images_begin_with_those_of_fewer():
    """A view of an image depends on its place alone, also past the end of a batch of them."""
    many = scenes.load("photo", "train", augmented_views.BATCH + 3)
    few = dataclasses.replace(many.take(np.arange(3)), images=many.images[:3])
    view, less = (augmented_views.view(records, 1, seed=0) for records in (many, few))
    assert_array_equal(view.images[:3], less.images)
    assert_array_equal(view.masks[:3], less.masks)
