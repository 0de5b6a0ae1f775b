"""Tests of the ten public sets: tiny copies of the downloads, whose masks must come out pixel by pixel as meant."""

import json
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import fake_downloads
import mistakes
import nibabel
import numpy as np
import pytest
import small
from fake_downloads import Meant

from tunevlseg_jax.data import prepared
from tunevlseg_jax.data.builders import annotation_files
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.catalogue import PUBLIC
from tunevlseg_jax.data.builders.writer import Contents, Written, build
from tunevlseg_jax.data.examples import VOID
from tunevlseg_jax.data.images import encode_png


def make(name: str, source: Path, root: Path, annotated: Path | None = None, seed: int = 0) -> dict[str, Written]:
    def contents(unpacked: Path) -> Contents:
        public = PUBLIC[name]
        splits = public.splits(SourceFiles([source], unpacked), annotated, seed)
        return Contents(splits, public.about, test_is_val=public.test_is_val)

    return build(root, name, contents)


@pytest.fixture(scope="module", params=fake_downloads.COPIES)
def copy(request, tmp_path_factory) -> tuple[str, Path, Meant]:
    name, write = fake_downloads.COPIES[request.param]
    source = tmp_path_factory.mktemp("source")
    return name, source, write(source, np.random.default_rng(3))


def test_masks_are_what_the_download_means(copy, tmp_path):
    name, source, meant = copy
    written = make(name, source, tmp_path)
    seen = {}
    for split in written:
        examples = prepared.load(tmp_path, name, split)
        assert len(examples) == written[split].images
        for example in examples:
            assert example.id not in seen, "an image in two splits"
            maps = example.maps()
            assert example.rgb().shape[:2] == maps[0].shape
            if example.id in meant.photos:
                np.testing.assert_array_equal(example.rgb(), meant.photos[example.id])
            seen[example.id] = {record.id: maps[record.mask] == record.value for record in example.records}
            assert {record.id: record.phrasings() for record in example.records} == {
                record: meant.prompts[record] for record in seen[example.id]
            }
            assert example.group == meant.groups[example.id]
    assert {image: set(masks) for image, masks in seen.items()} == {
        image: set(masks) for image, masks in meant.masks.items()
    }
    for image, masks in meant.masks.items():
        for record, mask in masks.items():
            np.testing.assert_array_equal(seen[image][record], mask, record)


def annotate(folder: Path, rows: dict[str, list[tuple[str, str, dict]]]) -> Path:
    """Writes medvlsm's data/NAME/anns/SPLIT.json, of (image, mask, prompts); returns data/."""
    (folder / "anns").mkdir(parents=True, exist_ok=True)
    for split in prepared.SPLITS:
        records = [
            {"img_name": image, "mask_name": mask, "prompts": prompts} for image, mask, prompts in rows.get(split, [])
        ]
        (folder / "anns" / f"{split}.json").write_text(json.dumps(records))
    return folder.parent


def test_annotations_give_splits_and_prompts_record_for_record(tmp_path):
    """Repeated rows stay, and so do images in two splits; every level of the prompts is kept."""
    meant = fake_downloads.kvasir(tmp_path / "source", np.random.default_rng(0))
    ladder = {"p0": "", "p1": "polyp", "p2": "round polyp", "p7": ["polyp which grows", "polyp which is a lump"]}
    rows = {
        "train": [(f"cju{number}.jpg", f"cju{number}.jpg", ladder) for number in (7, 2, 7, 1)],
        "val": [("cju2.jpg", "cju2.jpg", {"p1": "no polyp"})],
        "test": [("cju0.jpg", "cju0.jpg", ladder)],
    }
    data = annotate(tmp_path / "medvlsm" / "kvasir_polyp", rows)
    written = make("kvasir", tmp_path / "source", tmp_path, data)
    assert written == {"train": (3, 4), "val": (1, 1), "test": (1, 1)}
    train = list(prepared.load(tmp_path, "kvasir", "train"))
    assert [[record.id for record in example.records] for example in train] == [["cju7", "cju7#2"], ["cju2"], ["cju1"]]
    assert train[0].records[1].prompts == {
        0: ("",),
        1: ("polyp",),
        2: ("round polyp",),
        7: ("polyp which grows", "polyp which is a lump"),
    }
    np.testing.assert_array_equal(train[1].maps()[0], meant.masks["cju2"]["cju2"])
    (val,) = prepared.load(tmp_path, "kvasir", "val")
    assert (val.id, val.records[0].label, val.records[0].phrasings()) == ("cju2", "polyp", ("no polyp",))


