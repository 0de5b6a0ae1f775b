"""Tests of the user's own data in every layout and encoding."""

import contextlib
import json
from typing import Any

import numpy as np
import pytest
import small
import user_folders
from fake_downloads import blob, photo, save
from PIL import Image
from user_folders import COLOURS, masks_by_class, write_coded_mask, write_manifest, write_medvlsm_set

from tunevlseg_jax import prepare
from tunevlseg_jax.data import prepared
from tunevlseg_jax.data.audit.image_stats import image_stats

run, source = user_folders.run, user_folders.source


def test_images_and_masks_of_the_same_name(run, source, capsys):
    examples = run("--prompt", "wound", "sore", "--fractions", 0.5, 0.25, 0.25)
    assert "layout: images/{name} and masks/{name}" in capsys.readouterr().out
    assert sorted(name.partition("/")[2] for name in examples) == ["Köln", "a b", "c", "d.e"]
    assert sorted(name.partition("/")[0] for name in examples) == ["test", "train", "train", "val"]
    for example in examples.values():
        (record,) = example.records
        expected = np.asarray(Image.open(source / "masks" / f"{example.id}.png")) > 0
        np.testing.assert_array_equal(masks_by_class(example)["wound"], expected)
        assert record.prompts == {1: ("wound", "sore")} and example.rgb().shape[:2] == expected.shape
        assert example.image == (source / "images" / f"{example.id}.jpg").read_bytes()


def test_suffix_patterns_groups_and_splits_in_names(run, tmp_path):
    """Two folders of splits without val, patients in the names, masks beside the images."""
    rng = np.random.default_rng(0)
    for split, patients in (("Training", range(8)), ("test", range(2))):
        for patient in patients:
            for view in "LR":
                stem = tmp_path / "source" / "set" / split / f"p{patient}_{view}"
                save(stem.with_suffix(".png"), photo(rng))
                save(stem.with_name(f"{stem.name}_seg.png"), blob(rng))
    pattern = "{split}/{group}_{name}"
    examples = run("--prompt", "cyst", "--images", pattern, "--masks", f"{pattern}_seg", "--fractions", 0.75, 0.25, 0)
    splits = {split: {key for key in examples if key.startswith(split)} for split in prepared.SPLITS}
    assert [len(splits[split]) for split in prepared.SPLITS] == [12, 4, 4]
    assert splits["test"] == {"test/p0/L", "test/p0/R", "test/p1/L", "test/p1/R"}
    groups = [{examples[key].group for key in splits[split]} for split in ("train", "val")]
    assert not groups[0] & groups[1] and examples["test/p0/L"].group == "p0"


def test_options_given_twice_are_joined_and_splits_of_folders_are_said(run, source, capsys):
    """Train and test folders in two sources, and phrasings as in tables."""
    other = source.parent / "other" / "Test"
    other.mkdir(parents=True)
    for kind in ("images", "masks"):
        (source / "train").mkdir(exist_ok=True)
        (source / kind).rename(source / "train" / kind)
        (other / kind).mkdir()
        for path in (source / "train" / kind).glob("c.*"):
            path.rename(other / kind / path.name)
    examples = run("--source", other.parent, "--prompt", "wound|sore", "--prompt", "lesion", "--fractions", 1, 0, 0)
    assert list(examples) == ["train/Köln", "train/a b", "train/d.e", "test/c"]
    assert examples["test/c"].records[0].prompts == {1: ("wound", "sore", "lesion")}
    out = capsys.readouterr().out
    assert "splits: train, test, as the source says; val is drawn from train" in out
    assert "note: there is no val split. Training needs val: prepare the set again with --fractions 0.8 0.2 0" in out


def test_a_patient_in_two_of_the_users_own_splits_is_said(run, source, monkeypatch, capsys):
    """By a manifest; `check` counts it as an error."""
    cases = {
        "manifest": ["p1", "p1", "p1", ""],
        "groups": ["p1", "p1", "p2", "p3"],
        "apart": ["p1", "p2", "p3", "p4"],
    }
    for case, groups in cases.items():
        rows = [
            {"image": f"images/{name}.jpg", "mask": f"masks/{name}.png", "prompt": "x", "split": split, "group": group}
            for name, split, group in zip(
                ("a b", "Köln", "c", "d.e"), ("train", "test", "train", "val"), groups, strict=True
            )
        ]
        run("--manifest", write_manifest(source.parent / "list.csv", rows))
        out = " ".join(capsys.readouterr().out.split())
        told = [f"1 of {count} groups" for count in (1, 3) if f"warning: 1 of {count} groups" in out]
        assert told == {"manifest": ["1 of 1 groups"], "groups": ["1 of 3 groups"], "apart": []}[case]
        assert ("'p1' in train/images/a b.jpg and test/images/Köln.jpg" in out) == bool(told)
        with contextlib.suppress(SystemExit):
            small.run(monkeypatch, prepare.main, "check", "mine", "--root", source.parent / "data")
        (row,) = (line for line in capsys.readouterr().out.splitlines() if "group across" in line)
        assert ("error" in row) == bool(told)


