"""The resources that searches on one model share: its weights on the devices, its data sets and their features."""

import dataclasses

from tunevlseg_jax.config import Config, Precision
from tunevlseg_jax.learners import ZeroShot
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.training.build import build_experiment
from tunevlseg_jax.training.experiment import Experiment


class Resources:
    """A model and its data.

    Attributes:
      mesh: the devices.
      base: the model without a learner, its frozen weights on the devices.
      cache: the splits, and the features of their images.
      notes: lines on them that were printed, so that no study prints one again.
    """

    def __init__(self, config: Config, trials: int = 1, scratch: float = 0.0, kept: Precision | None = None):
        """Loads the model.

        Args:
          config: names the model and its trained part; `experiment` takes other learners and data.
          trials: number of trials to train at once, for the trial axis of the mesh.
          scratch: GiB on the cache folder's disk for the features of augmented images.
          kept: the precision of earlier trials on a CPU, see `precision.choose`.

        Raises:
          UserError: the model can't be had.
        """
        self.mesh = sharding.mesh(trials)
        bare = dataclasses.replace(config, learner=ZeroShot(), upsampling="none")
        base = build_experiment(bare, trains=False, kept=kept)
        self.base = base.on_mesh(self.mesh)
        self.cache = self.base.feature_cache(self.mesh, scratch * 2**30)
        self.notes: set[str] = set()

    def experiment(self, config: Config) -> Experiment:
        """The model with a configuration's learner and upsampler.

        Raises:
          UserError: the learner doesn't fit the model.
        """
        return self.base.with_config(config)
