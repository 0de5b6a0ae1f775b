"""Times an experiment's programs: `python -m tunevlseg_jax.benchmark --config configs/clipseg_vpt.py`."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console

from tunevlseg_jax import cli
from tunevlseg_jax import config as configuration
from tunevlseg_jax.config import Config
from tunevlseg_jax.runtime import cache, exchange, multihost
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import check_output, write_json
from tunevlseg_jax.runtime.multihost import Cluster

if TYPE_CHECKING:
    from tunevlseg_jax.training.experiment import Experiment

PROGRAM = "python -m tunevlseg_jax.benchmark"


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
        float32 and under autocast (bfloat16 on a CPU, float16 on a GPU), and for CoOp and VPT its training step.
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
    """Prints the bound of a plan beside the measured training step of the same program on the same kind of chip.

    Attributes:
      plan: JSON file of a benchmark with --topology and --output.
      measured: JSON file of a benchmark on real devices with --output.
      output: JSON file for the numbers.
    """

    plan: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PLAN")]
    measured: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MEASURED")]
    output: str | None = None


def main() -> None:
    """Prints a table, and writes its numbers to --output; `compare` prints a plan beside a measurement."""
    console = Console()
    if sys.argv[1:2] == ["compare"]:
        del sys.argv[1]
        files = cli.options(Compare, f"{PROGRAM} compare", (Compare.__doc__ or "").partition("\n")[0])
        from tunevlseg_jax.benchmarks import compare

        rows = compare.compare(Path(files.plan), Path(files.measured))
        console.print(compare.table(rows))
        if files.output is not None:
            write_json(Path(files.output), rows)
        return
    options = cli.options_over_config(Options, lambda config: Options(config=config), PROGRAM, __doc__ or "")
    configuration.check(options.config)
    _check(options)
    if not options.topology:
        multihost.join(options.cluster)
        console.quiet = not multihost.is_primary()
        exchange.check_same(options, but=("config.data.", "output", "profile"))
    with multihost.sync_errors():
        if options.output is not None and multihost.is_primary():
            check_output(Path(options.output))
        if options.profile is not None:
            check_output(Path(options.profile) / "trace")
    rows = _plans(options, console) if options.topology else _measured(options, console)
    if options.output is not None and multihost.is_primary():
        write_json(Path(options.output), rows)


def _check(options: Options) -> None:
    """Raises a UserError for invalid options, and for those that don't go together, before anything is timed."""
    for name in ("repeats", "trials"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(options, name)}", "out-of-range")
    for_devices = {
        "--repeats": options.repeats != Options.repeats,
        "--trials": options.trials > 1,
        "--peer": options.peer != "none",
        "--profile": options.profile is not None,
        "--scaling": options.scaling,
        **dict.fromkeys(multihost.given(options.cluster), True),
    }
    for_plans = {"--no-compile": not options.compile, "--no-largest-batch": not options.largest_batch}
    if options.topology and (given := [name for name, is_given in for_devices.items() if is_given]):
        reason = "--topology plans a step for absent devices and times nothing"
        raise UserError(f"{reason}; leave out {given[0]}, or --topology", "options-conflict")
    if not options.topology and (given := [name for name, is_given in for_plans.items() if is_given]):
        raise UserError(f"{given[0]} is for plans; give --topology too, such as v5e:4x4", "options-conflict")
    if options.peer != "none" and options.sizes not in (None, "clipseg-rd64"):
        raise UserError(f"--peer {options.peer} needs a CLIPSeg, got --sizes {options.sizes}", "wrong-model")
    if options.profile is not None and Path(options.profile).is_file():
        raise UserError(f"--profile {options.profile} is a file; give the name of a folder", "not-a-folder")
    if options.output is not None and Path(options.output).is_dir():
        raise UserError(f"--output {options.output} is a folder; give the name of a file in it", "unwritable")


def _measured(options: Options, console: Console) -> list[dict[str, Any]]:
    from tunevlseg_jax.benchmarks import experiments, measure, rate_table
    from tunevlseg_jax.benchmarks.peer import Peer
    from tunevlseg_jax.runtime import sharding

    with multihost.sync_errors():
        timed = experiments.build(options.config, options.sizes, every_learner=options.learners == "all")
        peer = contextlib.nullcontext(Peer()) if options.peer == "none" else experiments.started_peer(timed)
    counts = {"trials": options.trials, "repeats": options.repeats}
    with peer as started:
        measured = measure.measure(timed, sharding.mesh(), **counts, peer=started, trace=options.profile)
    each = len(measured) // len(timed)
    rows = [
        _identity(options, owner) | row
        for number, owner in enumerate(timed)
        for row in measured[number * each : (number + 1) * each]
    ]
    rate_table.show(rows, options.repeats, console)
    if options.scaling:
        scaled = [_identity(options, timed[0]) | row for row in measure.scaling(timed[0], options.repeats)]
        console.print(rate_table.scaling_table(scaled))
        rows += scaled
    return rows


def _plans(options: Options, console: Console) -> list[dict[str, Any]]:
    import jax

    from tunevlseg_jax.benchmarks import experiments, tpu_table

    jax.config.update("jax_platforms", "cpu")  # nothing runs, so no other device is needed
    if options.compile:
        cache.disable_compilation_cache()  # a program for absent chips can't be loaded from the cache
    rows = []
    for experiment in experiments.planned(options.config, options.sizes, every_learner=options.learners == "all"):
        with console.status(f"tracing {experiment.config.learner.name}") as status:
            if options.compile:
                planned = experiment, options.topology, options.config.train.batch_size, status.update
                plans = tpu_table.plans(*planned, larger=options.largest_batch)
            else:
                plans = tpu_table.counts(experiment, options.topology, options.config.train.batch_size)
        plan_rows = [{**_identity(options, experiment), **row} for row in plans]
        console.print(tpu_table.table(plan_rows))
        rows += plan_rows
        if options.output is not None:  # after each learner, because a compilation may take minutes
            write_json(Path(options.output), rows)
    return rows


def _identity(options: Options, experiment: Experiment) -> dict[str, Any]:
    from tunevlseg_jax.benchmarks import rates

    named = rates.identity(experiment.config, options.sizes or experiment.config.model.checkpoint)
    return named | rates.settings(experiment.config, experiment.image_size, experiment.network.dtype.name)


if __name__ == "__main__":
    cli.run(main)
