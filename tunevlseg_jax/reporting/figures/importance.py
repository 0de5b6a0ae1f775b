"""Which hyperparameters a search's scores hang on, by Optuna's functional analysis of variance."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
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
"""Trials: with fewer than FEW importance is a guess and isn't drawn; from ENOUGH on a forest is fitted to them."""
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
        copy = shutil.copy(journal, folder)
        storage = JournalStorage(JournalFileBackend(copy))
        studies = storage.get_all_studies()
        found = [trial for one in studies for trial in storage.get_all_trials(one._study_id, deepcopy=False)]
    return [trial for trial in found if trial.state == TrialState.COMPLETE and "val_dice" in trial.user_attrs]


def weigh(studies: Sequence[Sequence[FrozenTrial]]) -> Weighed | None:
    """Importance for validation Dice, over the trials of one learner on several data sets.

    Each data set's mean Dice is taken away first, so that how hard a set is doesn't hide what parameters do.

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
        found = get_param_importances(pooled, evaluator=evaluator)
    return Weighed(found, len(pooled.trials), method) if found else None


@style.styled
def importance(studies: Mapping[RowKey, Sequence[Path]]) -> Picture | None:
    """A panel of bars for each row of the tables; None where no search is long enough.

    Args:
      studies: the folders of the studies of each row of the tables, in their order.
    """
    weighed = {}
    for row, folders in studies.items():
        found = weigh([trials for folder in folders if (trials := trials_of(folder))])
        if found is not None:
            weighed[row] = found
    if not weighed:
        return None
    figure, axes = style.grid(len(weighed), 4, 1.9, sharex=True)
    names = style.names(weighed)
    for ax, (row, found) in zip(axes, weighed.items(), strict=True):
        fields = list(found.importances)[::-1]
        shown = [field.split(".", 1)[-1].replace("projector.", "").replace("_", " ") for field in fields]
        ax.barh(shown, [found.importances[field] for field in fields], color=style.colour(row.combination), height=0.65)
        style.headline(ax, names[row][0], names[row][1], f"{found.method}, n {found.trials}")
        ax.grid(axis="y", visible=False)
        ax.set_xlim(0, 1)
    figure.supxlabel("share of what explains validation Dice", fontsize=8)
    caption = (
        f"By Optuna. n counts complete trials over all data sets, from the studies' {JOURNAL}; each data set's mean "
        f"validation Dice is taken away first. fANOVA fits a forest and is used from {ENOUGH} trials on; below that "
        "PED-ANOVA tells what sets the best quarter of the trials apart."
    )
    return Picture("importance", "Importance of hyperparameters", caption, figure)