def camus_rows(patients: dict[str, int], sex: str) -> dict:
    prompts = {"p1": ["Myocardium of the heart."], "p4": [f"Myocardium of the heart of a {sex}."]}
    return {
        split: [(f"patient{number:04d}_4CH_ES.png", f"mask_2/patient{number:04d}_4CH_ES_gt.png", prompts)]
        for split, number in patients.items()
    }


@pytest.mark.parametrize("release", [fake_downloads.camus, fake_downloads.camus_old])
def test_camus_test_patients_are_those_of_the_older_test_folder(release, tmp_path):
    """The annotations call them 1, 2, ... as the training patients are called, in either release."""
    meant = release(tmp_path / "source", np.random.default_rng(0))
    patients = {"train": 1, "val": 7, "test": 1}
    data = annotate(tmp_path / "medvlsm" / "camus", camus_rows(patients, "male"))
    make("camus", tmp_path / "source", tmp_path, data)
    for split, patient in {"train": "patient0001", "val": "patient0007", "test": "patient0451"}.items():
        (example,) = prepared.load(tmp_path, "camus", split)
        (record,) = example.records
        assert (example.group, record.label, record.phrasings()) == (
            patient,
            "Myocardium",
            ("Myocardium of the heart.",),
        )
        mask = meant.masks[f"{patient}_4CH_ES"][f"mask_2/{patient}_4CH_ES_gt"]
        np.testing.assert_array_equal(example.maps()[record.mask] == record.value, mask)


def test_camus_release_with_other_numbers_is_refused(tmp_path):
    fake_downloads.camus(tmp_path / "source", np.random.default_rng(0))
    data = annotate(tmp_path / "medvlsm" / "camus", camus_rows({"train": 1, "val": 7, "test": 1}, "female"))
    with mistakes.raises("patient-differs: patient0001_4CH_ES.*female.*patient0001.*M"):
        make("camus", tmp_path / "source", tmp_path, data)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (
            [("cju99.jpg", "cju99.jpg", {"p1": "polyp"})],
            "image-missing: 1 of 1 .*'cju99'",
        ),
        ([("cju1.jpg", "cju2.jpg", {"p1": "polyp"})], r"mask-missing: train\.json .*'cju2\.jpg'"),
        ([("cju1.jpg", "cju1.jpg", {"p1": 3})], r"wrong-prompts: record 1 of.*train\.json.*'p1'"),
        ([("cju1.jpg", None, {"p1": "polyp"})], r"missing-field: record 1 of.*train\.json.*mask_name"),
        ([], r"wrong-json: train\.json"),
    ],
)
def test_annotations_that_do_not_fit_are_refused(rows, says, tmp_path):
    fake_downloads.kvasir(tmp_path / "source", np.random.default_rng(0))
    data = annotate(tmp_path / "medvlsm" / "kvasir_polyp", dict.fromkeys(prepared.SPLITS, rows))
    with mistakes.raises(says):
        make("kvasir", tmp_path / "source", tmp_path / "data", data)
    assert not list((tmp_path / "data").iterdir())


