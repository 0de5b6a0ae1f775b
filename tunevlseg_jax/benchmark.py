"""Times an experiment's programs: `python -m tunevlseg_jax.benchmark --config configs/clipseg_vpt.py`."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro
from jax.sharding import Mesh
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tunevlseg_jax import cli
from tunevlseg_jax import config as configuration
from tunevlseg_jax.benchmarks import programs, rates, tpu_table
from tunevlseg_jax.benchmarks.programs import Program
from tunevlseg_jax.config import Config
from tunevlseg_jax.learners import LEARNERS
from tunevlseg_jax.models.build import random_model
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.models.cris import CRISConfig
from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.runtime import cache, memory, sharding
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import write_json
from tunevlseg_jax.training.experiment import Experiment, assemble_experiment, build_experiment

PROGRAM = "python -m tunevlseg_jax.benchmark"
SIZES = {"clipseg-rd64": CLIPSegConfig, "cris-rn50": CRISConfig}


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
        extra `tpu`) but no TPU. train.batch_size is then per chip.
      output: JSON file for the numbers.
      profile: folder for a trace of one run of each program, for TensorBoard or Perfetto.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    sizes: Literal["clipseg-rd64", "cris-rn50"] | None = None
    learners: Literal["own", "all"] = "own"
    trials: int = 1
    repeats: int = 5
    peer: Literal["none", "transformers"] = "none"
    topology: tuple[str, ...] = ()
    output: str | None = None
    profile: str | None = None


def main() -> None:
    """Prints a table, and writes its numbers to --output."""
    options = cli.options_over_config(Options, lambda config: Options(config=config), PROGRAM, __doc__ or "")
    configuration.check(options.config)
    for name in ("repeats", "trials"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(options, name)}", "out-of-range")
    console = Console()
    rows = _plans(options, console) if options.topology else _times(options, console)
    if options.output is not None:
        write_json(Path(options.output), rows)


def _times(options: Options, console: Console) -> list[dict[str, Any]]:
    mesh = sharding.mesh()
    device = jax.devices()[0]
    peaks = {"with libraries loaded": memory.peak()}
    experiments = _experiments(options)
    peaks["with weights created"] = memory.peak()
    timed = [(owner, program) for owner in experiments for program in programs.programs(owner, mesh, options.trials)]
    peaks["with programs compiled"] = memory.peak()
    matrix, matrix_flops = programs.ceiling(experiments[0].network)
    peers = _peers(experiments[0], timed[0][1].records) if options.peer == "transformers" else {}
    runs: list[Callable[[], Any]] = [matrix, *(program.run for _, program in timed), *peers.values()]
    seconds = programs.timed(runs, options.repeats)
    peer_seconds = dict(zip(peers, seconds[1 + len(timed) :], strict=True))
    peaks["in the end"] = memory.peak()
    if options.profile is not None:
        with jax.profiler.trace(options.profile):
            for _, program in timed:
                jax.block_until_ready(program.run())
    ceiling = matrix_flops / float(np.median(seconds[0]))
    rows: list[dict[str, Any]] = [
        {**_identity(options, owner), **_row(owner, program, mesh, taken, ceiling, peer_seconds), "peak_bytes": peaks}
        for (owner, program), taken in zip(timed, seconds[1:], strict=False)
    ]
    about = f"{mesh.size} x {device.device_kind}, {experiments[0].network.dtype.name}, batch {timed[0][1].records}"
    for learner, group in itertools.groupby(rows, key=lambda row: row["learner"]):
        of_learner = list(group)
        trains = f"{of_learner[0]['trainable_bytes'] / 2**10:,.0f} KiB"
        console.print(f"[bold]{learner}[/bold], trains {trains}: {about}; medians of {options.repeats}", soft_wrap=True)
        console.print(_table(of_learner, peer_seconds), "")
    console.print("GFLOP: counted in the program before compilation; MiB: beside its arguments")
    console.print(
        f"ceiling: a {programs.CEILING_SIDE}² matrix product in the same run, {ceiling / 1e9:,.0f} GFLOP/s a device",
        soft_wrap=True,
    )
    sizes = ", ".join(f"{size / 2**30:.2f} GiB {when}" for when, size in peaks.items())
    console.print(f"peak memory of {'the fullest device' if device.memory_stats() else 'this process'}: {sizes}")
    return rows


def _row(
    experiment: Experiment,
    program: Program,
    mesh: Mesh,
    seconds: Sequence[float],
    ceiling: float,
    peers: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    median = float(np.median(seconds))
    rate = program.flops / median
    row = {
        "program": program.name,
        "device": jax.devices()[0].device_kind,
        "devices": mesh.size,
        "precision": experiment.network.dtype.name,
        "batch": program.records,
        "compilation_seconds": program.compilation,
        "seconds": median,
        "fastest": min(seconds),
        "slowest": max(seconds),
        "images_per_second": program.records / median,
        "images_per_second_per_device": program.records / median / mesh.size,
        "flops": program.flops,
        "flops_per_second": rate,
        "share_of_ceiling": rate / mesh.size / ceiling,
        "temporary_bytes": program.temporary,
        "trainable_bytes": _bytes(experiment.trainable),
        "frozen_bytes": _bytes(experiment.frozen),
    }
    for precision, peer in peers.items():
        ratios = np.asarray(seconds) / np.asarray(peer)
        row[f"peer_{precision}"] = {
            "seconds": float(np.median(peer)),
            **{"ratio": float(np.median(ratios)), "least": float(ratios.min()), "most": float(ratios.max())},
        }
    return row


def _table(rows: Sequence[dict[str, Any]], peers: Mapping[str, Sequence[float]]) -> Table:
    """One learner's programs; no wider than a terminal of 80 columns."""
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    columns = ["", "step\ns", "images/s", "of the\nceiling", "GFLOP", "MiB", "compile\ns"]
    columns += [f"of {precision}\n{np.median(peer):.3g} s" for precision, peer in peers.items()]
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        cells = [
            row["program"],
            f"{row['seconds']:.3g}\n{row['fastest']:.3g}-{row['slowest']:.3g}",
            f"{row['images_per_second']:.1f}",
            f"{row['share_of_ceiling']:.0%}",
            f"{row['flops'] / 1e9:,.0f}",
            f"{row['temporary_bytes'] / 2**20:,.0f}",
            f"{row['compilation_seconds']:.1f}",
        ]
        ratios = [row[f"peer_{precision}"] for precision in peers]
        cells += [f"{ratio['ratio']:.2f}\n{ratio['least']:.2f}-{ratio['most']:.2f}" for ratio in ratios]
        table.add_row(*cells)
    return table


