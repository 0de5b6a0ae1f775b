"""Calibration of pixels' probabilities: streamed sums on the devices, their scores, and a fitted temperature."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from tunevlseg_jax.data.feeding.batch import Batch
from tunevlseg_jax.models.resize import resize_grid
from tunevlseg_jax.runtime import sharding

BINS = 15
"""Of equal width, of the probability from 0 to 1."""
POLICIES = {
    "ece": "expected calibration error of pixels: the mean distance between the mean probability and the share of true "
    f"pixels in {BINS} bins of the probability, weighted by pixels",
    "brier": "mean over pixels of the squared difference between probability and truth",
    "nll": "mean over pixels of the negative log-likelihood, in nats",
    "ece_balanced": "as ece, where all true pixels together weigh as much as all others; undefined where either is "
    "missing",
    "brier_balanced": "as brier, likewise",
    "nll_balanced": "as nll, likewise",
}
"""The scores, over all pixels of all records at the model's size, at temperature 1. With the temperature of the run's
card their names end in _calibrated."""
CALIBRATED = "_calibrated"
LOGITS = 32.0
"""Largest absolute logit of the histogram that a temperature is fitted on; its last bins hold all beyond."""
LOGIT_BINS = 4096
TEMPERATURES = (0.05, 20.0)
"""Between which a temperature is fitted."""


class Sums(NamedTuple):
    """Sums over pixels, of those that aren't in the true mask and of those that are.

    Attributes:
      pixels: (2, BINS), their number in each bin of the probability.
      probability: (2, BINS), their probabilities.
      brier: (2,), squared differences between probability and truth.
      nll: (2,), negative log-likelihoods.
    """

    pixels: Any
    probability: Any
    brier: Any
    nll: Any


class Histogram(NamedTuple):
    """Logits of pixels, (2, LOGIT_BINS): of those that aren't in the true mask and of those that are.

    Attributes:
      pixels: their number in each bin.
      logit: the sum of their logits.
    """

    pixels: Any
    logit: Any


@jax.jit
def pixel_sums(logits: Array, masks: Array, weight: Array, temperature: Array) -> Sums:
    """The sums of a batch.

    Args:
      logits: (batch, height, width); those of another size than the masks are resized to it.
      masks: (batch, height, width) bool.
      weight: (batch,), 0 for padding.
      temperature: scalar that divides the logits.
    """
    logits, kinds = _prepared(logits, masks, weight)
    logits = logits / temperature
    probability = jax.nn.sigmoid(logits)
    place = jnp.clip(jnp.floor(probability * BINS), 0, BINS - 1)

    def of_bin(number: Array) -> tuple[Array, Array]:
        here = kinds & (place == number)[None]
        return here.sum((1, 2, 3)), jnp.where(here, probability[None], 0.0).sum((1, 2, 3))

    pixels, total = jax.lax.map(of_bin, jnp.arange(BINS, dtype=jnp.float32))
    errors = jnp.stack([probability, 1 - probability]) ** 2
    losses = jnp.stack([jax.nn.softplus(logits), jax.nn.softplus(-logits)])
    summed = (jnp.where(kinds, values, 0.0).sum((1, 2, 3)) for values in (errors, losses))
    return Sums(pixels.T, total.T, *summed)


@jax.jit
def logit_histogram(logits: Array, masks: Array, weight: Array) -> Histogram:
    """The logits of a batch; arguments as in `pixel_sums`."""
    logits, kinds = _prepared(logits, masks, weight)
    place = jnp.floor((logits + LOGITS) * (LOGIT_BINS / (2 * LOGITS)))
    place = jnp.clip(place, 0, LOGIT_BINS - 1).astype(jnp.int32)
    count = partial(jnp.bincount, place.ravel(), length=LOGIT_BINS)
    pixels = jnp.stack([count(kind.ravel().astype(jnp.int32)) for kind in kinds])
    return Histogram(pixels, jnp.stack([count(jnp.where(kind, logits, 0.0).ravel()) for kind in kinds]))


def _prepared(logits: Array, masks: Array, weight: Array) -> tuple[Array, Array]:
    """Logits at the size of the masks, and (2, batch, height, width) whether a pixel is of each kind."""
    if logits.shape != masks.shape:
        _, height, width = masks.shape
        logits = resize_grid(logits[..., None], (height, width), "bilinear")[..., 0]
    counts = jnp.broadcast_to((weight > 0)[:, None, None], masks.shape)
    return logits, jnp.stack([~masks & counts, masks & counts])


class PixelCalibration:
    """The sums of a split, of which no pixel is kept.

    Attributes:
      temperature: divides the logits.
    """

    def __init__(self, temperature: float = 1.0):
        self.temperature = temperature
        self._sums = Sums(np.zeros((2, BINS)), np.zeros((2, BINS)), np.zeros(2), np.zeros(2))

    def add(self, logits: Array, batch: Batch) -> None:
        """A batch; all processes must call this."""
        sums = pixel_sums(logits, batch.masks, batch.weight, np.float32(self.temperature))
        self._sums = Sums(
            *(ours + theirs for ours, theirs in zip(self._sums, sharding.gather_to_host(sums), strict=True))
        )

    def scores(self) -> dict[str, float | None]:
        """The scores of POLICIES."""
        counts = self._sums.pixels.sum(axis=1)
        scores: dict[str, float | None] = {}
        for end, weight in (("", np.ones(2)), ("_balanced", 1 / np.maximum(counts, 1))):
            total = float(weight @ counts)
            defined = counts.all() if end else total > 0
            apart = np.abs(weight @ self._sums.probability - weight[1] * self._sums.pixels[1]).sum()
            for name, value in (("ece", apart), ("brier", weight @ self._sums.brier), ("nll", weight @ self._sums.nll)):
                scores[name + end] = float(value) / total if defined else None
        return {name: scores[name] for name in POLICIES}

    def bins(self) -> list[dict[str, float | int | None]]:
        """The reliability of each bin: its number of pixels, their mean probability, and the share of true ones."""
        rows = []
        for number, (false, true) in enumerate(self._sums.pixels.T):
            pixels, total = false + true, self._sums.probability[:, number].sum()
            means = {"probability": float(total / pixels), "true": float(true / pixels)} if pixels else {}
            limits = {"from": number / BINS, "to": (number + 1) / BINS, "pixels": int(pixels)}
            rows.append(limits | {"probability": None, "true": None} | means)
        return rows


class TemperatureFit:
    """The histogram of a split's logits, and the temperature that makes them likeliest (Guo et al. 2017)."""

    def __init__(self) -> None:
        self._histogram = Histogram(np.zeros((2, LOGIT_BINS)), np.zeros((2, LOGIT_BINS)))

    def add(self, logits: Array, batch: Batch) -> None:
        """A batch; all processes must call this."""
        found = sharding.gather_to_host(logit_histogram(logits, batch.masks, batch.weight))
        self._histogram = Histogram(*(ours + theirs for ours, theirs in zip(self._histogram, found, strict=True)))

    @property
    def pixels(self) -> int:
        """The number of pixels so far."""
        return int(self._histogram.pixels.sum())

    def nll(self, temperature: float) -> float:
        """The mean negative log-likelihood of the pixels at a temperature; each has the mean logit of its bin."""
        pixels, total = self._histogram
        logits = total / np.maximum(pixels, 1) / temperature
        loss = np.logaddexp(0, logits * np.array([[1.0], [-1.0]]))
        return float((pixels * loss).sum() / pixels.sum())

    def fit(self) -> float:
        """The temperature of the lowest `nll`, in TEMPERATURES."""
        from scipy.optimize import minimize_scalar

        limits = np.log(TEMPERATURES)
        found = minimize_scalar(
            lambda log: self.nll(np.exp(log)), bounds=limits, method="bounded", options={"xatol": 1e-6}
        )
        return float(np.exp(found.x))


def watching(streams: Sequence[PixelCalibration | TemperatureFit]) -> Callable[[Array, Batch], None]:
    """Gives each batch to all of them."""

    def watch(logits: Array, batch: Batch) -> None:
        for stream in streams:
            stream.add(logits, batch)

    return watch


def named_scores(calibrations: Sequence[PixelCalibration]) -> dict[str, float | None]:
    """The scores at temperature 1, and those of another temperature with CALIBRATED at the end of their names."""
    return {
        name + CALIBRATED * (each.temperature != 1): value
        for each in calibrations
        for name, value in each.scores().items()
    }


def for_file(calibrations: Sequence[PixelCalibration]) -> dict[str, Any]:
    """The temperatures and the bins of each, for a figure of their reliability."""
    bins = [{"temperature": each.temperature, "bins": each.bins()} for each in calibrations]
    return {"reliability": bins} if bins else {}