def test_seeded_splits_keep_groups_together_and_strata_in_proportion(tmp_path):
    busi = fake_downloads.busi(tmp_path / "downloads" / "busi", np.random.default_rng(0))
    make("busi", tmp_path / "downloads" / "busi", tmp_path, seed=1)
    for split, count in (("train", 8), ("val", 1), ("test", 1)):
        kinds = [example.id.partition("_")[2] for example in prepared.load(tmp_path, "busi", split)]
        assert {kind: kinds.count(kind) for kind in kinds} == {"benign": count, "malignant": count, "normal": count}
    assert len(busi.masks) == 30
    fake_downloads.chexlocalize(tmp_path / "downloads" / "chex", np.random.default_rng(0))
    make("chexlocalize", tmp_path / "downloads" / "chex", tmp_path)
    groups = [
        {example.group for example in prepared.load(tmp_path, "chexlocalize", split)} for split in prepared.SPLITS
    ]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 10 and all(groups)


def test_another_seed_gives_another_split(tmp_path):
    fake_downloads.kvasir(tmp_path / "source", np.random.default_rng(0))
    test = []
    for place, seed in (("a", 0), ("b", 0), ("c", 1)):
        make("kvasir", tmp_path / "source", tmp_path / place, seed=seed)
        test.append([example.id for example in prepared.load(tmp_path / place, "kvasir", "train")])
    assert test[0] == test[1] != test[2]


def test_isic_keeps_the_official_test_part(tmp_path):
    fake_downloads.isic2016(tmp_path / "source", np.random.default_rng(0))
    make("isic2016", tmp_path / "source", tmp_path)
    assert {example.id for example in prepared.load(tmp_path, "isic2016", "test")} == {
        f"ISIC_{number:07d}" for number in range(10, 14)
    }


def test_void_and_ids_that_are_not_asked_for_stay_void(tmp_path):
    fake_downloads.voc2012_set(tmp_path / "downloads" / "voc", np.random.default_rng(0))
    make("voc2012", tmp_path / "downloads" / "voc", tmp_path)
    for example in prepared.load(tmp_path, "voc2012", "test"):  # which is val
        assert (example.maps()[0] == VOID).sum() == 7 and len(example.maps()) == 1
    assert [example.id for example in prepared.load(tmp_path, "voc2012", "test")] == ["2007_000004", "2007_000005"]
    assert prepared.splits(prepared.find(tmp_path, "voc2012")) == ("train", "val", "test")
    fake_downloads.cityscapes(tmp_path / "downloads" / "cityscapes", np.random.default_rng(0))
    make("cityscapes", tmp_path / "downloads" / "cityscapes", tmp_path)
    for example in prepared.load(tmp_path, "cityscapes", "train"):
        assert set(np.unique(example.maps()[0])) == {VOID, *(record.value for record in example.records)}


MEDVLSM = os.environ.get("TUNEVLSEG_MEDVLSM", "")


class Named(SourceFiles):
    """Files of these names that all hold one picture."""

    def __init__(self, names: Iterable[str], data: bytes):
        self.paths = ()
        self._readers = {name: [lambda: data] for name in names}


def downloaded(name: str, image: str, mask: str) -> tuple[str, ...]:
    """What the official download calls the files that an annotation names."""
    key = image.partition(".")[0]
    if name == "busi":
        number, kind = key.split("_")
        return f"{kind}/{kind} ({number}).png", f"{kind}/{kind} ({number})_mask.png"
    return {
        "kvasir": (f"Kvasir-SEG/images/{image}", f"Kvasir-SEG/masks/{mask}"),
        "clinicdb": (f"CVC-ClinicDB/Original/{key}.tif", f"CVC-ClinicDB/Ground Truth/{key}.tif"),
        "bkai": (f"train/train/{image}", f"train_gt/train_gt/{mask}"),
        "isic2016": (f"ISBI2016_ISIC_Part1_Test_Data/{image}", f"ISBI2016_ISIC_Part1_Test_GroundTruth/{mask}"),
        "dfu2022": (f"DFUC2022_train_images/{image}", f"DFUC2022_train_masks/{mask}"),
    }[name]


