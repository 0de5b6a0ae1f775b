"""The importance of hyperparameters for a search's scores, by Optuna's functional analysis of variance."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from tunevlseg_jax.reporting.cells import RowKey
from tunevlseg_jax.reporting.figures import style
from tunevlseg_jax.reporting.figures.style import Picture
from tunevlseg_jax.search.storage import JOURNAL

FEW, ENOUGH = 8, 40
"""Trials: below FEW importance isn't drawn, since it is a guess; from ENOUGH on a forest is fitted."""
SEED = 0


class Weighed(NamedTuple):
    """The importances of a learner's hyperparameters, which sum to 1, and the trials that they come from."""

    importances: Mapping[str, float]
    trials: int
    method: str


def trials_of(study: Path) -> list[FrozenTrial]:
    """The complete trials in a study's journal, which stays untouched; none where it has no journal."""
    journal = study / JOURNAL
    if not journal.is_file():
        return []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        storage = JournalStorage(JournalFileBackend(shutil.copy(journal, folder)))
        ids = [stored._study_id for stored in storage.get_all_studies()]
        trials = [trial for id in ids for trial in storage.get_all_trials(id, deepcopy=False)]
    return [trial for trial in trials if trial.state == TrialState.COMPLETE and "val_dice" in trial.user_attrs]


def weigh(studies: Sequence[Sequence[FrozenTrial]]) -> Weighed | None:
    """Importance for validation Dice, over the trials of one learner on several data sets.

    Each data set's mean Dice is subtracted first, so that differences between sets don't hide those of parameters.

    Returns:
      None where there are fewer than FEW trials, or they don't differ.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pooled = optuna.create_study(direction="maximize")
    for trials in studies:
        mean = fmean(trial.user_attrs["val_dice"] for trial in trials)
        for trial in trials:
            value = trial.user_attrs["val_dice"] - mean
            pooled.add_trial(optuna.create_trial(params=trial.params, distributions=trial.distributions, value=value))
    values = {trial.value for trial in pooled.trials}
    if len(pooled.trials) < FEW or len(values) < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if len(pooled.trials) >= ENOUGH:
            method, evaluator = "fANOVA", FanovaImportanceEvaluator(seed=SEED)
        else:
            method, evaluator = "PED-ANOVA", PedAnovaImportanceEvaluator(target_quantile=0.25)
        importances = get_param_importances(pooled, evaluator=evaluator)
    return Weighed(importances, len(pooled.trials), method) if importances else None


@style.styled
def importance(studies: Mapping[RowKey, Iterable[Path]]) -> Picture | None:
    """A panel of bars for each row of the tables, from its studies' folders; None where no search is long enough."""
    weighed = {}
    for row, folders in studies.items():
        if weights := weigh([trials for folder in folders if (trials := trials_of(folder))]):
            weighed[row] = weights
    if not weighed:
        return None
    figure, axes = style.grid(len(weighed), 4, 1.9, sharex=True)
    names = style.names(weighed)
    for ax, (row, weights) in zip(axes, weighed.items(), strict=True):
        fields = list(weights.importances)[::-1]
        shown = [field.split(".", 1)[-1].replace("projector.", "").replace("_", " ") for field in fields]
        ax.barh(
            shown, [weights.importances[field] for field in fields], color=style.colour(row.combination), height=0.65
        )
        style.headline(ax, names[row][0], names[row][1], f"{weights.method}, n {weights.trials}")
        ax.grid(axis="y", visible=False)
        ax.set_xlim(0, 1)
    figure.supxlabel("share of what explains validation Dice", fontsize=8)
    caption = (
        f"By Optuna. n counts complete trials over all data sets, from the studies' {JOURNAL}; each data set's mean "
        f"validation Dice is subtracted first. fANOVA fits a forest and is used from {ENOUGH} trials on; below that "
        "PED-ANOVA compares the best quarter of the trials with the others."
    )
    return Picture("importance", "Importance of hyperparameters", caption, figure)
