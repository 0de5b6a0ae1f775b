"""Samples the parameters of trials: random ones for the first trials, then TPE."""

from functools import cached_property
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from tunevlseg_jax.learners.space import Space

START_UP = 10
"""Trials drawn at random before TPE begins, as in the paper."""


class Sampler(BaseSampler):
    """Multivariate TPE (Falkner et al. 2018) whose suggestions are reproducible across workers and restarts.

    A trial's parameters depend on the seed, the trial's number and the trials finished so far. The first START_UP
    are those that a plain sequential study with TPE of the same seed draws. The later ones count running trials as bad
    ones (Optuna's `constant_liar`), so that trials asked for at the same time differ.
    """

    def __init__(self, space: Space, seed: int):
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # progress bars and tables show the trials
        self.space: dict[str, BaseDistribution] = dict(space)
        self.seed = seed

    @cached_property
    def start_up(self) -> list[dict[str, Any]]:
        """The parameters of the first START_UP trials."""
        study = optuna.create_study(sampler=TPESampler(seed=self.seed, n_startup_trials=START_UP))
        for _ in range(START_UP):
            study.tell(study.ask(self.space), 0.0)
        return [trial.params for trial in study.trials]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The whole space."""
        return self.space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Every parameter of a trial."""
        if trial.number < START_UP:
            return self.start_up[trial.number]
        seed = int(np.random.SeedSequence([self.seed, trial.number]).generate_state(1)[0])
        tpe = TPESampler(seed=seed, n_startup_trials=START_UP, multivariate=True, constant_liar=True)
        params = tpe.sample_relative(study, trial, tpe.infer_relative_search_space(study, trial))
        for name, distribution in search_space.items():  # while fewer than START_UP have come to an end
            if name not in params and not distribution.single():
                params[name] = tpe.sample_independent(study, trial, name, distribution)
        return params

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Never needed."""
        raise NotImplementedError(f"{param_name} is sampled with the others")
