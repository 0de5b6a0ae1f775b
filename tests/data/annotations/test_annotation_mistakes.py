"""Tests of broken annotation files: one line names the file, the entry and what is wrong."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_scene import FIXTURES, masks, read
from fake_downloads import save
from mistakes import raises

from tunevlseg_jax.data.builders.annotations import yolo
from tunevlseg_jax.data.builders.archives import SourceFiles

Change = Callable[[Any], object]
JSON = {
    "coco_polygons": "annotations/instances_train.json",
    "coco_masks": "annotations/instances_train.json",
    "labelme": "im0.json",
    "labelstudio": "project-1-at-2026.json",
    "labelstudio_min": "labelstudio_min.json",
    "supervisely": "train/ann/im0.png.json",
}


@pytest.fixture
def export(tmp_path) -> Callable[[str], Path]:
    """Copies an export."""
    return lambda folder: Path(shutil.copytree(FIXTURES / folder, tmp_path / folder))


def read_all(source: Path, **options: Any) -> None:
    for item in read(source, **options)[1].values():
        masks(item)


def first(doc: Any, name: str = "annotations") -> Any:
    return doc[name][0]


def region(doc: Any, number: int = 0, task: int = 0) -> Any:
    return doc[task]["annotations"][0]["result"][number]


CHANGES: dict[str, tuple[str, Change, str]] = {
    "unknown category": (
        "coco_polygons",
        lambda doc: first(doc).update(category_id=7),
        r"unknown-class: annotation 1 of .*instances_train\.json .*category 7.*\[1, 2\]",
    ),
    "unknown image": (
        "coco_polygons",
        lambda doc: first(doc).update(image_id=99),
        r"image-missing: annotation 1 of .*image 99",
    ),
    "image file missing": (
        "coco_polygons",
        lambda doc: first(doc, "images").update(file_name="im9.png"),
        r"image-missing: image 1 of .*instances_train\.json .*'im9\.png'",
    ),
    "size disagrees": (
        "coco_polygons",
        lambda doc: first(doc, "images").update(width=81),
        r"mask-size: annotation 1 of .*81x60.*80x60",
    ),
    "turned": (
        "coco_polygons",
        lambda doc: first(doc, "images").update(width=60, height=80),
        "mask-size: annotation 1 of .*60x80.*80x60.*EXIF",
    ),
    "two points": (
        "coco_polygons",
        lambda doc: first(doc).update(segmentation=[[1, 2, 3, 4]]),
        r"too-few-points: annotation 1 of .*2 points",
    ),
    "odd numbers": (
        "coco_polygons",
        lambda doc: first(doc).update(segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
        "wrong-json: annotation 1 of .*two numbers",
    ),
    "not a number": (
        "coco_polygons",
        lambda doc: first(doc)["segmentation"][0].__setitem__(3, math.nan),
        "out-of-range: annotation 1 of .*not a number",
    ),
    "box alone": (
        "coco_polygons",
        lambda doc: first(doc).update(segmentation=[]),
        "mask-missing: annotation 1 of .*box",
    ),
    "no segmentation": (
        "coco_polygons",
        lambda doc: first(doc).pop("segmentation"),
        "mask-missing: annotation 1 of .*box",
    ),
    "duplicate annotation": (
        "coco_polygons",
        lambda doc: doc["annotations"].append(first(doc)),
        r"duplicate-id: instances_train\.json has two of annotation 1",
    ),
    "duplicate image": (
        "coco_polygons",
        lambda doc: doc["images"].append(first(doc, "images")),
        "duplicate-id: two of image 1",
    ),
    "image twice": (
        "coco_polygons",
        lambda doc: doc["images"].append(first(doc, "images") | {"id": 77}),
        r"duplicate-image: im0\.png is annotated twice",
    ),
    "outside": (
        "coco_polygons",
        lambda doc: first(doc).update(segmentation=[[90, 5, 99, 5, 99, 9]]),
        "outside-image: annotation 1 of .*80x60",
    ),
    "far outside": (
        "coco_polygons",
        lambda doc: first(doc).update(segmentation=[[1, 5, 1e9, 5, 99, 9]]),
        r"outside-image: annotation 1 of .*1000000000\.0",
    ),
    "runs of another size": (
        "coco_masks",
        lambda doc: first(doc)["segmentation"].update(size=[80, 60]),
        r"mask-size: annotation 1 of .*\[80, 60\].*\[60, 80\]",
    ),
    "runs too short": (
        "coco_masks",
        lambda doc: first(doc)["segmentation"]["counts"].pop(),
        r"undecodable: annotation 1 of .*not 60 x 80",
    ),
    "negative runs": (
        "coco_masks",
        lambda doc: first(doc)["segmentation"]["counts"].extend([-5, 5]),
        "undecodable: annotation 1 of",
    ),
    "text cut off": (
        "coco_masks",
        lambda doc: first(doc)["segmentation"].update(counts="eo"),
        "undecodable: annotation 1 of .*end in the middle",
    ),
    "LabelMe, two points": (
        "labelme",
        lambda doc: first(doc, "shapes").update(points=[[1, 2], [3, 4]]),
        r"too-few-points: shape 1 of im0\.json",
    ),
    "LabelMe, a line": (
        "labelme",
        lambda doc: first(doc, "shapes").update(shape_type="linestrip"),
        r"no-area: shape 1 of im0\.json is a linestrip",
    ),
    "LabelMe, no label": (
        "labelme",
        lambda doc: first(doc, "shapes").pop("label"),
        r"missing-field: shape 1 of im0\.json .*'label'",
    ),
    "LabelMe, another size": (
        "labelme",
        lambda doc: doc.update(imageHeight=50),
        r"mask-size: shape 1 of im0\.json .*80x50.*80x60",
    ),
    "LabelMe, no image": (
        "labelme",
        lambda doc: doc.update(imagePath="..\\photos\\x.png"),
        r"image-missing: im0\.json .*x\.png",
    ),
    "Label Studio, another size": (
        "labelstudio",
        lambda doc: region(doc).update(original_width=40),
        r"mask-size: region 1 of task 1 of project-1-at-2026\.json",
    ),
    "Label Studio, cut off": (
        "labelstudio",
        lambda doc: region(doc)["value"].update(rle=region(doc)["value"]["rle"][:-9]),
        "undecodable: region 1 of task 1 of .*too early",
    ),
    "Label Studio, no bytes": (
        "labelstudio",
        lambda doc: region(doc)["value"].update(rle=[1, 2, 300]),
        "undecodable: region 1 of task 1 of .*bytes",
    ),
    "Label Studio, two annotations": (
        "labelstudio",
        lambda doc: doc[0]["annotations"].append(doc[0]["annotations"][0]),
        "several-annotations: task 1 of .*2 annotations",
    ),
    "Label Studio, turned": (
        "labelstudio",
        lambda doc: region(doc).update(image_rotation=90),
        "image-turned: region 1 of task 1 of",
    ),
    "Label Studio, key point": (
        "labelstudio",
        lambda doc: region(doc).update(value={"x": 1, "y": 2, "width": 1, "keypointlabels": ["a"]}),
        "no-area: region 1 of task 1 of",
    ),
    "Label Studio, no class": (
        "labelstudio",
        lambda doc: region(doc)["value"].pop("brushlabels"),
        "missing-field: region 1 of task 1 of .*class",
    ),
    "Label Studio, no image": (
        "labelstudio",
        lambda doc: doc[0]["data"].update(image="s3://bucket/other.png"),
        r"image-missing: task 1 of .*other\.png",
    ),
    "JSON-MIN, two annotations": (
        "labelstudio_min",
        lambda doc: doc.append(doc[0]),
        "several-annotations: task 1 of",
    ),
    "Supervisely, broken bitmap": (
        "supervisely",
        lambda doc: first(doc, "objects")["bitmap"].update(data="eJzrDPBz5+WS"),
        r"undecodable: object 1 of train/ann/im0\.png\.json",
    ),
    "Supervisely, outside": (
        "supervisely",
        lambda doc: first(doc, "objects")["bitmap"].update(origin=[100, 5]),
        r"outside-image: object 1 of train/ann/im0\.png\.json",
    ),
    "Supervisely, a point": (
        "supervisely",
        lambda doc: first(doc, "objects").update(geometryType="point"),
        r"no-area: object 1 of train/ann/im0\.png\.json .*'point'",
    ),
    "Supervisely, another size": (
        "supervisely",
        lambda doc: doc["size"].update(height=61),
        r"mask-size: object 1 of train/ann/im0\.png\.json .*80x61",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_broken_entry_is_one_line(change, export):
    folder, alter, says = CHANGES[change]
    path = export(folder) / JSON[folder]
    document = json.loads(path.read_text())
    alter(document)
    path.write_text(json.dumps(document))
    with raises(says):
        read_all(path.parents[len(Path(JSON[folder]).parts) - 1])


TEXTS: dict[str, tuple[str, str, str, str, str]] = {
    "JSON cut off": ("labelme", "im0.json", '"version"', "", r"unreadable: im0\.json"),
    "XML cut off": ("cvat_polygons", "train.xml", "</annotations>", "", r"unreadable: train\.xml"),
    "CVAT, two points": (
        "cvat_polygons",
        "train.xml",
        "50.00,40.00;70.00,40.00;60.00,55.00",
        "1,2;3,4",
        r"too-few-points: polygon number 2 of im0\.png in train\.xml",
    ),
    "CVAT, a word": (
        "cvat_polygons",
        "train.xml",
        "50.00,40.00",
        "a,b",
        r"wrong-json: polygon number 2 of im0\.png in train\.xml",
    ),
    "CVAT, runs": (
        "cvat_masks",
        "train.xml",
        'rle="408, ',
        'rle="409, ',
        r"undecodable: mask number 1 of im0\.png in train\.xml .*4801",
    ),
    "CVAT, a line": (
        "cvat_polygons",
        "train.xml",
        "<polygon",
        "<polyline",
        r"unreadable: train\.xml",  # its end tag differs
    ),
    "CVAT, another size": (
        "cvat_polygons",
        "train.xml",
        'width="80"',
        'width="90"',
        r"mask-size: polygon number 1 of im0\.png in train\.xml .*90x60",
    ),
    "CVAT, no image": (
        "cvat_polygons",
        "train.xml",
        'name="im0.png"',
        'name="im9.png"',
        r"image-missing: image 0 of train\.xml .*im9\.png",
    ),
    "labelmap": (
        "cvat_label_maps",
        "labelmap.txt",
        "vein:0,128,0::",
        "vein 0 128 0",
        r"class-value: line 3 of labelmap\.txt .*'vein 0 128 0'",
    ),
    "colour of another class": (
        "cvat_label_maps",
        "labelmap.txt",
        "vein:0,128,0::",
        "vein:0,128,9::",
        r"unknown-class: SegmentationClass/im0\.png .*\(0, 128, 0\)",
    ),
    "one colour twice": (
        "cvat_label_maps",
        "labelmap.txt",
        "vein:0,128,0::",
        "vein:250,50,83::",
        r"rows-disagree: line 4 of labelmap\.txt",
    ),
    "in two splits": (
        "cvat_label_maps",
        "ImageSets/Segmentation/val.txt",
        "im1",
        "im1\nim0",
        r"rows-disagree: ImageSets/Segmentation/val\.txt has im0",
    ),
    "YOLO, unknown class": (
        "yolo",
        "labels/im0.txt",
        "1 0.02500",
        "5 0.02500",
        r"unknown-class: line 3 of labels/im0\.txt .*'5'.*data\.yaml has \[0, 1\]",
    ),
    "YOLO, pixels": (
        "yolo",
        "labels/im0.txt",
        "1 0.02500",
        "1 20.2500",
        r"out-of-range: line 3 of labels/im0\.txt .*20\.25",
    ),
    "YOLO, names": ("yolo", "data.yaml", "[wound, vein]", "wound", r"missing-field: data\.yaml .*names"),
    "YOLO, YAML": ("yolo", "data.yaml", "[wound, vein]", "[wound", r"unreadable: data\.yaml"),
}


@pytest.mark.parametrize("change", TEXTS)
def test_a_broken_text_is_one_line(change, export):
    folder, file, old, new, says = TEXTS[change]
    path = export(folder) / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1) if new else text[: text.index(old) + 1])
    with raises(says):
        read_all(path.parents[len(Path(file).parts) - 1])


def test_a_box_of_yolo_is_no_mask(export):
    source = export("yolo")
    (source / "labels" / "im0.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    with raises(r"mask-missing: line 1 of labels/im0\.txt has a box"):
        read_all(source)


def test_labels_of_yolo_need_names(export):
    """An empty line is the name of a class, so that the numbers of the others stay."""
    source = export("yolo")
    (source / "data.yaml").unlink()
    with raises(r"class-count: labels/.*\.txt has polygons .*classes\.txt"):
        yolo.check_named(SourceFiles([source], source))
    (source / "classes.txt").write_text("wound\n\nvein\n\n")
    found = yolo.documents(SourceFiles([source], source))
    assert found is not None and found.names == {0: "wound", 1: "", 2: "vein"}


def test_a_video_of_cvat_is_refused(export):
    source = export("cvat_polygons")
    (source / "train.xml").write_text("<annotations><track id='0' label='x'></track></annotations>")
    with raises(r'wrong-xml: train\.xml .*"CVAT for images 1\.1"'):
        read_all(source)


def test_several_formats_need_a_choice(export):
    source = export("yolo")
    shutil.copytree(FIXTURES / "coco_polygons" / "annotations", source / "annotations")
    with raises("ambiguous-format: coco, yolo.*--format"):
        read_all(source)
    read_all(source, format="yolo")
    with raises("no-annotations: --format labelme.*coco, yolo"):
        read_all(source, format="labelme")


def test_brushes_of_several_people_are_refused(export):
    source = export("labelstudio_png")
    mask = source / "task-1-annotation-11-by-1-tag-vein-0.png"
    shutil.copy(mask, source / "task-1-annotation-19-by-2-tag-vein-0.png")
    with raises("several-annotations: task 1 .*11 by 1 and 19 by 2"):
        read_all(source)


def test_brushes_without_their_image_say_what_to_export(export):
    source = export("labelstudio_png")
    (source / "task-1.png").unlink()
    with raises(r"image-missing: task-1-annotation-11.*task 1.*JSON"):
        read_all(source)


def test_label_maps_without_names_ask_for_a_table(export):
    source = export("cvat_label_maps")
    (source / "labelmap.txt").unlink()
    with raises("missing-option: SegmentationClass.*labelmap.txt.*--classes"):
        read_all(source)


def test_an_ambiguous_image_is_named(export):
    source = export("coco_polygons")
    save(source / "other" / "im0.png", np.zeros((60, 80, 3), np.uint8))
    document = json.loads((source / JSON["coco_polygons"]).read_text())
    (source / "im.json").write_text(json.dumps(document))
    shutil.rmtree(source / "annotations")
    (source / "images" / "train").rename(source / "photos")
    with raises(r"duplicate-image: image 1 of im\.json .*other/im0\.png or photos/im0\.png"):
        read_all(source)
