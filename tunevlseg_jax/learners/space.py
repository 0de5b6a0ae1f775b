"""What a search may vary: Optuna's distributions by field, as data."""

from collections.abc import Mapping

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

Value = bool | int | float | str | None
Distribution = FloatDistribution | IntDistribution | CategoricalDistribution
Space = Mapping[str, Distribution]
"""The distributions of a search, by the field they are for, such as "learner.depth"."""

OPTIMIZER: Space = {
    "optim.learning_rate": FloatDistribution(1e-5, 5e-3, log=True),
    "optim.weight_decay": FloatDistribution(1e-5, 1e-2, log=True),
}
"""The paper's search space of every learner (Table 2); the learner's own fields are in its `space`."""
