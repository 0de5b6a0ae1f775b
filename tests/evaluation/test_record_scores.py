"""Tests of scores on the host: distances between outlines by brute force, and what becomes of empty masks."""

import cv2
import numpy as np
import pytest

from tunevlseg_jax.evaluation import record_scores, surface


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
