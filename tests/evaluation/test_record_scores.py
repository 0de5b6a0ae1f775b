"""Tests of scores on the host: distances between outlines by brute force, and what becomes of empty masks."""

import cv2
import numpy as np
import pytest

from tunevlseg_jax.data.records import Records, packed
from tunevlseg_jax.evaluation import inference, record_scores, surface


def blob(seed: int, shape: tuple[int, int] = (40, 50)) -> np.ndarray:
    return cv2.GaussianBlur(np.random.default_rng(seed).normal(size=shape), (0, 0), 4) > 0.02


def outline(mask: np.ndarray) -> np.ndarray:
    """(pixel, 2) places in the mask that a side parts from the outside."""
    around = np.pad(mask, 1)
    inside = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return np.argwhere(mask & ~inside)


@pytest.mark.parametrize("seed", range(5))
def test_distances_between_outlines(seed):
    predicted, target = blob(seed), blob(seed + 100)
    ours, theirs = outline(predicted), outline(target)
    apart = np.hypot(*(ours[:, None] - theirs).transpose(2, 0, 1))
    there, back = apart.min(axis=1), apart.min(axis=0)
    sample = record_scores.score("a", "b", "c", predicted, target)
    assert sample.hd95_both_nonempty == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), rel=1e-5)
    near = (there <= 2).sum() + (back <= 2).sum()
    assert sample.surface_dice_2px == pytest.approx(near / (len(there) + len(back)))
    assert sample.dice == pytest.approx(2 * (predicted & target).sum() / (predicted.sum() + target.sum()))


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.5, 0.7), (0.31, 1.9)])
def test_distances_in_millimetres(spacing):
    """By brute force; the distances in pixels stay."""
    predicted, target = blob(1), blob(2)
    ours, theirs = (outline(mask) * spacing for mask in (predicted, target))
    apart = np.hypot(*(ours[:, None] - theirs).transpose(2, 0, 1))
    there, back = apart.min(axis=1), apart.min(axis=0)
    sample = record_scores.score("a", "b", "c", predicted, target, spacing)
    assert sample.hd95_mm == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    assert sample.assd_mm == pytest.approx((there.sum() + back.sum()) / (len(there) + len(back)))
    pixels = record_scores.score("a", "b", "c", predicted, target)
    assert (sample.hd95_both_nonempty, sample.assd_px) == pytest.approx((pixels.hd95_both_nonempty, pixels.assd_px))
    assert (pixels.hd95_mm, pixels.assd_mm, pixels.row_spacing_mm) == (None, None, None)
    if spacing == (1.0, 1.0):
        assert (sample.hd95_mm, sample.assd_mm) == pytest.approx((pixels.hd95_both_nonempty, pixels.assd_px))
    summary = record_scores.summary([sample, pixels])
    assert (summary["hd95_mm"], summary["spacing_unknown"]) == (sample.hd95_mm, 1)
    assert "hd95_mm" not in record_scores.summary([pixels])


def test_a_shift_of_three_millimetres():
    """Columns are 1.5 mm apart: 2 columns are 3 mm, at the model's size and at the image's own."""
    image, masks = np.zeros((1, 30, 60, 3), np.uint8), np.zeros((2, 30, 60), bool)
    masks[0, 5:15, 10:30] = masks[1, 5:15, 12:32] = True
    shared = {"name": "x", "split": "test", "classes": ("a",), "prompts": (("a",),), "names": ("i",), "ids": ("r",)}
    one = np.zeros(1, np.int32)
    records = Records(
        images=image, image=one, label=one, prompt=one, spacing=np.array([[4.0, 1.5]]), **packed(masks[:1]), **shared
    )
    assert inference._score(records, 0, masks[1], masks[0]).hd95_mm == pytest.approx(3)
    double = [np.kron(mask, np.ones((2, 2))) > 0 for mask in masks]
    sample = inference._score(records, 0, double[1], double[0])
    assert (sample.row_spacing_mm, sample.column_spacing_mm) == (2.0, 0.75)
    assert (sample.hd95_mm, sample.hd95_both_nonempty) == pytest.approx((3, 4))


def test_known_distances():
    square, moved = np.zeros((2, 30, 30), bool)
    square[5:15, 5:15] = moved[5:15, 8:18] = True
    ours, theirs = surface.distances(square, moved)
    assert surface.hd95(ours, theirs) == 3
    assert surface.surface_dice(ours, theirs) == pytest.approx(2 * (36 - 10 - 2 * 0) / 72, abs=0.2)
    full = np.ones((8, 8), bool)  # the border of the image is an outline
    assert surface.surface_dice(*surface.distances(full, full)) == 1


def test_empty_masks():
    some, none = np.ones((4, 4), bool), np.zeros((4, 4), bool)
    both, missed, invented, right = (
        record_scores.score(name, "a", "a", predicted, target)
        for name, predicted, target in (
            ("both", none, none),
            ("missed", none, some),
            ("invented", some, none),
            ("right", some, some),
        )
    )
    for sample, value in ((both, 1), (missed, 0), (invented, 0), (right, 1)):
        assert (sample.dice, sample.iou, sample.surface_dice_2px) == (value, value, value)
    assert [sample.hd95_both_nonempty for sample in (both, missed, invented, right)] == [None, None, None, 0]
    summary = record_scores.summary([both, missed, invented, right])
    assert summary == {
        "dice": 0.5,
        "iou": 1 / 3,
        "sample_iou": 0.5,
        "hd95_both_nonempty": 0.0,
        "surface_dice_2px": 0.5,
        "records": 4,
        "empty_targets": 2,
        "empty_predictions": 2,
        "hd95_undefined": 3,
        "assd_px": 0.0,
    }
    assert record_scores.summary([both])["hd95_both_nonempty"] is None
    assert record_scores.POLICIES.keys() < summary.keys()
    assert record_scores.absent_rates([both, missed, invented, right]) == {
        "absent_records": 2,
        "false_positive_rate": 0.5,
    }
