"""Tests of splits that the names of folders tell, and of layouts that are found."""

import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

import mistakes
import pytest

from tunevlseg_jax.data.builders import folder_splits, layouts, matching, user_files
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.matching import Matched
from tunevlseg_jax.preparation import split_hints


def sources(root: Path, names: Iterable[str]) -> SourceFiles:
    """A source of empty files."""
    for name in names:
        path = root / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return SourceFiles([root / "source"], root / "unpacked")


def split_names(found: Matched) -> dict[str, str]:
    """The split of each image by its name and its masks' names."""
    return {" ".join([image.image, *(mask.file for mask in image.masks)]): image.split for image in found.files}


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("VALID", "val"),
        ("dev", "val"),
        ("imagesTr", "train"),
        ("labelsTs", "test"),
        ("TrainDataset", "train"),
        ("test_set", "test"),
        ("trainset", "train"),
        ("val2017", "val"),
        ("images-test", "test"),
        ("testing_masks", "test"),
        ("Tr", ""),
        ("images", ""),
        ("latest", ""),
        ("stress_test_ward", ""),
        ("trains", ""),
        ("train_val", ""),
        ("train_test_split", ""),
        ("eval", ""),
        ("Validación", ""),
    ],
)
def test_names_of_folders(folder, split):
    assert folder_splits.split_of(folder) == split


@pytest.mark.parametrize(
    "words",
    [
        ("tr", "va", "te"),
        ("trn", "vld", "tst"),
        ("train", "eval", "holdout"),
        ("training", "validate", "testing"),
        ("entrenamiento", "validación", "prueba"),
        ("entraînement", "validation", "test"),
        ("treino", "validação", "teste"),
        ("addestramento", "validazione", "prova"),
        ("Trainingsdaten", "Validierung", "Testdaten"),
        ("обучающая", "валидация", "тест"),
        ("eğitim", "doğrulama", "test"),
        ("训练集", "验证集", "测试集"),
        ("学習データ", "検証データ", "テストデータ"),
        ("학습", "검증", "시험"),
    ],
)
def test_short_and_foreign_words_tell_splits_together(words):
    paths = [f"{word}/images/{name}.png" for word in words for name in "ab"]
    splits = [split for split in ("train", "val", "test") for _ in "ab"]
    assert folder_splits.of_files(dict.fromkeys(paths, ())) == dict(zip(paths, splits, strict=True))
    assert folder_splits.of_files({f"{words[2]}_x/a.png": (), f"{words[2]}_y/b.png": ()}) == {} or words[2] in (
        "test",
        "testing",
    )
    assert matching.split_named(words[1], "a.png") == "val"


def test_other_words_count_only_where_train_is_told_apart():
    isic = ["ISIC_Part1_Training_Data/a.jpg", "ISIC_Part1_Test_Data/b.jpg"]
    assert folder_splits.of_files(dict.fromkeys(isic, ())) == dict(zip(isic, ("train", "test"), strict=True))
    blood = ["blood_test_2021/a.jpg", "blood_test_2022/b.jpg"]
    assert folder_splits.of_files(dict.fromkeys(blood, ())) == {}


def test_folders_above_all_images_and_classes_tell_nothing():
    paths = ["test/train/a.png", "test/val/b.png"]
    assert folder_splits.of_files(dict.fromkeys(paths, ())) == {paths[0]: "train", paths[1]: "val"}
    assert folder_splits.of_files({"a/train/x.png": ["train"], "a/bus/x.png": ["bus"]}) == {}
    assert folder_splits.of_files({"train/x.png": ()}) == {"train/x.png": "train"}
    assert folder_splits.of_files({}) == {}


