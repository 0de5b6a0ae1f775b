"""Tests of calibration: streamed sums against all pixels at once, and the fitted temperature."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from tunevlseg_jax.data.feeding.batch import Batch
from tunevlseg_jax.evaluation.calibration import BINS, CALIBRATED, PixelCalibration, TemperatureFit, named_scores

RECORDS, SIZE = 9, (20, 24)


def split(overconfident: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, (record, height, width), and masks drawn with the probabilities of `overconfident` times less of them."""
    rng = np.random.default_rng(0)
    logits = rng.normal(-1, 1.5, (RECORDS, *SIZE)).astype(np.float32)
    masks = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    return overconfident * logits, masks


def stream(sink: PixelCalibration | TemperatureFit, logits: np.ndarray, masks: np.ndarray) -> None:
    """Batches of four, the last with padding that must not count."""
    for start in range(0, RECORDS, 4):
        rows = np.arange(start, start + 4)
        weight = jnp.asarray(rows < RECORDS, jnp.float32)
        images, phrase = jnp.zeros((4, 1, 1, 3), jnp.uint8), jnp.zeros(4, jnp.int32)
        batch = Batch(images, jnp.asarray(masks[rows % RECORDS]), phrase, weight)
        sink.add(jnp.asarray(logits[rows % RECORDS]), batch)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_scores_are_those_of_all_pixels(temperature):
    logits, masks = split()
    found = PixelCalibration(temperature)
    stream(found, logits, masks)
    p, y = 1 / (1 + np.exp(-logits.astype(np.float64).ravel() / temperature)), masks.ravel()
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    loss = -np.log(np.where(y, p, 1 - p))
    for end, weight in (("", np.ones(len(y))), ("_balanced", np.where(y, 0.5 / y.sum(), 0.5 / (~y).sum()))):
        weight = weight / weight.sum()
        ece = sum(abs((weight * (p - y))[place == number].sum()) for number in range(BINS))
        scores = found.scores()
        assert scores[f"ece{end}"] == pytest.approx(ece, abs=1e-6)
        assert scores[f"brier{end}"] == pytest.approx((weight * (p - y) ** 2).sum(), abs=1e-6)
        assert scores[f"nll{end}"] == pytest.approx((weight * loss).sum(), abs=1e-6)
    bins = found.bins()
    assert [row["pixels"] for row in bins] == np.bincount(place, minlength=BINS).tolist()
    assert bins[0]["true"] == pytest.approx(y[place == 0].mean()) and (bins[0]["from"], bins[-1]["to"]) == (0, 1)


def test_the_temperature_is_that_of_all_pixels():
    """And it takes back the factor that made the logits too large."""
    logits, masks = split()
    fit = TemperatureFit()
    stream(fit, logits, masks)
    signed = np.where(masks, -logits, logits).astype(np.float64)
    expected = minimize_scalar(lambda t: np.logaddexp(0, signed / t).mean(), bounds=(0.05, 20), method="bounded").x
    assert fit.pixels == logits.size
    assert fit.fit() == pytest.approx(expected, rel=1e-3) and fit.fit() == pytest.approx(3, rel=0.1)
    assert fit.nll(1.0) == pytest.approx(np.logaddexp(0, signed).mean(), rel=1e-4)
    before, after = PixelCalibration(), PixelCalibration(fit.fit())
    for each in (before, after):
        stream(each, logits, masks)
    scores = named_scores([before, after])
    for name in ("ece", "brier", "nll"):
        assert scores[name + CALIBRATED] < scores[name]


def test_without_pixels_or_without_true_ones_scores_are_undefined():
    assert set(PixelCalibration().scores().values()) == {None}
    found = PixelCalibration()
    stream(found, split()[0], np.zeros((RECORDS, *SIZE), bool))
    scores = found.scores()
    assert scores["ece"] is not None and scores["ece_balanced"] is None
