"""Scores a trained run on a split: `python -m tunevlseg_jax.evaluate --run runs/quickstart`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console

from tunevlseg_jax import cli
from tunevlseg_jax.data.settings import Data, Protocol
from tunevlseg_jax.evaluation.settings import THRESHOLD, TOLERANCE, Resolution, check_threshold, check_tolerance
from tunevlseg_jax.models.settings import Masks
from tunevlseg_jax.runtime import exchange, multihost
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.multihost import Cluster

if TYPE_CHECKING:
    from tunevlseg_jax.run import Run


@dataclass(frozen=True)
class OtherData:
    """Settings that replace those of the run's data set.

    Attributes:
      name: another data set.
      root: another folder of prepared sets.
      protocol: "paper" or "clean".
      prompt_index: another kind of prompts.
      cache: another folder for prepared sets at the model's size.
    """

    name: str | None = None
    root: str | None = None
    protocol: Protocol | None = None
    prompt_index: int | None = None
    cache: str | None = None

    def over(self, data: Data) -> Data:
        """The run's data with these settings."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        return dataclasses.replace(data, **given)


@dataclass(frozen=True)
class Options:
    """The run, the split and the resolution.

    Attributes:
      run: folder of the run, or a hub id such as owner/name.
      data: another data set.
      split: train, val or test.
      resolution: "model" scores at the model's input size; "original" resizes the logits to each mask's size.
      ask_absent: whether to ask for every class of the split in every image, absent classes included. This adds
        multi-class IoU, where each pixel goes to the likeliest class over the threshold, and the rate of false
        positives.
      threshold: probability above which a pixel is marked. The files of another threshold than 0.5 have it in their
        name, and a report leaves them out.
      tolerance: distance within which two outlines agree in NSD, the normalised surface Dice: in millimetres where the
        spacing is known, else in pixels. The files of another tolerance than 2 have it in their name, and a report
        leaves them out.
      calibrate: whether to fit a temperature on the validation split of the run's data first. It is kept in the card,
        evaluate then also gives the scores of calibrated probabilities, and predict --probabilities writes these.
      corrupt: whether to score corrupted images as well: blur, noise, contrast, JPEG, resolution and brightness, each
        at five strengths. The scores are Dice at the model's size.
      phrases: JSON file of paraphrases of the prompts, to score each of them: a list of templates such as "a photo of a
        {}", or an object with a list of phrases for each class.
      masks: "semantic", one mask for what a prompt names; or "instances", the union of the instances that a SAM 3 finds
        with a score over 0.5. With ask_absent these have scores of the presence as well. Their files have "instances"
        in their name, and a report leaves them out.
      checkpoint: the base model's new place, if it has moved since training.
      output: folder for the scores; None for `evaluations` in the run's folder, and `robustness` for those of corrupt
        and phrases. Those of a run on the hub are in `evaluations/owner_name`.
      cluster: how several processes find each other.
    """

    run: str
    data: OtherData = field(default_factory=OtherData)
    split: str = "test"
    resolution: Resolution = "model"
    ask_absent: bool = False
    threshold: float = 0.5
    tolerance: float = TOLERANCE
    calibrate: bool = False
    corrupt: bool = False
    phrases: str | None = None
    masks: Masks = "semantic"
    checkpoint: str | None = None
    output: str | None = None
    cluster: Annotated[Cluster, tyro.conf.arg(name="")] = field(default_factory=Cluster)


def main() -> None:
    """Scores a run, prints a table, and writes the scores of the set, of each class and of each record."""
    options = cli.options(Options, "python -m tunevlseg_jax.evaluate", __doc__ or "")
    check_threshold(options.threshold, "--threshold")
    check_tolerance(options.tolerance, "--tolerance")
    _check_robustness(options)
    if options.output is not None and Path(options.output).is_file():
        raise UserError(f"--output {options.output} is a file; give the name of a folder", "not-a-folder")
    multihost.join(options.cluster)
    exchange.check_same(options, but=("data.root", "data.cache", "output"))

    from tunevlseg_jax.data import registry
    from tunevlseg_jax.run import load_run

    with multihost.sync_errors():
        run = load_run(options.run, checkpoint=options.checkpoint, masks=options.masks)
        data = options.data.over(run.data)
        if options.data.prompt_index is not None:
            registry.check_prompt_kind(data)
    console = Console(quiet=not multihost.is_primary())
    if options.corrupt or options.phrases is not None:
        _score_robustness(options, run, data, console)
    _score(options, run, data, console)