LAYOUTS = {
    "a folder for each split": ("{}/images/{}.jpg", "{}/masks/{}.png"),
    "splits below": ("images/{}/{}.jpg", "masks/{}/{}.png"),
    "below, labels": ("set/images/{}/{}.jpg", "set/labels/{}/{}.png"),
    "joined words": ("{}_images/{}.jpg", "{}_masks/{}.png"),
    "joined words, reversed": ("img-{}/{}.jpg", "gt-{}/{}.png"),
    "masks beside images": ("{}/{}.jpg", "{}/{}_mask.png"),
    "masks with an end": ("x/{}/image/{}.jpg", "x/{}/mask/{}_segmentation.png"),
    "CamVid": ("{}/{}.png", "{}_labels/{}_L.png"),
    "ground truth": ("{}/Original/{}.tif", "{}/Ground Truth/{}.tif"),
    "data sets": ("{}Dataset/images/{}.jpg", "{}Dataset/masks/{}.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("words", [("train", "val", "test"), ("Training", "Validation", "Testing"), ("train", "valid")])
def test_every_layout_keeps_its_splits(tmp_path, layout, words):
    """Each split has images of the same names as the others."""
    image, mask = LAYOUTS[layout]
    source = sources(
        tmp_path, [text.format(word, name) for text in (image, mask) for word in words for name in ("1", "b 2")]
    )
    patterns = layouts.best(source)
    assert patterns is not None and patterns.pairs == 2 * len(words)
    found = matching.find(source, patterns.images, patterns.masks, ("x",), None)
    expected = {
        f"{image.format(word, name)} {mask.format(word, name)}": split
        for word, split in zip(words, ("train", "val", "test"), strict=False)
        for name in ("1", "b 2")
    }
    assert split_names(found) == expected and not found.notes


def test_patterns_without_split_keep_splits(tmp_path):
    names = [f"{kind}/{split}/{kind}/a.png" for kind in ("images", "masks") for split in ("train", "Test")]
    found = matching.find(sources(tmp_path, names), "images/{name}", "masks/{name}", ("x",), None)
    assert split_names(found) == {
        "images/Test/images/a.png masks/Test/masks/a.png": "test",
        "images/train/images/a.png masks/train/masks/a.png": "train",
    }


def test_splits_of_one_side_are_the_pairs(tmp_path):
    """Of images alone, and of masks alone."""
    source = sources(tmp_path / "a", ["images/train/a.png", "images/test/b.png", "masks/a.png", "masks/b.png"])
    found = matching.find(source, "images/*/{name}", "masks/{name}", ("x",), None)
    assert [image.split for image in found.files] == ["test", "train"]
    source = sources(tmp_path / "b", ["masks/train/a.png", "masks/test/b.png", "images/a.png", "images/b.png"])
    found = matching.find(source, "images/{name}", "masks/{split}/{name}", ("x",), None)
    assert [image.split for image in found.files] == ["train", "test"]


def test_nnunet(tmp_path):
    """The first channel is the image; images to predict on have no labels."""
    names = ["imagesTr/a_0000.png", "imagesTr/a_0001.png", "labelsTr/a.png", "imagesTs/b_0000.png"]
    source = sources(tmp_path, names)
    layout = layouts.best(source)
    assert layout == ("images{split}/{name}_0000", "labels{split}/{name}", 1)
    found = matching.find(source, layout.images, layout.masks, ("x",), None)
    assert split_names(found) == {"imagesTr/a_0000.png labelsTr/a.png": "train"}
    assert found.notes == [
        "left out: 1 images of test, which has no masks",
        "left out: 1 image files that fit neither pattern, such as imagesTr/a_0001.png",
    ]
    line, images = user_files.with_splits(found.files, "source", source)
    assert line.startswith("train, as the source says; val is drawn from train; it has no test")
    assert user_files.items(images, source, lambda *_: pytest.fail("read"))[0].splits == ("train", "val")
    sources(tmp_path, ["labelsTs/b.png"])
    source = SourceFiles([tmp_path / "source"], tmp_path)
    found = matching.find(source, layout.images, layout.masks, ("x",), None)
    assert [image.split for image in found.files] == ["train", "test"]


@pytest.mark.parametrize(
    "names", [("train", "valid"), ("ISIC_Training_Data", "ISIC_Validation_Data"), ("2021", "2022")]
)
def test_several_sources_may_be_the_splits(names, tmp_path):
    folders = []
    for name, image in zip(names, "ab", strict=True):
        sources(tmp_path / name, [f"images/{image}.png", f"masks/{image}.png"])
        folders.append((tmp_path / name / "source").rename(tmp_path / name / name))
    with zipfile.ZipFile(archive := tmp_path / f"{names[1]}.zip", "w") as file:
        for kind in ("images", "masks"):
            file.writestr(f"{kind}/b.png", b"")
    told = {"a": "train", "b": "val"} if names[0] != "2021" else {"a": "", "b": ""}
    for second in (folders[1], archive):
        source = SourceFiles([folders[0], second], tmp_path / "unpacked")
        found = matching.find(source, *layouts.PLAIN, ("x",), None)
        _, images = user_files.with_splits(found.files, "source", source)
        assert {image.id: image.split for image in images} == told
    found = matching.find(source := SourceFiles([folders[0]], tmp_path), *layouts.PLAIN, ("x",), None)
    assert user_files.with_splits(found.files, "source", source)[1][0].split == ""  # its own name may say anything


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["p1/images/a.png", "p2/images/b.png"], r"2 folders, such as p1 and p2; .*--masks \"{group}/masks/{name}\""),
        (["all/images/a.png", "all/images/b.png"], None),
        (["train/images/a.png", "val/images/b.png"], None),
    ],
)
def test_folders_that_may_be_patients_are_noted(names, says, tmp_path):
    """What the note proposes does it."""
    masks = [name.replace("images", "masks") for name in names]
    source = sources(tmp_path, [*names, *masks])
    found = matching.find(source, *layouts.PLAIN, ("x",), None)
    notes = split_hints.hints(found.files, *layouts.PLAIN, source)
    assert len(notes) == (says is not None)
    if says is not None:
        assert re.search(says, notes[0])
        found = matching.find(source, *re.findall(r'--\w+ "(.*?)"', notes[0]), ("x",), None)
        assert {image.group for image in found.files} == {"p1", "p2"}
        assert split_hints.hints(found.files, *layouts.PLAIN, source) == []


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train_1", "val_2", "test_3"], ["train", "val", "test"]),
        (["p1_Train", "p2-test", "p3.valid"], ["train", "test", "val"]),
        (["train_a_b", "test_c_train"], ["", ""]),
        (["train_1", "a_2"], ["", ""]),
        (["test_1", "test_2"], ["", ""]),
        (["strain_1", "contest_2"], ["", ""]),
    ],
)
def test_names_of_files_tell_splits_if_all_do(names, splits, tmp_path):
    source = sources(tmp_path, [f"{kind}/{name}.png" for kind in ("images", "masks") for name in names])
    found = matching.find(source, *layouts.PLAIN, ("x",), None)
    line, images = user_files.with_splits(found.files, "source", source)
    assert {image.id: image.split for image in images} == dict(zip(names, splits, strict=True))
    assert ("as the names of the images say" in line) == any(splits)


