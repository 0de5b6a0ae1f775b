"""Scores of trained prompts on whole splits, for the run's card."""

from collections.abc import Callable, Mapping

from tunevlseg_jax.models.parameters import FlatParams
from tunevlseg_jax.network import Network
from tunevlseg_jax.runtime.signals import never
from tunevlseg_jax.training import loop, metrics
from tunevlseg_jax.training.split import Split
from tunevlseg_jax.training.step import Hyperparameters

SplitScores = dict[str, dict[str, float]]
"""Scores by split and metric."""


def scored_splits(splits: Mapping[str, Split]) -> dict[str, Split]:
    """The splits whose scores a card lists: all but the training split."""
    return {name: split for name, split in splits.items() if name != "train"}


def score_splits(
    network: Network,
    trainable: FlatParams,
    frozen: FlatParams,
    hyper: Hyperparameters,
    splits: Mapping[str, Split],
    batch_size: int,
    check: Callable[[], None] = never,
) -> list[SplitScores]:
    """The scores of each trial on every split but the training split.

    Args:
      network: the compiled part of the model.
      trainable: trained parameters, each (trials, ...).
      frozen: the other parameters, which all trials share.
      hyper: hyperparameters, each (trials,).
      splits: by name.
      batch_size: records per batch.
      check: called after each batch; it raises to stop.
    """
    scores: list[SplitScores] = [{} for _ in range(len(hyper.seed))]
    for name, split in scored_splits(splits).items():
        means = metrics.means(loop.evaluate(network, trainable, frozen, split, hyper, batch_size, check))
        for trial, trial_scores in enumerate(scores):
            trial_scores[name] = {metric: values[trial] for metric, values in means.items()}
    return scores
