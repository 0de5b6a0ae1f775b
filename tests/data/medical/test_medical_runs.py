"""Tests of whole runs on medical files: prepare, check, train, evaluate in millimetres, predict, and open again."""

import csv
import json
from pathlib import Path

import dicoms
import mistakes
import numpy as np
import phantoms
import pytest
import small

from tunevlseg_jax import evaluate, predict, prepare, train
from tunevlseg_jax.data import prepared
from tunevlseg_jax.data.medical import dicom_files, dicom_masks, inputs
from tunevlseg_jax.runtime.optional import import_simpleitk

CONFIG = """from tunevlseg_jax.config import Config, Data, Optim, Train
from tunevlseg_jax.learners import VPT
config = Config(learner=VPT(depth=2, num_context=2), data=Data(name="mine"), optim=Optim(learning_rate=5e-3),
                train=Train(epochs=1, batch_size=4, augment=False), workdir="run")
"""


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("tiny.py").write_text(CONFIG)
    return lambda main, *arguments: small.run(monkeypatch, main, *arguments)


def check_geometry(ours: str, theirs) -> np.ndarray:
    """The values of a mask file, whose geometry must be that of an image."""
    sitk = import_simpleitk("a test")
    mask = sitk.ReadImage(ours)
    for what in ("Size", "Spacing", "Origin", "Direction"):
        np.testing.assert_allclose(getattr(mask, f"Get{what}")(), getattr(theirs, f"Get{what}")(), atol=1e-6, rtol=0)
    return sitk.GetArrayFromImage(mask)


@pytest.mark.parametrize("command", ["volumes", "dicom"])
def test_sets_of_slices(run, tmp_path, command, capsys):
    """The slices with an object, with their spacing; one volume is in one split; `check` finds no error."""
    write(command)
    options = ("--prompt", "box") if command == "dicom" else ("--classes", "classes.csv")
    run(prepare.main, command, "--name", "mine", "--source", "source", "--fractions", 0.6, 0.2, 0.2, *options)
    splits = [prepared.load(Path("data"), "mine", name) for name in prepared.SPLITS]
    assert [len({one.group for one in split}) for split in splits] == [3, 1, 1]
    assert [len(split) for split in splits] == [24, 8, 8]
    for one in (one for split in splits for one in split):
        assert one.spacing == pytest.approx((1.25, 0.75)) and one.rgb().shape == (20, 16, 3)
        assert all((one.maps()[record.mask] == record.value).any() for record in one.records)
    run(prepare.main, "check", "mine")
    printed = capsys.readouterr().out
    assert "mine" in printed and "share of the image that each class's masks mark" in printed


def write(command: str) -> None:
    """Five phantoms, in unlike orientations, with labels."""
    Path("classes.csv").write_text("class,value,prompt\nbox,1,the box\nlittle box,2,\n")
    for number in range(5):
        values, labels = phantoms.phantom(number)
        if command == "volumes":
            for kind, array in (("images", values), ("labels", labels)):
                path = Path("source") / kind / f"case{number}.nii.gz"
                phantoms.write_nifti(path, array, phantoms.ORIENTATIONS[7 * number])
            continue
        folder = Path("source") / f"{number}"
        stored = (values[::-1, ::-1].transpose(2, 1, 0) + 1024).astype(np.uint16)
        series = dicoms.write_series(folder, stored)
        for file, path in zip(series, sorted(folder.iterdir(), reverse=True), strict=True):
            file.PatientID = f"{dicoms.NUMBER}_{number}"
            file.save_as(path, enforce_file_format=True)
        dicoms.write_seg(folder / "seg", series, {"box": labels[::-1, ::-1].transpose(2, 1, 0) > 0})


def test_inputs_are_found_among_other_files(run, tmp_path):
    write("volumes")
    write("dicom")
    Path("source/a.png").write_bytes(b"x")
    Path("source/notes.txt").write_bytes(b"x")
    given, others, left_out = inputs.find(["source"], recursive=True, images=[".png"])
    assert len(given) == 15 and others == ["source"] and left_out == 0
    assert {one.suffix for one in given} == {".nii.gz"}
    Path("source/a.png").unlink()
    assert inputs.find(["source"], recursive=True, images=[".png"])[1:] == ([], 1)
    given, others, _ = inputs.find(["source/images", "source/a.png", "-"], recursive=False)
    assert [one.name for one in given] == [f"case{number}" for number in range(5)] and others == ["source/a.png", "-"]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["volumes", "dicom"])
def test_from_files_to_masks_with_the_same_geometry(run, tmp_path, command, capsys):
    write(command)
    options = ("--classes", "classes.csv") if command == "volumes" else ("--prompt", "box")
    run(prepare.main, command, "--name", "mine", "--source", "source", "--fractions", 0.6, 0.2, 0.2, *options)
    run(train.main, "--config", "tiny.py")
    card = json.loads(Path("run/card.json").read_text())
    window = "dicom" if command == "dicom" else "percentile"
    assert card["preprocessing"] == {"class": "Preprocessing", "window": window, "axis": "axial"}
    run(evaluate.main, "--run", "run", "--resolution", "original")
    scores = json.loads(Path("run/evaluations/mine_test_original.json").read_text())["scores"]
    assert scores["spacing_unknown"] == 0 and {"hd95_mm", "assd_mm", "volume_hd95_mm"} <= scores.keys()
    assert scores["volumes"] == 1 and 0 <= scores["volume_dice"] <= 1
    printed = capsys.readouterr().out
    assert "whole volumes, in three dimensions" in printed and "only the slices that the set holds" in printed
    sitk = import_simpleitk("a test")
    if command == "volumes":
        path = "source/images/case4.nii.gz"
        run(
            predict.main, "--run", "run", "--image", path, "--prompt", "the box", "--threshold", 0.01, "--output", "out"
        )
        mask = check_geometry("out/case4_mask.nii.gz", sitk.ReadImage(path))
    else:
        (one,) = inputs.find(["source/4"], recursive=False).scans
        asked = "--image", "source/4", "--prompt", "box", "--threshold", 0.01, "--output", "out", "--dicom-seg"
        run(predict.main, "--run", "run", *asked)
        mask = check_geometry(f"out/{one.name}_mask.nii.gz", one.load().image)
        (file,) = dicom_files.find([(Path("out") / f"{one.name}_mask.dcm").read_bytes])
        if mask.any():
            ((label, seg),) = dicom_masks.read(file, one.load().image)
            assert label == "box"
            np.testing.assert_array_equal(sitk.GetArrayFromImage(seg), mask)
        texts = [path.read_bytes() for path in Path("run").rglob("*") if path.is_file()]
        texts += [Path("out/volumes.csv").read_bytes(), *(str(path).encode() for path in Path("out").iterdir())]
        assert not [secret for secret in dicoms.SECRETS for text in texts if secret.encode() in text.lower()]
    assert set(np.unique(mask)) <= {0, 1} and "slice by slice" in capsys.readouterr().out
    with Path("out/volumes.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert int(row["voxels"]) == mask.sum() and row["slices"] == "12"
    assert float(row["volume_ml"]) == pytest.approx(mask.sum() * 0.75 * 1.25 * 2.5 / 1000, rel=1e-4)
    Path("out/volumes.csv").unlink()
    with mistakes.raises("other-folder: another"):
        from tunevlseg_jax.prediction import volumes

        volumes._check(Path("out"), row["mask"].removesuffix("_mask.nii.gz"), {".nii.gz"})