def test_tables_that_tell_splits_or_patients_are_noted(tmp_path):
    source = sources(tmp_path, [f"{kind}/{name}.png" for kind in ("images", "masks") for name in "ab"])
    (tmp_path / "source" / "info.csv").write_text("file;Subset;PatientID;id;set\na.png;1;2;3;4\n")
    (tmp_path / "source" / "ages.csv").write_text("id,age\na,40\n")
    (tmp_path / "source" / "splits_final.json").write_text('[{"train": ["a"], "val": ["b"]}]')
    source = SourceFiles([tmp_path / "source"], tmp_path / "unpacked")
    found = matching.find(source, *layouts.PLAIN, ("x",), None)
    notes = split_hints.hints(found.files, *layouts.PLAIN, source)
    assert [re.sub(r", which.*column (\w+).*", r" -> \1", note) for note in notes] == [
        "note: info.csv has the column 'Subset' -> split",
        "note: info.csv has the column 'PatientID' -> group",
        "note: splits_final.json has folds, which aren't read; --folds makes such",
    ]


def test_archives_in_folders_of_splits_and_named_after_splits(tmp_path):
    """train/all.zip, and train.zip; one archive alone says nothing, whatever its name."""
    for name, archives in {
        "a": ["train/all.zip", "val/all.zip"],
        "b": ["train.zip", "val.zip"],
        "c": ["test.zip"],
    }.items():
        for number, archive in enumerate(archives):
            (path := tmp_path / name / archive).parent.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(path, "w") as file:
                for kind in ("images", "masks"):
                    file.writestr(f"{kind}/{number}.png", kind)
        source = SourceFiles([tmp_path / name], tmp_path / "unpacked")
        found = matching.find(source, *layouts.PLAIN, ("x",), None)
        _, images = user_files.with_splits(found.files, "source", source)
        assert [image.split for image in images] == ([""] if name == "c" else ["train", "val"])


