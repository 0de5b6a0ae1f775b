"""Scores a trained run on a split: `python -m tunevlseg_jax.evaluate --run runs/quickstart`."""

from __future__ import annotations

import csv
import dataclasses
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import jax
from rich.console import Console
from rich.table import Table

from tunevlseg_jax import artefacts, command, devices, loop, metrics
from tunevlseg_jax.data.records import Records
from tunevlseg_jax.files import replacing, write_json
from tunevlseg_jax.metrics import Scores


@dataclass(frozen=True)
class OtherData:
    """Which data set.

    Attributes:
      name: another data set than the run's own.
    """

    name: str | None = None


@dataclass(frozen=True)
class Options:
    """What to score, and how.

    Attributes:
      run: folder of the run.
      data: another data set.
      split: train, val or test.
      resolution: "model" scores at the size that the model sees; "original" resizes the logits to each mask's own.
      checkpoint: where the base model is now, if not where it was in training.
      output: folder for the scores; None for `evaluations` in the run's.
    """

    run: str
    data: OtherData = field(default_factory=OtherData)
    split: str = "test"
    resolution: Literal["model", "original"] = "model"
    checkpoint: str | None = None
    output: str | None = None


def main() -> None:
    """Scores a run, prints a table, and writes the scores of the set and of each record."""
    options = command.options(Options, "python -m tunevlseg_jax.evaluate", __doc__ or "")
    made, learnt = artefacts.restore(Path(options.run), options.checkpoint)
    data = made.config.data
    if options.data.name is not None:
        data = dataclasses.replace(data, name=options.data.name)
    split = made.split(options.split, data, original_masks=options.resolution == "original")
    mesh = devices.mesh()
    sums, samples = loop.evaluate(
        made.network,
        devices.replicated(jax.tree.map(lambda array: array[None], learnt), mesh),
        devices.replicated(made.frozen, mesh),
        split,
        made.hyper(),
        made.config.train.batch_size,
    )
    scores = {name: values[0] for name, values in metrics.means(sums).items()}
    folder = Path(options.output) if options.output else Path(options.run) / "evaluations"
    name = f"{data.name.replace('/', '_')}_{options.split}_{options.resolution}"
    size = "x".join(map(str, split.records.maps.shape[1:]))
    write_json(
        folder / f"{name}.json",
        {
            "run": options.run,
            "data": data.name,
            "data_sha256": split.records.fingerprint(),
            "split": options.split,
            "records": len(split.records),
            "size": size,
            "threshold": 0.5,
            "scores": scores,
        },
    )
    _write_samples(folder / f"{name}.csv", split.records, samples)
    table = Table(
        title=f"{options.run} on {data.name}, {options.split} ({len(split.records)} records)",
        caption=f"at {size} pixels ({options.resolution}), threshold 0.5",
    )
    for column in ("Dice\n(mean over records)", "IoU\n(over all pixels)", "IoU\n(mean over records)", "loss"):
        table.add_column(column, justify="right")
    table.add_row(*(f"{scores[name]:.4f}" for name in ("dice", "iou", "sample_iou", "loss")))
    console = Console()
    console.print(table)
    console.print(f"scores: {folder / name}.json, of each record: {folder / name}.csv", soft_wrap=True)


def _write_samples(path: Path, records: Records, samples: Scores) -> None:
    """One row a record: id, prompt and scores."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["id", "prompt", *Scores._fields])
    for row, (name, prompt) in enumerate(zip(records.ids, records.prompt, strict=True)):
        writer.writerow([name, records.prompts[prompt][0], *(f"{values[0, row]:.8g}" for values in samples)])
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


if __name__ == "__main__":
    command.run(main)
