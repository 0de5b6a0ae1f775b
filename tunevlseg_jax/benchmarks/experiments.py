"""The experiments that `benchmark` times, and their peer."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from tunevlseg_jax.benchmarks import peer
from tunevlseg_jax.benchmarks.peer import Peer
from tunevlseg_jax.benchmarks.peer_process import Learnt
from tunevlseg_jax.config import Config
from tunevlseg_jax.learners import LEARNERS, VPT, CoOp, Learner, learners_for
from tunevlseg_jax.models.build import random_model
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.models.cris import CRISConfig
from tunevlseg_jax.models.sam3 import SAM3Config
from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.prompts import ModelSpec
from tunevlseg_jax.runtime import multihost, sharding
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.training.build import build_experiment
from tunevlseg_jax.training.experiment import Experiment

SIZES = {"clipseg-rd64": CLIPSegConfig, "cris-rn50": CRISConfig, "sam3": SAM3Config}
"""The sizes of public models, by the name that `--sizes` takes."""


def build(config: Config, sizes: str | None, *, every_learner: bool = False) -> list[Experiment]:
    """The configuration's experiment, or one for each learner that fits its model; they share the frozen weights.

    Args:
      config: the configuration.
      sizes: a name of `SIZES` for random weights of these sizes; None for the configuration's model.
      every_learner: whether to take each learner that fits the model instead of the configuration's.
    """
    if not every_learner:
        return [_one(config, sizes)]
    base = _one(dataclasses.replace(config, learner=LEARNERS[0]()), sizes)
    return [base.with_config(each) for each in _with_learners(config, base.spec)]


def planned(config: Config, sizes: str | None, *, every_learner: bool = False) -> Iterator[Experiment]:
    """As `build`, for a TPU and without weights."""
    if not every_learner:
        yield _one(config, sizes, abstract=True)
        return
    spec = _one(dataclasses.replace(config, learner=LEARNERS[0]()), sizes, abstract=True).spec
    for each in _with_learners(config, spec):
        yield _one(each, sizes, abstract=True)


def _with_learners(config: Config, spec: ModelSpec) -> list[Config]:
    depth = max(getattr(part, "depth", 0) for part in config.learner.parts.values())
    return [dataclasses.replace(config, learner=each.at_depth(depth or 1)) for each in learners_for(spec)]


def _one(config: Config, sizes: str | None, *, abstract: bool = False) -> Experiment:
    platform = "tpu" if abstract else None
    if sizes is None:
        return build_experiment(config, platform=platform, abstract=abstract)
    model, weights = SIZES[sizes](), {}
    tokenizer = load_pretrained("clipseg-tiny", weights=False).tokenizer
    if not abstract:
        weights = {path: np.asarray(array) for path, array in random_model(model, jax.random.key(0)).items()}
    return build_experiment(config, Pretrained(model, weights, tokenizer, ""), platform=platform, abstract=abstract)


def started_peer(experiments: Sequence[Experiment]) -> contextlib.AbstractContextManager[Peer]:
    """The peer of experiments with one model; it has a training step for one experiment of CoOp or VPT.

    Raises:
      UserError: there are several processes, or the model isn't a CLIPSeg.
    """
    experiment = experiments[0]
    if multihost.is_multiprocess():
        raise UserError("--peer transformers runs in one process; leave it out with several", "one-process")
    if not isinstance(experiment.network.config, CLIPSegConfig):
        name = type(experiment.network.config).__name__.removesuffix("Config")
        raise UserError(f"--peer transformers needs a CLIPSeg, got a {name}", "wrong-model")
    records = sharding.round_up(experiment.config.train.batch_size, sharding.mesh())
    images = np.random.default_rng(0).integers(0, 256, (records, *experiment.image_size, 3), dtype=np.uint8)
    tokens = np.asarray(experiment.token_table(["polyp"]))
    learnt = _learnt(experiment.config.learner) if len(experiments) == 1 else None
    return peer.started(experiment.network.config, images, tokens, learnt)


def _learnt(learner: Learner) -> Learnt | None:
    """The prompts of a learner whose training step the peer has."""
    if type(learner) is CoOp:
        return Learnt("text", learner.num_context, learner.depth)
    return Learnt("vision", learner.num_context, learner.depth) if type(learner) is VPT else None