def test_gif_masks_and_unread_archives(tmp_path):
    """DRIVE's masks are GIF."""
    names = ["images/21_training.tif", "1st_manual/21_manual1.gif", "more.rar"]
    found = matching.find(sources(tmp_path, names), "images/{name}_training", "1st_manual/{name}_manual1", ("x",), None)
    assert [image.masks[0].file for image in found.files] == ["1st_manual/21_manual1.gif"]
    assert found.notes == ["left out: more.rar, which isn't read; unpack it"]
    with mistakes.raises(r"no-images: 1 \.gif, 1 \.tif, 1 \.rar .*; unpack the archives first"):
        matching.find(SourceFiles([tmp_path / "source"], tmp_path), "photos/{name}", "masks/{name}", ("x",), None)


def test_random_splits_are_asked_for(tmp_path):
    """Also where the splits aren't clear, and images of two splits have the same name."""
    names = [
        f"{place}{kind}/{name}.png" for kind in ("images", "masks") for place, name in (("train/", "a"), ("", "b"))
    ]
    source = sources(tmp_path / "a", names)
    found = matching.find(source, *layouts.PLAIN, ("x",), None, use_splits=False)
    line, images = user_files.with_splits(found.files, "random", source)
    assert line == "drawn by --fractions and --seed" and {image.split for image in images} == {""}
    source = sources(
        tmp_path / "b", [f"{split}/{kind}/a.png" for kind in ("images", "masks") for split in ("train", "val")]
    )
    found = matching.find(source, *layouts.PLAIN, ("x",), None, use_splits=False)
    _, images = user_files.with_splits(found.files, "random", source)
    assert [image.id for image in images] == ["train/a", "val/a"]


def test_copies_of_roboflow_are_a_group(tmp_path):
    names = [f"train/{name}_jpg.rf.{copy}{end}" for name in "ab" for copy in "12" for end in (".jpg", "_mask.png")]
    source = sources(tmp_path, names)
    found = matching.find(source, "{name}", "{name}_mask", ("x",), None)
    _, images = user_files.with_splits(found.files, "source", source)
    assert [(image.id, image.group, image.split) for image in images] == [
        (f"{name}_jpg.rf.{copy}", name, "train") for name in "ab" for copy in "12"
    ]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (
            ["train/images/a.png", "images/b.png"],
            "split-missing: train/images/a.png .*train.* images/b.png in none.*random",
        ),
        (["train/val/images/a.png", "x/images/b.png"], "split-unclear: train/val/images/a.png .*train and val.*random"),
        (["train/images/a.png", "train/images/b.png", "train/masks/a.png"], "mask-missing: train/images/b.png"),
        (["p1/images/a.png", "p2/images/a.png", "p1/masks/a.png"], r"duplicate-image: p1/.*p2/.*\{group\}"),
        (["images/a.png", "p1/masks/a.png", "p2/masks/a.png"], r"duplicate-mask: p1/masks/a.png and p2/.*\{group\}"),
        (["test/images/a.png", "val/images/b.png"], "mask-missing: test/images/a.png"),
        (["images/a.png", "masks/a.npy"], "mask-missing: images/a.png .*; masks/a.npy is no image file .*as PNG"),
    ],
)
def test_what_is_unclear_is_refused(tmp_path, names, says):
    names += [name.replace("images", "masks") for name in names] if "split" in says else []
    with mistakes.raises(says):
        matching.find(sources(tmp_path, names), *layouts.PLAIN, ("x",), None)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["images/a.nii.gz", "masks/a.nii.gz"], r"no-images: 2 \.gz .*; prepare volumes reads medical files"),
        (["images/a.DCM", "masks/a.png"], r"no-images: 1 \.dcm.*; prepare dicom reads medical files"),
        (["notes.txt", "a/b.txt"], r"no-images: it has 2 \.txt in \. \(1\), a \(1\); images are \.bmp"),
        (
            ["img/a.png", "img/b.png", "GT/a.png", "GT/b.png"],
            r'no-images: 4 \.png in GT \(2\), img \(2\); --images "img/\{name\}" --masks "GT/\{name\}" fits 2 images',
        ),
        (
            ["p1/a.jpg", "p1/a_mask.png"],
            r'no-images: 1 .jpg, 1 .png in p1 \(2\); --images "p1/\{name\}" --masks "p1/\{name\}_mask" fits 1 images',
        ),
    ],
)
def test_no_image_says_what_is_there(tmp_path, names, says):
    with mistakes.raises(says):
        matching.find(sources(tmp_path, names), *layouts.PLAIN, ("x",), None)
