"""Scores a trained run on a split: `python -m tunevlseg_jax.evaluate --run runs/quickstart`."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from tunevlseg_jax import cli
from tunevlseg_jax.data.settings import Data, Protocol
from tunevlseg_jax.evaluation import volume_scores
from tunevlseg_jax.evaluation.evaluate_run import FOLDER, EvaluationResult, Resolution
from tunevlseg_jax.run import check_threshold, load_run
from tunevlseg_jax.runs import provenance
from tunevlseg_jax.runtime import multihost
from tunevlseg_jax.runtime.multihost import Cluster


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
      run: folder of the run.
      data: another data set.
      split: train, val or test.
      resolution: "model" scores at the model's input size; "original" resizes the logits to each mask's size.
      ask_absent: whether to ask for every class of the split in every image, absent classes included. This adds
        multi-class IoU, where each pixel goes to the likeliest class over the threshold, and the rate of false
        positives.
      threshold: probability above which a pixel is marked. The files of another threshold than 0.5 have it in their
        name, and a report leaves them out.
      checkpoint: the base model's new place, if it has moved since training.
      output: folder for the scores; None for `evaluations` in the run's folder.
      cluster: how several processes find each other.
    """

    run: str
    data: OtherData = field(default_factory=OtherData)
    split: str = "test"
    resolution: Resolution = "model"
    ask_absent: bool = False
    threshold: float = 0.5
    checkpoint: str | None = None
    output: str | None = None
    cluster: Annotated[Cluster, tyro.conf.arg(name="")] = field(default_factory=Cluster)


def main() -> None:
    """Scores a run, prints a table, and writes the scores of the set, of each class and of each record."""
    options = cli.options(Options, "python -m tunevlseg_jax.evaluate", __doc__ or "")
    check_threshold(options.threshold, "--threshold")
    multihost.join(options.cluster)
    with multihost.sync_errors():
        run = load_run(options.run, checkpoint=options.checkpoint)
    data = options.data.over(run.data)
    folder = Path(options.output) if options.output else Path(options.run) / FOLDER
    result = run.evaluation(
        data,
        options.split,
        resolution=options.resolution,
        ask_absent=options.ask_absent,
        threshold=options.threshold,
        output=folder,
    )
    console = Console(quiet=not multihost.is_primary())
    title = f"{options.run} on {data.name}, {options.split} ({result.scores['records']} records)"
    caption = f"At {result.size} pixels ({options.resolution}), threshold {options.threshold:g}. {NOTES}"
    console.print(_table(title, caption, result.scores, result.rows))
    console.print(f"computed in {run.computed}", soft_wrap=True)
    _print_notes(console, result.scores)
    _print_volumes(console, result)
    if lost := result.vanished:
        count = f"{len(lost)} record{'s' * (len(lost) > 1)}"
        console.print(
            f"warning: the objects of {count}, such as {lost[0]!r}, vanish at the model's size"
            + ", where their masks count as empty; --resolution original scores them" * (options.resolution == "model"),
            soft_wrap=True,
        )
    for line in provenance.lines(Path(options.run), options.split, result.marks):
        console.print(f"warning: {line}; the scores are marked", soft_wrap=True, style="yellow")
    console.print(
        f"scores: {folder / result.name}.json, of each class: {result.name}_classes.csv, "
        f"of each record: {result.name}.csv"
        + (f", of each volume: {result.name}_volumes.csv" if result.volumes and result.volumes.samples else ""),
        soft_wrap=True,
    )


COLUMNS = {
    "dice": "Dice",
    "iou": "IoU\nof set",
    "sample_iou": "IoU",
    "hd95_both_nonempty": "HD95\npx",
    "assd_px": "ASSD\npx",
    "hd95_mm": "HD95\nmm",
    "assd_mm": "ASSD\nmm",
    "surface_dice_2px": "sDice\n2 px",
    "multi_class_iou": "multi\nIoU",
    "false_positive_rate": "false\npos.",
}
"""Headers of the table's columns."""
NOTES = (
    "Dice, IoU, surface Dice: means over n records, 1 where both masks are empty. IoU of set: one ratio over all "
    "pixels. HD95, ASSD (average symmetric surface distance): means over the records where neither mask is empty."
)
"""How the columns are computed."""


def _table(title: str, caption: str, scores: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=title, caption=caption)
    names = [name for name in COLUMNS if name in rows[0]]
    table.add_column("")
    table.add_column("n", justify="right")
    for name in names:
        table.add_column(COLUMNS[name], justify="right")
    everything = {"class": "all", "multi_class_iou": scores.get("miou")} | dict(scores)
    for row in (*(rows if len(rows) > 1 else ()), everything):
        cells = (row.get(name) for name in names)
        table.add_row(row["class"], str(row["records"]), *map(_shown, cells))
    return table


def _print_volumes(console: Console, result: EvaluationResult) -> None:
    """Prints the scores of whole volumes, and which slices they are over."""
    if result.volumes is not None and result.volumes.samples:
        table = Table(title="whole volumes, in three dimensions")
        for header in ("", "volumes", "Dice", "HD95 mm", "ASSD mm"):
            table.add_column(header, justify="right" if header else "left")
        everything: dict[str, Any] = {"class": "all"} | result.scores
        for row in (*(result.rows if len(result.rows) > 1 else ()), everything):
            cells = (_shown(row[name]) for name in volume_scores.POLICIES)
            table.add_row(row["class"], str(row["volumes"]), *cells)
        console.print(table)
    if result.volume_note:
        console.print(f"note: {result.volume_note}", soft_wrap=True)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if value < 10 else f"{value:.1f}"


def _print_notes(console: Console, scores: Mapping[str, Any]) -> None:
    """Prints the scores that the table doesn't show."""
    console.print(
        f"{scores['empty_targets']} records have an empty mask, {scores['empty_predictions']} an empty prediction; "
        f"HD95 is undefined for {scores['hd95_undefined']}",
        soft_wrap=True,
    )
    if "miou" in scores:
        mean, background = (_shown(scores[name]) for name in ("miou", "miou_with_background"))
        console.print(
            f"multi IoU: each pixel goes to its likeliest class, or to the background; mean over classes {mean}, "
            f"with the background {background}\n"
            "false pos.: of the images that don't show a class, the share in which any pixel is marked",
            soft_wrap=True,
        )
        if scores["classes_overlap"]:
            console.print(
                "note: classes overlap here, so one class per pixel can't be right everywhere", soft_wrap=True
            )


if __name__ == "__main__":
    cli.run(main)