def test_masks_with_an_end_in_their_names(run, source, capsys):
    """In images/ and masks/, whose names don't match."""
    for path in source.glob("masks/*"):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    assert len(run("--prompt", "wound")) == 4
    assert "layout: images/{name} and masks/{name}_mask\n" in capsys.readouterr().out


def test_a_folder_for_each_class(run, tmp_path):
    """An image has a record for each class that it has a mask of; the folder's name is the prompt."""
    rng = np.random.default_rng(0)
    expected = {}
    for name, classes in (("a", ("liver", "left kidney")), ("b", ("liver",))):
        save(tmp_path / "source" / "images" / f"{name}.png", photo(rng))
        for label in classes:
            expected[name, label] = blob(rng)
            save(tmp_path / "source" / "masks" / label / f"{name}.bmp", expected[name, label] * np.uint8(255))
    examples = run("--masks", "masks/{class}/{name}", "--fractions", 1, 0, 0)
    assert {(key[-1], label) for key, example in examples.items() for label in masks_by_class(example)} == set(expected)
    for key, example in examples.items():
        for label, mask in masks_by_class(example).items():
            np.testing.assert_array_equal(mask, expected[key[-1], label])
        assert all(record.phrasings() == (record.label,) for record in example.records)


def test_class_tree_with_val_as_test(run, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for split, name in (("training", "a"), ("validation", "b")):
        save(tmp_path / "source" / "images" / split / f"{name}.jpg", photo(rng))
        save(tmp_path / "source" / "annotations" / split / "traffic light" / f"{name}.png", blob(rng) * np.uint8(255))
    examples = run("--test-is-val")
    assert "layout: images/{split}/{name} and annotations/{split}/{class}/{name}" in capsys.readouterr().out
    assert list(examples) == ["train/a", "val/b"] and list(masks_by_class(examples["val/b"])) == ["traffic light"]
    (test,) = prepared.load(tmp_path / "data", "mine", "test")
    assert test == examples["val/b"]


def test_val_as_test_takes_no_image_from_train(run, source, capsys):
    """Images that the default fractions would put in the test split are in train and val."""
    examples = run("--prompt", "wound", "--test-is-val")
    ids = sorted(key.partition("/")[2] for key in examples if not key.startswith("test"))
    assert ids == ["Köln", "a b", "c", "d.e"]
    folder = prepared.find(source.parent / "data", "mine")
    assert prepared.splits(folder) == ("train", "val", "test") and prepared.stored_splits(folder) == ("train", "val")
    assert "paper" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        ("colour", COLOURS),
        ("palette", "class,value,prompt\npolyp,3,a polyp|a small polyp\ntool,7,\nvoid,9,\nbackground,0,\n"),
        ("palette", "Class,Value,Prompt\npolyp,3,a polyp|a small polyp\ntool,7,\nVoid,9,\nBackground,0,\n"),
        ("16 bits", "class,value,prompt\npolyp,3,a polyp|a small polyp\ntool,700,\nvoid,9,\n"),
    ],
)
def test_label_maps_with_a_class_table(run, tmp_path, kind, table):
    labels = write_coded_mask(tmp_path / "source" / "masks" / "a.png", kind)
    save(tmp_path / "source" / "images" / "a.jpg", photo(np.random.default_rng(0), labels.shape))
    (tmp_path / "classes.csv").write_text(table)
    encoding = "colour" if kind == "colour" else "palette"
    examples = run("--encoding", encoding, "--classes", tmp_path / "classes.csv")
    example = examples["train/a"]
    np.testing.assert_array_equal(example.maps()[0], labels)
    assert {record.label: (record.value, record.phrasings()) for record in example.records} == {
        "polyp": (1, ("a polyp", "a small polyp")),
        "tool": (2, ("tool",)),
    }


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_manifest(run, source, tmp_path, suffix):
    rows = [
        {"image": "images/a b.jpg", "mask": "masks/a b.png", "prompt": "wound|sore", "split": "train", "group": "7"},
        {"image": "images/a b.jpg", "mask": "masks/a b.png", "prompt": "skin", "split": "train", "group": "7"},
        {"image": "images/Köln.jpg", "mask": "masks/Köln.png", "prompt": "wound", "split": "validation", "class": "w"},
        {"image": "images/c.jpg", "mask": "masks/c.png", "prompt": "wound, deep", "split": "Test"},
    ]
    examples = run("--manifest", write_manifest(tmp_path / f"list{suffix}", rows))
    assert list(examples) == ["train/images/a b.jpg", "val/images/Köln.jpg", "test/images/c.jpg"]
    first = examples["train/images/a b.jpg"]
    assert [(record.label, record.phrasings()) for record in first.records] == [
        ("wound", ("wound", "sore")),
        ("skin", ("skin",)),
    ]
    assert first.group == "7" and examples["val/images/Köln.jpg"].records[0].label == "w"


