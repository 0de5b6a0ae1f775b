"""Evaluates a run on a split: scores of the whole split, of each class and of each record."""

import contextlib
import dataclasses
import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tunevlseg_jax.data import registry, targets
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.evaluation import calibration, every_class, inference, record_scores, volume_scores
from tunevlseg_jax.evaluation.inference import Scored
from tunevlseg_jax.evaluation.settings import THRESHOLD, TOLERANCE, Resolution
from tunevlseg_jax.evaluation.volume_scores import VolumeScores
from tunevlseg_jax.models.parameters import FlatParams
from tunevlseg_jax.models.settings import Masks
from tunevlseg_jax.runtime import exchange
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_object, sha256, write_csv, write_json
from tunevlseg_jax.training.experiment import Experiment
from tunevlseg_jax.training.split import Split

FOLDER = "evaluations"
"""In a run's folder."""


class EvaluationResult(NamedTuple):
    """The result of an evaluation.

    Attributes:
      name: of its files.
      size: height and width of the scored masks, or the smallest and the largest.
      scores: of the set.
      rows: of each class.
      marks: what a reader of the scores needs to know about the data, as `runs.provenance.marks` gives it.
      vanished: ids of the records whose object is lost at the model's size.
      volumes: scores of whole volumes; None if the images aren't slices, or their places are unknown.
      volume_note: which slices the scores of volumes are over, or why there are none; "" without volumes.
    """

    name: str
    size: str
    scores: dict[str, Any]
    rows: list[dict[str, Any]]
    marks: Mapping[str, Any] = {}
    vanished: tuple[str, ...] = ()
    volumes: VolumeScores | None = None
    volume_note: str = ""


def evaluate(
    experiment: Experiment,
    learnt: FlatParams,
    split: Split,
    data: Data,
    *,
    run: str,
    folder: Path | None,
    resolution: Resolution = "model",
    ask_absent: bool = False,
    threshold: float = THRESHOLD,
    tolerance: float = TOLERANCE,
    temperature: float = 1.0,
    marks: Mapping[str, Any] | None = None,
    masks: Masks = "semantic",
) -> EvaluationResult:
    """Scores a run, and writes the files if there is a folder for them; several processes score together.

    An evaluation replaces an earlier one of the same scores alone: where the file of its usual name is of another run,
    of other records or of other settings, the name gets a suffix.

    Args:
      experiment: the run's experiment.
      learnt: its learnt tensors.
      split: the split to score; complete if `ask_absent`.
      data: the data set of the split.
      run: the run's name, for the reader.
      folder: of the files; None writes none.
      resolution: "model" scores at the model's input size; "original" resizes the logits to the size of each mask.
      ask_absent: whether every image is asked for every class.
      threshold: probability above which a pixel is marked.
      tolerance: of NSD, in millimetres where the spacing is known, else in pixels.
      temperature: of the run's card, with which the scores of calibration are given as well.
      marks: of the scores, for the reader; see `EvaluationResult`.
      masks: what the run's masks are.
    """
    records, ours = split.records, inference.own_images(split.records)
    true_masks = itertools.compress(targets.stored(records), ours)
    if resolution == "original":
        true_masks = registry.originals(data, records.split, complete=ask_absent, wanted=ours)
    least, calibrations = math.log(threshold / (1 - threshold)), []
    if ask_absent:
        scored = inference.score_every_class(experiment, learnt, split, true_masks, least, tolerance)
    else:
        calibrations = [calibration.PixelCalibration(each) for each in dict.fromkeys((1.0, temperature))]
        watch = calibration.watching(calibrations)
        scored = inference.score_records(experiment, learnt, split, true_masks, least, tolerance, watch)
    name = _usual_name(data, experiment.config.data, records.split, resolution)
    name += "_every_class" * ask_absent + f"_threshold{threshold:g}" * (threshold != THRESHOLD)
    name += f"_tolerance{tolerance:g}" * (tolerance != TOLERANCE) + f"_{masks}" * (masks != "semantic")
    size = _sizes(scored.sizes)
    rows = _by_class(records.classes, scored)
    scores = record_scores.summary(scored.samples) | _of_all_classes(scored, rows) | _of_volumes(scored)
    scores |= calibration.named_scores(calibrations)
    vanished, note = registry.vanished(data, records), _volume_note(scored.volumes, data)
    if folder is not None:
        details: dict[str, Any] = {"run": run, "data": data.name, "protocol": data.protocol}
        details |= {"prompt_index": data.prompt_index, "split": records.split, "resolution": resolution}
        details |= {"every_class": ask_absent, "size": size, "data_sha256": records.fingerprint()}
        details |= {"threshold": float(threshold), "nsd_tolerance": float(tolerance), "masks": masks}
        about = {"root": data.root, "vanished": len(vanished), "computed": experiment.computed.for_card()}
        about |= calibration.for_file(calibrations)
        about |= ({"volume_note": note} if note else {}) | dict(marks or {})
        name = exchange.from_primary(lambda: _write(folder, name, details, about, scored, rows, scores))
    return EvaluationResult(name, size, scores, rows, marks or {}, vanished, scored.volumes, note)


