"""Fits the temperature of a run on its validation split."""

from typing import Any

from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.evaluation import inference
from tunevlseg_jax.evaluation.calibration import TemperatureFit
from tunevlseg_jax.models.parameters import FlatParams
from tunevlseg_jax.runtime import progress_bar
from tunevlseg_jax.training.experiment import Experiment
from tunevlseg_jax.training.split import Split


def fit(experiment: Experiment, learnt: FlatParams, split: Split, data: Data) -> dict[str, Any]:
    """Fits the temperature in one pass over a split, at the model's size.

    Args:
      experiment: the run's experiment.
      learnt: its learnt tensors.
      split: the validation split.
      data: the data set of the split.

    Returns:
      temperature; nll_before and nll_after, the negative log-likelihood of pixels without and with it; data and split,
      on which it was fitted; data_sha256, the fingerprint of its records; pixels, their number.
    """
    fitted = TemperatureFit()
    logits = inference.logits_of(experiment, learnt, split, experiment.config.train.batch_size, fitted.add)
    for _ in zip(progress_bar.track(range(len(split.records)), "calibrating"), logits, strict=True):
        pass
    temperature = fitted.fit()
    return {
        "temperature": temperature,
        "nll_before": fitted.nll(1.0),
        "nll_after": fitted.nll(temperature),
        "data": data.name,
        "split": split.records.split,
        "data_sha256": split.records.fingerprint(),
        "pixels": fitted.pixels,
    }