def _score(options: Options, run: Run, data: Data, console: Console) -> None:
    """Scores the split, and prints and writes the scores."""
    from tunevlseg_jax.evaluation import display
    from tunevlseg_jax.evaluation.evaluate_run import FOLDER
    from tunevlseg_jax.runs import locate, provenance

    fitted = run.calibrate() if options.calibrate else None
    folder = Path(options.output) if options.output else locate.output_folder(options.run, FOLDER)
    result = run.evaluation(
        data,
        options.split,
        resolution=options.resolution,
        ask_absent=options.ask_absent,
        threshold=options.threshold,
        tolerance=options.tolerance,
        output=folder,
    )
    title = f"{options.run} on {data.name}, {options.split} ({result.scores['records']} records)"
    console.print(display.regions(title, options.resolution, options.threshold, result))
    if options.ask_absent:
        console.print(display.absent(result))
    console.print(display.outlines(options.tolerance, result))
    console.print(f"computed in {run.computed}", soft_wrap=True)
    display.print_notes(console, result.scores)
    display.print_calibration(console, result.scores, run.temperature, fitted)
    display.print_volumes(console, result)
    if lost := result.vanished:
        count = f"{len(lost)} record{'s' * (len(lost) > 1)}"
        console.print(
            f"warning: the objects of {count}, such as {lost[0]!r}, vanish at the model's size"
            + ", where their masks count as empty; --resolution original scores them" * (options.resolution == "model"),
            soft_wrap=True,
        )
    for line in provenance.lines(run.folder, options.split, result.marks):
        console.print(f"warning: {line}; the scores are marked", soft_wrap=True, style="yellow")
    console.print(
        f"scores: {folder / result.name}.json, of each class: {result.name}_classes.csv, "
        f"of each record: {result.name}.csv"
        + (f", of each volume: {result.name}_volumes.csv" if result.volumes and result.volumes.samples else ""),
        soft_wrap=True,
    )


def _score_robustness(options: Options, run: Run, data: Data, console: Console) -> None:
    """Scores corrupted images and paraphrases, and prints and writes the scores."""
    from tunevlseg_jax.evaluation import display, robustness
    from tunevlseg_jax.runs import locate

    folder = Path(options.output) if options.output else locate.output_folder(options.run, robustness.FOLDER)
    results = run.robustness(data, options.split, corrupt=options.corrupt, phrases=options.phrases, output=folder)
    for kind, result in results.items():
        show = display.corruptions if kind == "corrupted" else display.phrases
        console.print(show(result.scores))
        console.print(f"scores: {folder / result.name}.json, of each record: {result.name}.csv", soft_wrap=True)


def _check_robustness(options: Options) -> None:
    """Raises a UserError where options of other scores are given with those of robustness."""
    if options.calibrate and options.masks != "semantic":
        raise UserError(f"--calibrate fits semantic masks; leave out --masks {options.masks}", "options-conflict")
    given = [f"--{name}" for name in ("corrupt", "phrases") if getattr(options, name)]
    others = {"--ask-absent": options.ask_absent, "--resolution original": options.resolution == "original"}
    others |= {"--threshold": options.threshold != THRESHOLD, "--masks instances": options.masks != "semantic"}
    if given and (conflicts := [name for name, is_given in others.items() if is_given]):
        raise UserError(
            f"{given[0]} scores the records' own classes at the model's size and threshold 0.5; give {conflicts[0]} in "
            "a call of its own",
            "options-conflict",
        )


if __name__ == "__main__":
    cli.run(main)