def _write(
    folder: Path,
    name: str,
    identity: Mapping[str, Any],
    about: Mapping[str, Any],
    scored: Scored,
    rows: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Any],
) -> str:
    """Writes the files of an evaluation, last its JSON, and returns their name; `identity` as in `stored_name`."""
    name = stored_name(folder, name, identity, apart=bool(about.get("data_changed")))
    samples, policies = folder / f"{name}.csv", record_scores.POLICIES | record_scores.LATER_POLICIES
    policies |= calibration.POLICIES if "reliability" in about else {}
    write_csv(samples, [dataclasses.asdict(sample) for sample in scored.samples])
    write_csv(folder / f"{name}_classes.csv", rows)
    if scored.volumes is not None and scored.volumes.samples:
        volume_scores.write(folder / f"{name}_volumes.csv", scored.volumes.samples)
        policies |= volume_scores.POLICIES | volume_scores.LATER_POLICIES
    details = {**identity, "samples_sha256": sha256(samples), "empty_masks": policies, **about}
    write_json(folder / f"{name}.json", details | {"records": len(scored.samples), "scores": scores})
    return name


def _usual_name(data: Data, own: Data, split: str, resolution: Resolution) -> str:
    """The beginning of the name of an evaluation's files, given the scored data set and the run's own."""
    name = f"{data.name.replace('/', '_')}_{split}_{resolution}"
    name += f"_{data.protocol}" * (data.protocol != "paper")
    return name + f"_prompt{data.prompt_index}" * (data.prompt_index != own.prompt_index)


def _volume_note(scores: VolumeScores | None, data: Data) -> str:
    """Which slices the scores of volumes are over, or why a set of slices has none."""
    if scores is not None:
        return volume_scores.note(scores)
    if registry.preprocessing(data).axis is None:
        return ""
    return "no scores of whole volumes: the set doesn't hold the places of its slices; prepare it again"


def stored_name(folder: Path, name: str, identity: Mapping[str, Any], *, apart: bool = False) -> str:
    """The name of an evaluation's files: `name`, with a suffix where that is another evaluation's.

    Args:
      folder: of the files.
      name: the usual name.
      identity: what is scored, and how, as in the JSON. The run counts in a folder that isn't the run's own.
      apart: whether the usual name must stay free, since it is that of the run's own data.
    """
    fields = set(identity) - {"size"}
    if folder.resolve().parent == Path(identity["run"]).resolve():
        fields.remove("run")
    stored: dict[str, Any] = {}
    with contextlib.suppress(UserError):
        stored = read_object(folder / f"{name}.json")
    if apart or any(stored.get(field, identity[field]) != identity[field] for field in fields):
        digest = hashlib.sha256(repr(sorted((field, identity[field]) for field in fields)).encode()).hexdigest()
        return f"{name}_{digest[:8]}"
    return name


def _by_class(names: Sequence[str], scored: Scored) -> list[dict[str, Any]]:
    """A row of scores for each class that has records."""
    rows = []
    for label, name in enumerate(names):
        samples = [sample for sample in scored.samples if sample.label == name]
        if samples:
            row = {"class": name} | record_scores.summary(samples)
            row |= _of_volumes(scored, name)
            if scored.classes is not None:
                row |= {"multi_class_iou": _number(scored.classes.iou[label])}
                row |= every_class.absent_rates(samples, len(samples)) | every_class.presence_scores(samples)
            rows.append(row)
    return rows


def _of_all_classes(scored: Scored, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The scores that exist only where every image is asked for every class."""
    if scored.classes is None:
        return {}
    shares = [row["multi_class_iou"] for row in rows if row["multi_class_iou"] is not None]
    with_background = [share for share in scored.classes.iou.tolist() if not math.isnan(share)]
    return {
        "miou": _mean(shares),
        "miou_with_background": _mean(with_background),
        "classes_overlap": scored.classes.overlapping,
        **every_class.absent_rates(scored.samples, len(scored.samples) // len(rows)),
        **every_class.presence_scores(scored.samples),
    }


def _of_volumes(scored: Scored, label: str | None = None) -> dict[str, Any]:
    """The scores of the volumes, of one class or of all; none where the images aren't slices."""
    if scored.volumes is None:
        return {}
    return volume_scores.summary([one for one in scored.volumes.samples if label in (None, one.label)])


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _sizes(sizes: set[tuple[int, int]]) -> str:
    """The size if all are equal, else the smallest and the largest by area."""
    ends = [f"{height}x{width}" for height, width in sorted(sizes, key=lambda size: (size[0] * size[1], size))]
    return ends[0] if len(ends) == 1 else f"{ends[0]} to {ends[-1]}"
