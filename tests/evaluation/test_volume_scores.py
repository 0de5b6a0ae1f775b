"""Tests of the scores of whole volumes, against SimpleITK, and of which slices and volumes count."""

import csv
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import phantoms
import pytest
import small

from tunevlseg_jax import prepare
from tunevlseg_jax.data import registry
from tunevlseg_jax.data.records import Records, packed
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.data.volume_slice import VolumeSlice
from tunevlseg_jax.evaluation import evaluate_run, inference, volume_scores
from tunevlseg_jax.evaluation.volume_scores import VolumeScorer, VolumeScores
from tunevlseg_jax.runtime.optional import import_simpleitk

SPACING = (2.5, 1.25, 0.75)
"""Between slices, rows and columns."""


def blob(seed: int, shape: tuple[int, ...] = (9, 20, 24)) -> np.ndarray:
    """(slice, height, width) bool that touches the border of the volume."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = np.stack([cv2.GaussianBlur(plane, (0, 0), 3) for plane in noise])
    return (smooth[:-1] + smooth[1:])[: shape[0]] > 0.03


def by_simpleitk(predicted: np.ndarray, target: np.ndarray, spacing=SPACING) -> tuple[float, float, float]:
    """Dice, HD95 and ASSD by its filters; a border of background makes the surface of what touches the border."""
    sitk = import_simpleitk("a test")
    images = [sitk.GetImageFromArray(np.pad(mask, 1).astype(np.uint8)) for mask in (predicted, target)]
    for image in images:
        image.SetSpacing(spacing[::-1])
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*images)
    surfaces = [sitk.LabelContour(image, fullyConnected=False) for image in images]
    maps = [sitk.Abs(sitk.SignedMaurerDistanceMap(one, False, False, True)) for one in surfaces]
    arrays = [sitk.GetArrayFromImage(one) for one in (*surfaces, *maps)]
    there, back = arrays[3][arrays[0] > 0], arrays[2][arrays[1] > 0]
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    return overlap.GetDiceCoefficient(), hd95, (there.sum() + back.sum()) / (len(there) + len(back))


def records(masks: np.ndarray, places: list[VolumeSlice | None]) -> Records:
    """A record for each (image, height, width) mask, all of the class a."""
    rows = np.arange(len(masks), dtype=np.int32)
    return Records(
        name="x",
        split="test",
        images=np.zeros((*masks.shape, 3), np.uint8),
        image=rows,
        label=rows * 0,
        prompt=rows * 0,
        classes=("a",),
        prompts=(("a",),),
        names=tuple(map(str, rows)),
        ids=tuple(map(str, rows)),
        spacing=np.tile(SPACING[1:], (len(masks), 1)),
        slices=tuple(places),
        shown=np.ones((len(masks), 1), bool),
        **packed(masks),
    )


def scored(data: Records, predicted: np.ndarray) -> VolumeScores | None:
    """The scores of predicted masks, one a record."""
    scorer = VolumeScorer(data)
    for image in range(len(data.names)):
        for row in np.flatnonzero(data.image == image):
            spacing = None if data.spacing is None else tuple(data.spacing[image].tolist())
            scorer.add(image, "a", predicted[row], data.mask(row), spacing)
        scorer.close(image)
    return scorer.scores


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_simpleitk(seed):
    predicted, target = blob(seed), blob(seed + 100)
    places = [VolumeSlice("v", number, 1, len(target), len(target), SPACING[0]) for number in range(len(target))]
    ((one,), left_out) = scored(records(target, places), predicted)
    assert (one.dice, one.hd95_mm, one.assd_mm) == pytest.approx(by_simpleitk(predicted, target), rel=1e-5)
    assert (one.slices, one.slices_in_volume, left_out) == (len(target), len(target), 0)
    assert one.intersection == (predicted & target).sum() and one.predicted == predicted.sum()


def test_slices_between_are_empty_and_every_nth_is_farther_apart():
    predicted, target = blob(0), blob(1)
    chosen = np.array([1, 2, 5, 6])
    places = [VolumeSlice("v", number, 1, 4, 8, SPACING[0]) for number in chosen.tolist()]
    ((one,), _) = scored(records(target[chosen], places), predicted[chosen])
    kept = np.isin(np.arange(len(target)), chosen)[:, None, None]
    assert (one.dice, one.hd95_mm, one.assd_mm) == pytest.approx(
        by_simpleitk(predicted & kept, target & kept), rel=1e-5
    )
    assert (one.slices, one.slices_in_volume) == (4, 8)
    places = [VolumeSlice("v", number, 3, 3, 8, SPACING[0]) for number in (0, 3, 6)]
    ((one,), _) = scored(records(target[::3], places), predicted[::3])
    expected = by_simpleitk(predicted[::3], target[::3], (3 * SPACING[0], *SPACING[1:]))
    assert (one.dice, one.hd95_mm, one.assd_mm) == pytest.approx(expected, rel=1e-5)
    assert one.slice_spacing_mm == 7.5


def test_volumes_that_are_not_whole_are_left_out():
    """Slices in another split, or records that the clean protocol leaves out; slices of two volumes may be mixed."""
    target = blob(2)[:6]
    places = [VolumeSlice(name, number, 1, 2, 2, None) for number in range(2) for name in "abc"]
    whole = scored(data := records(target, places), target)
    assert [one.volume for one in whole.samples] == ["a", "b", "c"] and whole.left_out == 0
    assert {(one.dice, one.hd95_mm) for one in whole.samples} == {(1, None)}
    cut = scored(data.take(np.arange(5)).compact(), target)
    assert [one.volume for one in cut.samples] == ["a", "b"] and cut.left_out == 1
    fewer = scored(data.take(np.arange(1, 6)), target[1:])
    assert [one.volume for one in fewer.samples] == ["b", "c"] and fewer.left_out == 1
    assert scored(dataclasses.replace(data, slices=None), target) is None
    empty = scored(records(target * False, places), target * False)
    assert [one.dice for one in empty.samples] == [1, 1, 1]
    assert {name: value for name, value in volume_scores.summary(cut.samples).items() if "lesion" not in name} == {
        "volume_dice": 1.0,
        "volume_hd95_mm": None,
        "volume_assd_mm": None,
        "volume_hd95_mm_or_diagonal": None,
        "volume_nsd_mm": None,
        "volume_volumetric_similarity": 1.0,
        "volumes": 2,
    }
    assert "no score for 1 of the volumes" in volume_scores.note(cut)


def prepare_volumes(monkeypatch, slices: object) -> Data:
    """Two phantoms, in unlike orientations, both in test."""
    for number in range(2):
        values, labels = phantoms.phantom(number)
        phantoms.write_nifti(Path("source/images") / f"{number}.nii.gz", values, phantoms.ORIENTATIONS[11 * number])
        phantoms.write_nifti(Path("source/labels") / f"{number}.nii.gz", labels, phantoms.ORIENTATIONS[11 * number])
    Path("classes.csv").write_text("class,value\nbox,1\nlittle box,2\n")
    options = "--source", "source", "--classes", "classes.csv", "--fractions", 0.5, 0, 0.5
    small.run(monkeypatch, prepare.main, "volumes", "--name", "mine", *options, "--slices", slices)
    return Data(name="mine", root="data", cache="cache")


@pytest.mark.parametrize(("slices", "number", "ask_absent"), [("object", 8, False), ("all", 12, True), (2, 6, True)])
def test_a_prepared_set_has_scores_of_volumes(monkeypatch, tmp_path, slices, number, ask_absent, capsys):
    """A model that finds each object one row too low, at the images' own size: 1.25 mm off."""
    monkeypatch.chdir(tmp_path)
    data = prepare_volumes(monkeypatch, slices)
    own = registry.load(data, "test", (20, 16), complete=ask_absent)
    step = slices if isinstance(slices, int) else 1
    assert own.slices is not None and len(own.slices) == number
    assert {one._replace(volume="", number=0) for one in own.slices} == {VolumeSlice("", 0, step, number, 12, 2.5)}
    first = 2 if slices == "object" else 0
    assert [one.number for one in own.slices] == list(range(first, first + number * step, step))

    def answers(experiment, learnt, split, batch_size, watch=None):
        del experiment, learnt, batch_size, watch
        asked = split.feed.records if ask_absent else own
        of = {
            (image, label): own.mask(row) for row, (image, label) in enumerate(zip(own.image, own.label, strict=True))
        }
        for image, label in zip(asked.image, asked.label, strict=True):
            mask = of.get((image, label), np.zeros((20, 16), bool))
            yield np.where(np.roll(mask, 1, axis=0), 9, -9).astype(np.float32), None

    monkeypatch.setattr(inference, "answers_of", answers)
    config = SimpleNamespace(train=SimpleNamespace(batch_size=4), data=data)
    experiment = SimpleNamespace(config=config, computed=SimpleNamespace(for_card=dict))
    split = inference.Split(Feed(own), np.zeros(1))
    options = {"run": "run", "folder": Path("out"), "ask_absent": ask_absent}
    result = evaluate_run.evaluate(experiment, {}, split, data, **options)  # type: ignore[arg-type]
    _, labels = phantoms.phantom()
    for row in result.rows:
        box = np.moveaxis(labels == 1 + (row["class"] == "little box"), -1, 0)[::step, ::-1].transpose(0, 2, 1)
        expected = by_simpleitk(np.roll(box, 1, axis=1), box, (2.5 * step, 1.25, 0.75))
        found = [row[name] for name in volume_scores.POLICIES]
        assert found == pytest.approx(expected, rel=1e-5) and row["volumes"] == 1
    stored = json.loads(Path(f"out/{result.name}.json").read_text())
    assert stored["scores"]["volume_dice"] == pytest.approx(np.mean([row["volume_dice"] for row in result.rows]))
    assert stored["volume_note"] == result.volume_note and "volume_dice" in stored["empty_masks"]
    said = "every slice of the volumes" if slices == "all" else "50% of the" if slices == 2 else "only the slices"
    assert said in result.volume_note
    with Path(f"out/{result.name}_volumes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [one["label"] for one in rows] == ["box", "little box"] and len({one["volume"] for one in rows}) == 1
    assert [int(one["slices"]) for one in rows] == ([number] * 2 if ask_absent else [7, 4])


@dataclasses.dataclass(frozen=True)
class Feed:
    """What `inference` asks of a feed, whose batches the fake model doesn't need."""

    records: Records


def test_sets_without_places_say_so(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    data = prepare_volumes(monkeypatch, "object")
    assert "prepare it again" in evaluate_run._volume_note(None, data)
    assert evaluate_run._volume_note(None, Data(name="scenes/photo")) == ""
