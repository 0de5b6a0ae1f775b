"""The resources that studies on one model share: its weights on the devices, and its data sets, each loaded once."""

from __future__ import annotations

import dataclasses

from tunevlseg_jax.config import Config
from tunevlseg_jax.data import registry
from tunevlseg_jax.data.feeding.augmented_feature_cache import AugmentedFeatureCache
from tunevlseg_jax.data.feeding.feed import Feed
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.learners import ZeroShot
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.training.experiment import Experiment, build_experiment
from tunevlseg_jax.training.loop import TrainSetup
from tunevlseg_jax.training.split import Split


class Resources:
    """A model, and the splits that were asked for; what a frozen model sees in them is computed once for all learners.

    Attributes:
      mesh: the devices.
      base: the model as it is, its frozen weights on the devices.
    """

    def __init__(self, config: Config, trials: int = 1, scratch: float = 0.0):
        """Loads the model.

        Args:
          config: names the model and what of it trains; learner and data may be others later.
          trials: how many are to be trained at once, for the devices' trial axis.
          scratch: GiB on the cache folder's disk that may hold what is seen in augmented images.

        Raises:
          UserError: the model can't be had.
        """
        self.mesh = sharding.mesh(trials)
        base = build_experiment(dataclasses.replace(config, learner=ZeroShot(), upsampling="none"), trains=False)
        self.base = base.on_mesh(self.mesh)
        self.scratch = scratch
        self.sights: dict[Data, AugmentedFeatureCache] = {}
        self.feeds: dict[tuple[Data, str, bool], Feed] = {}
        self.views: dict[tuple[Data, bool, int | None, int], tuple[Feed, ...]] = {}

    def experiment(self, config: Config) -> Experiment:
        """The model with a configuration's learner and upsampler.

        Raises:
          UserError: the learner doesn't fit the model.
        """
        return self.base.with_config(config)

    def split(self, made: Experiment, name: str, data: Data | None = None) -> Split:
        """A split for an experiment on this model, of its own data set or of another.

        Raises:
          UserError: there is no such split, or a prompt is too long.
        """
        feed = self._feed(data or made.config.data, name, encode_once=made.config.features_cacheable(name))
        return Split(feed, made.encode_text(feed.records.phrases, self.mesh))

    def splits(self, made: Experiment) -> dict[str, Split]:
        """What a run is trained on and scored on: train, val, and test where there is one."""
        names = ("train", "val", "test") if "test" in registry.splits(made.config.data) else ("train", "val")
        return {name: self.split(made, name) for name in names}

    def setup(self, config: Config, made: Experiment) -> TrainSetup:
        """What stays the same over the runs of a study."""
        train, val = (self.split(made, name) for name in ("train", "val"))
        sights = self._sights(train.feed, config) if self._looks_apart(config) else None
        return TrainSetup(config, made.network, made.frozen, self._in_views(made, train), val, self.mesh, sights)

    def forget_training(self) -> None:
        """Drops all splits but those for testing, to free their memory."""
        self.feeds = {key: feed for key, feed in self.feeds.items() if key[1] == "test"}
        self.views.clear()
        self.sights.clear()

    def _in_views(self, made: Experiment, train: Split) -> Split:
        settings = made.config.train
        key = made.config.data, train.feed.encode_images is not None, settings.augmented_views, settings.seed_of_order
        if key not in self.views:
            self.views[key] = made.in_views(train).views
        return dataclasses.replace(train, views=self.views[key])

    def _looks_apart(self, config: Config) -> bool:
        """Whether images are looked at before the step, for all of its parts on a CPU and for later trials."""
        return config.features_shareable and config.train.augments_each_step and sharding.is_single_cpu(self.mesh)

    def _sights(self, feed: Feed, config: Config) -> AugmentedFeatureCache:
        if config.data not in self.sights:  # of one set at a time
            self.sights = {config.data: AugmentedFeatureCache(feed, self.base.encode_images, self.scratch * 2**30)}
        return self.sights[config.data]

    def _feed(self, data: Data, name: str, *, encode_once: bool) -> Feed:
        key = data, name, encode_once
        if key not in self.feeds:
            if encode_once:
                self.feeds[key] = dataclasses.replace(
                    self._feed(data, name, encode_once=False), encode_images=self.base.encode_images
                )
            else:
                records = registry.load(data, name, self.base.image_size)
                self.feeds[key] = Feed(records, self.mesh, data.placement, data.workers)
        return self.feeds[key]