def _plans(options: Options, console: Console) -> list[dict[str, Any]]:
    jax.config.update("jax_platforms", "cpu")  # nothing runs, so no other device is needed
    experiments = _experiments(options, "tpu")
    cache.disable_compilation_cache()  # a program for absent chips can't be loaded from the cache
    rows = []
    for experiment in experiments:
        with console.status("") as status:
            plans = tpu_table.plans(experiment, options.topology, options.config.train.batch_size, status.update)
        plan_rows = [{**_identity(options, experiment), **row} for row in plans]
        console.print(tpu_table.table(plan_rows))
        rows += plan_rows
    return rows


def _identity(options: Options, experiment: Experiment) -> dict[str, str]:
    return rates.identity(experiment.config, options.sizes or experiment.config.model.checkpoint)


def _experiments(options: Options, platform: str | None = None) -> list[Experiment]:
    """The configuration's experiment, or one for each learner that fits its model; they share the frozen weights."""
    config = options.config
    if options.learners == "own":
        return [_build(options, config, platform)]
    depth, _ = config.learner.traced_values()
    base = _build(options, dataclasses.replace(config, learner=LEARNERS[0](depth=depth or 1)), platform)
    vision = base.spec.vision_width is not None
    return [
        base.with_config(dataclasses.replace(config, learner=cls(depth=depth or 1)))
        for cls in LEARNERS
        if vision or "vision" not in cls.changes
    ]


def _build(options: Options, config: Config, platform: str | None) -> Experiment:
    if options.sizes is None:
        return build_experiment(config, platform=platform)
    sizes = SIZES[options.sizes]()
    tokenizer = load_pretrained("clipseg-tiny", weights=False).tokenizer
    weights = {path: np.asarray(array) for path, array in random_model(sizes, jax.random.key(0)).items()}
    return assemble_experiment(config, Pretrained(sizes, weights, tokenizer, ""), platform=platform)


def _peers(experiment: Experiment, records: int) -> dict[str, Callable[[], Any]]:
    """The peer's forward pass in float32 and under autocast, by the name of its precision."""
    from tunevlseg_jax.benchmarks import peer

    if not isinstance(experiment.network.config, CLIPSegConfig):
        raise UserError("--peer transformers needs a CLIPSeg, got a CRIS, which transformers lacks", "wrong-model")
    images = np.random.default_rng(0).integers(0, 256, (records, *experiment.image_size, 3), dtype=np.uint8)
    return peer.forwards(experiment.network.config, images, np.asarray(experiment.token_table(["polyp"])))


def _bytes(tree: dict[str, Any]) -> int:
    return sum(array.nbytes for array in tree.values())


if __name__ == "__main__":
    cli.run(main)
