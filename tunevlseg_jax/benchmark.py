"""Times an experiment's programs: `python -m tunevlseg_jax.benchmark --config configs/clipseg_vpt.py`."""

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro
from rich.console import Console

from tunevlseg_jax import cli
from tunevlseg_jax import config as configuration
from tunevlseg_jax.benchmarks import compare, measure, rate_table, rates, tpu_table
from tunevlseg_jax.config import Config
from tunevlseg_jax.learners import LEARNERS, learners_for
from tunevlseg_jax.models.build import random_model
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.models.cris import CRISConfig
from tunevlseg_jax.models.sam3 import SAM3Config
from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.prompts import ModelSpec
from tunevlseg_jax.runtime import cache, multihost, sharding
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import write_json
from tunevlseg_jax.runtime.multihost import Cluster
from tunevlseg_jax.training.experiment import Experiment, assemble_experiment, build_experiment

PROGRAM = "python -m tunevlseg_jax.benchmark"
SIZES = {"clipseg-rd64": CLIPSegConfig, "cris-rn50": CRISConfig, "sam3": SAM3Config}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the benchmark.

    Attributes:
      config: configuration; its batch size is the one that is timed.
      sizes: time a public model's sizes with random weights instead of model.checkpoint, which need not exist.
      learners: "own" times the configuration's learner, "all" each learner that fits the model.
      trials: also time the training of this many trials in one program, as in a sweep on an accelerator.
      repeats: number of runs of each program; the programs take turns.
      peer: "transformers" also times the forward pass of Hugging Face's CLIPSeg on the same device and images, in
        float32 and under autocast (bfloat16 on a CPU, float16 on a GPU).
      topology: compile the training step for these TPU slices instead, such as v5e:16x16 v5p:4x4x4; needs libtpu (the
        extra `tpu`) but no TPU, and reads no weights. train.batch_size is then per chip.
      compile: with topology, False counts the operations of the traced step instead, which takes seconds and needs no
        libtpu. Memory, traffic and collectives are then unknown.
      largest_batch: with topology, compile each step for twice the batch as well, for the largest batch that fits.
      output: JSON file for the numbers.
      profile: folder for a trace of one run of each program, for TensorBoard or Perfetto.
      scaling: also time the training step on 1, 2, 4 and so on of the devices, each with the same number of records.
      cluster: how several processes find each other.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    sizes: Literal["clipseg-rd64", "cris-rn50", "sam3"] | None = None
    learners: Literal["own", "all"] = "own"
    trials: int = 1
    repeats: int = 5
    peer: Literal["none", "transformers"] = "none"
    topology: tuple[str, ...] = ()
    compile: bool = True
    largest_batch: bool = True
    output: str | None = None
    profile: str | None = None
    scaling: bool = False
    cluster: Annotated[Cluster, tyro.conf.arg(name="")] = field(default_factory=Cluster)


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Prints the bound of a plan beside the measured training step of the same model, learner, chips and batch.

    Attributes:
      plan: JSON file of a benchmark with --topology and --output.
      measured: JSON file of a benchmark on real devices with --output.
      output: JSON file for the numbers.
    """

    plan: tyro.conf.Positional[str]
    measured: tyro.conf.Positional[str]
    output: str | None = None


def main() -> None:
    """Prints a table, and writes its numbers to --output; `compare` prints a plan beside a measurement."""
    console = Console()
    if sys.argv[1:2] == ["compare"]:
        del sys.argv[1]
        files = cli.options(Compare, f"{PROGRAM} compare", Compare.__doc__ or "")
        rows = compare.compare(Path(files.plan), Path(files.measured))
        console.print(compare.table(rows))
        if files.output is not None:
            write_json(Path(files.output), rows)
        return
    options = cli.options_over_config(Options, lambda config: Options(config=config), PROGRAM, __doc__ or "")
    configuration.check(options.config)
    for name in ("repeats", "trials"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(options, name)}", "out-of-range")
    if options.topology:
        rows = _plans(options, console)
    else:
        multihost.join(options.cluster)
        console.quiet = not multihost.is_primary()
        with multihost.sync_errors():
            experiments = _experiments(options)
            peers = _peers(options, experiments[0])
        rows = _measured(options, experiments, peers, console)
    if options.output is not None and multihost.is_primary():
        write_json(Path(options.output), rows)


def _measured(
    options: Options, experiments: list[Experiment], peers: measure.Runs, console: Console
) -> list[dict[str, Any]]:
    counts = {"trials": options.trials, "repeats": options.repeats}
    measured = measure.measure(experiments, sharding.mesh(), **counts, peers=peers, trace=options.profile)
    each = len(measured) // len(experiments)
    rows = [
        _identity(options, owner) | row
        for number, owner in enumerate(experiments)
        for row in measured[number * each : (number + 1) * each]
    ]
    rate_table.show(rows, options.repeats, console)
    if options.scaling:
        scaled = [_identity(options, experiments[0]) | row for row in measure.scaling(experiments[0], options.repeats)]
        console.print(rate_table.scaling_table(scaled))
        rows += scaled
    return rows


def _plans(options: Options, console: Console) -> list[dict[str, Any]]:
    jax.config.update("jax_platforms", "cpu")  # nothing runs, so no other device is needed
    if options.compile:
        cache.disable_compilation_cache()  # a program for absent chips can't be loaded from the cache
    rows = []
    for config in _configs(options, lambda config: _build(options, config, abstract=True).spec):
        experiment = _build(options, config, abstract=True)
        with console.status(f"tracing {config.learner.name}") as status:
            if options.compile:
                planned = experiment, options.topology, config.train.batch_size, status.update
                plans = tpu_table.plans(*planned, larger=options.largest_batch)
            else:
                plans = tpu_table.counts(experiment, options.topology, config.train.batch_size)
        plan_rows = [{**_identity(options, experiment), **row} for row in plans]
        console.print(tpu_table.table(plan_rows))
        rows += plan_rows
        if options.output is not None:  # after each learner, because a compilation may take minutes
            write_json(Path(options.output), rows)
    return rows


def _identity(options: Options, experiment: Experiment) -> dict[str, str]:
    return rates.identity(experiment.config, options.sizes or experiment.config.model.checkpoint)


def _experiments(options: Options) -> list[Experiment]:
    """An experiment for each of the configurations; they share the frozen weights."""
    if options.learners == "own":
        return [_build(options, options.config)]
    base = _build(options, dataclasses.replace(options.config, learner=LEARNERS[0]()))
    return [base.with_config(config) for config in _configs(options, lambda config: base.spec)]


def _configs(options: Options, spec_of: Callable[[Config], ModelSpec]) -> list[Config]:
    """The configuration, or one for each learner that fits its model."""
    config = options.config
    if options.learners == "own":
        return [config]
    depth = max(getattr(part, "depth", 0) for part in config.learner.parts.values())
    spec = spec_of(dataclasses.replace(config, learner=LEARNERS[0]()))
    return [dataclasses.replace(config, learner=cls().at_depth(depth or 1)) for cls in learners_for(spec)]


def _build(options: Options, config: Config, *, abstract: bool = False) -> Experiment:
    """The experiment of a configuration; an abstract one is for a TPU."""
    platform = "tpu" if abstract else None
    if options.sizes is None:
        return build_experiment(config, platform=platform, abstract=abstract)
    sizes, weights = SIZES[options.sizes](), {}
    tokenizer = load_pretrained("clipseg-tiny", weights=False).tokenizer
    if not abstract:
        weights = {path: np.asarray(array) for path, array in random_model(sizes, jax.random.key(0)).items()}
    return assemble_experiment(config, Pretrained(sizes, weights, tokenizer, ""), platform=platform, abstract=abstract)


def _peers(options: Options, experiment: Experiment) -> measure.Runs:
    """The peer's forward pass in float32 and under autocast, by the name of its precision; none without --peer."""
    if options.peer == "none":
        return {}
    from tunevlseg_jax.benchmarks import peer

    if multihost.is_multiprocess():
        raise UserError("--peer transformers runs in one process; leave it out with several", "one-process")
    if not isinstance(experiment.network.config, CLIPSegConfig):
        name = type(experiment.network.config).__name__.removesuffix("Config")
        raise UserError(f"--peer transformers needs a CLIPSeg, got a {name}", "wrong-model")
    records = sharding.round_up(experiment.config.train.batch_size, sharding.mesh())
    images = np.random.default_rng(0).integers(0, 256, (records, *experiment.image_size, 3), dtype=np.uint8)
    return peer.forwards(experiment.network.config, images, np.asarray(experiment.token_table(["polyp"])))


if __name__ == "__main__":
    cli.run(main)