@pytest.mark.skipif(not MEDVLSM, reason="TUNEVLSEG_MEDVLSM names no copy of medvlsm")
@pytest.mark.parametrize("name", ["kvasir", "clinicdb", "bkai", "isic2016", "dfu2022", "busi", "chexlocalize"])
def test_real_annotations_give_the_counts_of_the_paper(name, tmp_path):
    """Over a download whose files have the official names and all show the same."""
    data = Path(MEDVLSM) / "data"
    folder = data / PUBLIC[name].annotated / "anns"
    rows = [row for split in prepared.SPLITS for row in annotation_files.read(folder / f"{split}.json")]
    picture = encode_png(np.zeros((4, 4, 3), np.uint8))
    if name == "chexlocalize":
        files, masks = set(), {}
        for row in rows:
            key = row.image.partition(".")[0]
            *folders, view = key.split("_")
            files.add(f"CheXpert/val/{'/'.join(folders)}_{view}.jpg")
            finding = row.mask.partition(".")[0].removeprefix(f"{key}_").replace("_", " ").title()
            masks.setdefault(key, {})[finding] = {"size": [4, 4], "counts": [3, 13]}
        source = Named(files, picture)
        source._readers["CheXlocalize/gt_segmentations_val.json"] = [lambda: json.dumps(masks).encode()]
    else:
        source = Named({file for row in rows for file in downloaded(name, row.image, row.mask)}, picture)
    splits = PUBLIC[name].splits(source, data, 0)
    counts = {split: sum(len(example.records) for example in examples) for split, examples in splits.items()}
    assert counts == PUBLIC[name].sizes._asdict()


@pytest.mark.slow
def test_killed_command_leaves_no_set_that_loads(tmp_path):
    """The command is killed as soon as its files appear; given again, it makes the set."""
    rng = np.random.default_rng(0)
    for number in range(300):
        fake_downloads.save(tmp_path / "source" / "images" / f"{number}.jpg", fake_downloads.photo(rng))
        fake_downloads.save(tmp_path / "source" / "masks" / f"{number}.jpg", fake_downloads.blob(rng) * np.uint8(255))
    command = ["-m", "tunevlseg_jax.prepare", "kvasir", "--source", tmp_path / "source", "--output", tmp_path / "data"]
    process = small.start(*command)
    while not list((tmp_path / "data").glob(".kvasir.incomplete/*/*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.kill()
    assert small.finish(process)[0] == -signal.SIGKILL
    assert prepared.names(tmp_path / "data") == () and list((tmp_path / "data").iterdir())
    with mistakes.raises("no-such-data-set: 'kvasir'"):
        prepared.load(tmp_path / "data", "kvasir", "train")
    assert small.finish(small.start(*command))[0] == 0
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["kvasir"]
    assert sum(len(prepared.load(tmp_path / "data", "kvasir", split)) for split in prepared.SPLITS) == 300


@pytest.mark.parametrize(
    ("suffix", "value", "says"),
    [
        ("_gt", 1.5, "wrong-type: patient0002_4CH_ES_gt.*whole numbers, got 1.5"),
        ("_gt", np.nan, "wrong-type: patient0002_4CH_ES_gt.*got nan"),
        ("_gt", 7, "unknown-class: patient0002_4CH_ES_gt.*the value 7"),
        ("", 300, "out-of-range: patient0002_4CH_ES.*from 0 to 255, got 300 to 300"),
        ("", -1, "out-of-range: patient0002_4CH_ES.*from 0 to 255"),
        ("", np.nan, "out-of-range: patient0002_4CH_ES.*from 0 to 255, got nan"),
    ],
)
def test_camus_files_of_other_numbers_are_refused(suffix, value, says, tmp_path):
    fake_downloads.camus(tmp_path / "source", np.random.default_rng(0))
    path = next((tmp_path / "source").rglob(f"patient0002_4CH_ES{suffix}.nii.gz"))
    nibabel.save(nibabel.Nifti1Image(np.full((6, 10), value, np.float32), np.eye(4)), path)
    with mistakes.raises(says):
        make("camus", tmp_path / "source", tmp_path / "data")