def test_medvlsm_folders(run, tmp_path, capsys):
    """Also of CAMUS, whose images lie in train/ and test/, and whose val reads from train/."""
    rng = np.random.default_rng(0)
    root = tmp_path / "source" / "camus"
    (root / "anns").mkdir(parents=True)
    expected = {}
    for split, part, name in (("train", "train", "a"), ("val", "train", "b"), ("test", "test", "a")):
        save(root / "images" / part / f"{name}.png", photo(rng)[..., 0])
        rows = []
        for number in (1, 2):
            mask = f"mask_{number}/{name}_gt.png"
            expected[split, number] = blob(rng)
            save(root / "masks" / part / mask, expected[split, number] * np.uint8(255))
            prompts = {"p0": "", "p1": [f"part {number}", "part"], "p2": f"left part {number}"}
            rows.append({"img_name": f"{name}.png", "mask_name": mask, "prompts": prompts})
        (root / "anns" / f"{split}.json").write_text(json.dumps(rows))
    examples = run()
    assert "layout: medvlsm's, camus/" in capsys.readouterr().out
    assert list(examples) == ["train/a", "val/b", "test/a"]
    for (split, number), mask in expected.items():
        (example,) = prepared.load(tmp_path / "data", "mine", split)
        np.testing.assert_array_equal(masks_by_class(example)[f"part {number}"], mask)
        assert example.records[0].prompts == {0: ("",), 1: ("part 1", "part"), 2: ("left part 1",)}


def test_grey_masks_in_medvlsm_folders_are_thresholded(run, tmp_path):
    """In the middle, as public masks with soft edges need, or at --threshold."""
    write_medvlsm_set(tmp_path / "source", np.arange(256, dtype=np.uint8).reshape(16, 16))
    for options, marked in (((), 128), (("--threshold", 15), 240)):
        (example,) = run(*options).values()
        assert int(example.maps()[0].sum()) == marked


def test_broken_exif_and_orientation_in_xmp_are_ignored(run, source):
    """Broken EXIF and an orientation in XMP, which OpenCV passes over: the mask has the size of what it decodes."""
    rng = np.random.default_rng(0)
    for path in (*source.glob("images/*"), *source.glob("masks/*")):
        path.unlink()
    broken = b"Exif\0\0" + bytes(16)
    xmp = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
        <rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>"""
    options: dict[str, dict[str, Any]] = {
        "a.jpg": {"exif": broken, "dpi": (72, 72)},
        "b.png": {"exif": broken},
        "c.jpg": {"xmp": xmp},
    }
    for name, said in options.items():
        Image.fromarray(photo(rng, (16, 40))).save(source / "images" / name, **said)
        save(source / "masks" / f"{name[0]}.png", blob(rng, (16, 40)))
    examples = run("--prompt", "x", "--fractions", 1, 0, 0)
    assert [example.rgb().shape for example in examples.values()] == [(16, 40, 3)] * 3
    assert all(not image_stats("train", 0, example).faults for example in examples.values())


def test_grey_alpha_and_turned_photographs(run, source):
    """Photographs that EXIF turns, whose masks are upright; grey, deep and RGBA images; 1-bit and alpha masks."""
    rng = np.random.default_rng(0)
    for path in (*source.glob("images/*"), *source.glob("masks/*")):
        path.unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo(rng, (16, 40))).save(source / "images" / "turned.jpg", exif=exif)
    save(source / "masks" / "turned.png", blob(rng, (40, 16)))
    save(source / "images" / "grey.png", photo(rng)[..., 0])
    save(source / "masks" / "grey.png", np.dstack([blob(rng) * np.uint8(255), np.full((24, 32), 255, np.uint8)]))
    save(source / "images" / "deep.png", rng.integers(0, 65536, (24, 32), np.uint16))
    save(source / "masks" / "deep.png", blob(rng) * np.uint16(65535))
    save(source / "images" / "alpha.webp", np.dstack([photo(rng), np.full((24, 32), 9, np.uint8)]))
    save(source / "masks" / "alpha.png", blob(rng) * np.uint8(1))
    examples = run("--prompt", "x", "--fractions", 1, 0, 0)
    assert {
        key: (example.rgb().shape, int(masks_by_class(example)["x"].sum())) for key, example in examples.items()
    } == {
        "train/turned": ((40, 16, 3), 64),
        "train/grey": ((24, 32, 3), 64),
        "train/deep": ((24, 32, 3), 64),
        "train/alpha": ((24, 32, 3), 64),
    }
