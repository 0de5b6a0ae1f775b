"""Tests of scores on the host: distances between outlines by brute force, and what becomes of empty masks."""

import dataclasses

import cv2
import numpy as np
import pytest

from tunevlseg_jax.data.records import Records, packed
from tunevlseg_jax.evaluation import every_class, inference, lesions, record_scores, surface


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


@pytest.mark.slow  # MONAI takes seconds to load
@pytest.mark.filterwarnings("ignore:monai:FutureWarning")
@pytest.mark.parametrize("spacing", [None, (2.5, 0.7)])
def test_scores_are_those_of_monai(spacing):
    """Tolerance 1.5; MONAI's edges are the pixels of an outline as well."""
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_dice import compute_surface_dice
    from monai.metrics.surface_distance import compute_average_surface_distance

    for seed in range(3):
        predicted, target = np.pad(blob(seed), 1), np.pad(blob(seed + 100), 1)  # MONAI takes the image's border apart
        sample = record_scores.score("a", "b", "c", predicted, target, spacing, tolerance=1.5)
        masks = [torch.as_tensor(mask[None, None]) for mask in (predicted, target)]
        options = {"include_background": True, "spacing": spacing}
        unit = "px" if spacing is None else "mm"
        ours = {"px": sample.hd95_both_nonempty, "mm": sample.hd95_mm}[unit]
        assert ours == pytest.approx(compute_hausdorff_distance(*masks, percentile=95, **options).item(), rel=1e-6)
        assert getattr(sample, f"hd95_{unit}_or_diagonal") == ours
        average = compute_average_surface_distance(*masks, symmetric=True, **options).item()
        assert getattr(sample, f"assd_{unit}") == pytest.approx(average, rel=1e-6)
        assert sample.nsd == pytest.approx(compute_surface_dice(*masks, [1.5], **options).item(), abs=1e-6)
        sizes = [int(mask.sum()) for mask in (predicted, target)]
        assert sample.volumetric_similarity == pytest.approx(2 * min(sizes) / sum(sizes), abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(60, 80), (12, 20, 20)])
def test_lesions_are_matched_as_by_monai(shape):
    """F1 is the recognition quality of its panoptic quality; recall and precision by scipy's components, one by one."""
    import torch
    from monai.metrics.panoptic_quality import compute_panoptic_quality
    from scipy import ndimage

    sums = np.zeros(3, int)
    for seed in range(4):
        noise = ndimage.gaussian_filter(
            np.random.default_rng(seed).normal(size=(2, *shape)), (0,) + (1.5,) * len(shape)
        )
        target, predicted = noise[0] > 0.12, noise[0] + 0.5 * noise[1] > 0.14
        counts = lesions.count(predicted, target)
        labels = [ndimage.label(mask, np.ones((3,) * len(shape)))[0] for mask in (predicted, target)]
        quality = compute_panoptic_quality(
            *(torch.as_tensor(one.reshape(one.shape[0], -1)) for one in labels),
            metric_name="rq",
            match_iou_threshold=0.1,
            smooth_numerator=0,
        )
        true, found, false = (int(each.sum()) for each in counts)
        sums += (true, found, false)
        assert (true, found + false) == (labels[1].max(), labels[0].max())
        assert lesions.rates(true, found, false)[2] == pytest.approx(float(quality), abs=1e-6)
        shares = np.bincount(labels[1].ravel())[1:] / target.size
        limits = [(shares <= 0.01).sum(), ((shares > 0.01) & (shares <= 0.1)).sum(), (shares > 0.1).sum()]
        assert counts.true.tolist() == limits
    assert 0 < sums[1] < sums[0] and sums[2]


def test_known_lesions():
    """Two hits of which one is larger than its lesion, a miss, a false one, and one that would match two."""
    predicted, target = np.zeros((2, 100, 100), bool)
    target[0:10, 0:10] = predicted[0:10, 0:10] = True  # small: 1 % of the image
    target[20:60, 0:20] = predicted[20:60, 0:22] = True  # medium
    target[80:84, 80:84] = True  # missed
    predicted[0:5, 60:65] = predicted[5:10, 65:70] = True  # false; its halves touch at a corner
    target[90:94, 0:8] = target[90:94, 9:17] = predicted[90:94, 0:17] = True  # one of two
    counts = lesions.count(predicted, target)
    assert counts.true.tolist() == [4, 1, 0]
    assert counts.found.tolist() == [2, 1, 0]
    assert counts.false.tolist() == [1, 0, 0]
    assert lesions.rates(5, 3, 1) == (0.6, 0.75, pytest.approx(2 * 0.6 * 0.75 / 1.35))
    target[:], predicted[:] = False, False
    target[0:10, 0:10] = predicted[9:19, 0:10] = True
    assert lesions.count(predicted, target).found.sum() == 0  # IoU 10 / 190
    predicted[:] = False
    predicted[8:18, 0:10] = True
    assert lesions.count(predicted, target).found.sum() == 1  # IoU 20 / 180


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
    for sample, value in ((both, 1), (missed, 0), (invented, 0), (right, 1)):
        assert (sample.nsd, sample.volumetric_similarity) == (value, value)
    diagonal = 32**0.5
    assert [one.hd95_px_or_diagonal for one in (both, missed, invented, right)] == [0, diagonal, diagonal, 0]
    summary = record_scores.summary([both, missed, invented, right])
    assert {name: value for name, value in summary.items() if "lesion" not in name} == {
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
        "hd95_px_or_diagonal": diagonal / 2,
        "nsd": 0.5,
        "volumetric_similarity": 0.5,
    }
    assert (summary["lesions"], summary["false_lesions"]) == (2, 1)
    assert [summary[f"lesion_{rate}_pooled"] for rate in ("recall", "precision", "f1")] == [0.5, 0.5, 0.5]
    assert record_scores.summary([both])["lesion_f1_pooled"] is None
    assert record_scores.summary([both])["hd95_both_nonempty"] is None
    assert record_scores.POLICIES.keys() < summary.keys()
    assert every_class.absent_rates([both, missed, invented, right], 2) == {
        "absent_records": 2,
        "false_positive_rate": 0.5,
        "absent_classes_marked_per_image": 0.5,
        "absent_false_lesions_per_image": 0.5,
    }


def test_presence_scores():
    """Three pairs of four are in order, one is tied."""
    there, absent = np.ones((2, 2), bool), np.zeros((2, 2), bool)
    asked = [(there, 0.9), (there, 0.4), (absent, 0.4), (absent, 0.1)]
    scored = [record_scores.score("a", "b", "c", absent, target) for target, _ in asked]
    assert every_class.presence_scores(scored) == {}
    known = [dataclasses.replace(one, presence=presence) for one, (_, presence) in zip(scored, asked, strict=True)]
    assert every_class.presence_scores(known) == {
        "presence_auroc": 0.875,
        "presence_true_rate": 0.5,
        "presence_false_rate": 0.0,
    }
    alone = every_class.presence_scores(known[:2])
    assert alone["presence_auroc"] is None and alone["presence_false_rate"] is None
