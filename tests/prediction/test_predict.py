"""Tests of the command predict with a model whose masks are known: what is written, kept, named and left out."""

import hashlib
import io
import os
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import predicted
import pytest
from fake_predictor import FakePredictor
from numpy.testing import assert_array_equal
from predicted import GREY, RED, mask, rows, save

from tunevlseg_jax import predict
from tunevlseg_jax.prediction import session

predictor, run = predicted.predictor, predicted.run


def test_another_prompt_threshold_or_run_gets_a_mask_of_its_own(run):
    """And the same question again keeps its mask."""
    image = save("a.png", RED, GREY)
    given = ("--image", "a.png", "--output", "out")
    asked = [
        ("red", 0.5, "runs/one", "a"),
        ("green", 0.5, "runs/one", "a_green"),
        ("red", 0.9, "runs/one", "a_threshold0.9"),
        ("green", 0.9, "runs/one", "a_green_threshold0.9"),
    ]
    for _ in range(2):
        for prompt, threshold, folder, _ in asked:
            said = run(*given, "--prompt", prompt, "--threshold", threshold, "--run", folder)
            assert "computed in float32 (as asked for)" in said
    assert [(row["prompt"], row["threshold"], row["mask"]) for row in rows()] == [
        (prompt, str(threshold), f"{name}_mask.png") for prompt, threshold, _, name in asked
    ]
    for prompt, threshold, _, name in asked:
        channel = image[..., ("red", "green").index(prompt)]
        least = np.log(threshold / (1 - threshold))
        assert_array_equal(mask(f"out/{name}_mask.png") > 0, channel * (8 / 255) - 4 > least)


def test_a_retrained_run_is_another_run(run, predictor):
    save("a.png", RED)
    given = ("--image", "a.png", "--output", "out", "--prompt", "red")
    run(*given)
    predictor.fingerprint = "e" * 64  # the same folder
    run(*given)
    run(*given, "--run", "moved/one")  # and the folder has moved
    assert [(row["mask"], row["run_sha256"]) for row in rows()] == [
        ("a_mask.png", "f" * 12),
        ("a_one_mask.png", "e" * 12),
    ]
    assert predictor.asked == 2


def test_prompts_that_give_one_file_name(run):
    save("a.png")
    CHANNELS = FakePredictor.logits.__globals__["CHANNELS"]
    names = ("x y", "x/y", "X-Y", "x" * 60, "x" * 50, "…", "?", "..")
    CHANNELS |= dict.fromkeys(names, 0)
    try:
        for _ in range(2):
            for prompt in names:
                run("--image", "a.png", "--output", "out", "--prompt", prompt)
    finally:
        for name in names:
            del CHANNELS[name]
    assert [row["prompt"] for row in rows()] == list(names)
    files = {row["mask"].casefold() for row in rows()}
    assert len(files) == len(names) and all((Path("out") / row["mask"]).is_file() for row in rows())


def test_images_of_one_name(run):
    """In one call, in two, and in subfolders of one name."""
    for folder in ("one", "two"):
        for name in ("a.png", "a.bmp", "sub/a.png"):
            save(f"{folder}/{name}", *([RED] * ((folder == "two") + len(name) // 5 + 1)))
    options = ("--prompt", "red", "--output", "out")
    run("--image", "one/a.png", *options)
    first = mask("out/a_mask.png")
    run("--image", "one", "two", "--recursive", *options)
    run("--image", "two/a.png", *options)
    found = {row["image"]: row["mask"] for row in rows()}
    assert found == {
        "one/a.png": "a_mask.png",
        "one/a.bmp": "a.bmp_mask.png",
        "one/sub/a.png": "sub/a.png_mask.png",
        "two/a.png": "a.png_mask.png",
        "two/a.bmp": "two/a_mask.png",
        "two/sub/a.png": "sub/sub/a_mask.png",
    }
    assert_array_equal(mask("out/a_mask.png"), first)
    for image, name in found.items():
        assert_array_equal(mask(f"out/{name}") > 0, mask(image)[..., 0] > 127)


def test_subfolders_are_walked_if_asked(run):
    save("pics/a.png", RED)
    save("pics/sub/deep/b.jpg", RED)
    save("pics/.hidden/c.png", RED)
    Path("pics/notes.txt").write_text("no image")
    Path("pics/._a.png").write_bytes(b"what macOS adds")
    options = ("--image", "pics", "--prompt", "red", "--output", "pics/out")
    said = run(*options)
    assert "pics/sub (a folder: --recursive walks it)" in said and "pics/notes.txt (.txt is no" in said
    assert [row["mask"] for row in rows("pics/out/predictions.csv")] == ["a_mask.png"]
    said = run(*options, "--recursive")
    assert "kept: 1" in said
    assert [row["mask"] for row in rows("pics/out/predictions.csv")] == ["a_mask.png", "sub/deep/b_mask.png"]


def test_masks_beside_their_images_are_no_images(run):
    save("pics/a.png", RED)
    options = ("--image", "pics", "--prompt", "red", "--output", "pics", "--probabilities")
    run(*options)
    said = run(*options)
    assert "kept: 1" in said and "a_mask.png, pics/a_overlay.png, pics/a_probability.png (an earlier" in said
    assert [row["image"] for row in rows("pics/predictions.csv")] == ["pics/a.png"]


def test_going_on_predicts_what_is_missing(run, predictor):
    """After a kill at any moment: a row without its mask, and a row that is cut off."""
    for name in "abcd":
        save(f"pics/{name}.png", RED)
    options = ("--image", "pics", "--prompt", "red", "green", "--output", "out")
    run(*options)
    before = {path: path.read_bytes() for path in Path("out").iterdir()}
    assert predictor.asked == 4
    Path("out/b_red_mask.png").unlink()
    Path("out/c_labels.png").unlink()
    text = Path("out/predictions.csv").read_bytes()
    Path("out/predictions.csv").write_bytes(text[:-30])  # the row of d's green mask
    for part in ("mask", "overlay"):
        Path(f"out/d_green_{part}.png").unlink()
    assert "kept: 2" in run(*options)
    assert predictor.asked == 7
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == before


def test_a_changed_image_is_predicted_again(run):
    """Its row is replaced; before the mask is written, the earlier one is gone."""
    save("a.png", RED)
    save("b.png", RED)
    options = ("--image", "a.png", "b.png", "--prompt", "red", "--output", "out")
    run(*options)
    image = save("a.png", RED, RED)
    said = run(*options)
    assert "kept: 1" in said and "have changed, or files were missing: 1" in said
    assert_array_equal(mask("out/a_mask.png") > 0, image[..., 0] > 0)
    digest = hashlib.sha256(Path("a.png").read_bytes()).hexdigest()
    assert [(row["image"], row["pixels"]) for row in rows()] == [("b.png", "1"), ("a.png", "2")] or [
        (row["image"], row["pixels"]) for row in rows()
    ] == [("a.png", "2"), ("b.png", "1")]
    assert digest in {row["image_sha256"] for row in rows()}


def test_an_interruption_leaves_no_mask_without_a_row_and_no_half_file(run, monkeypatch):
    for name in "abc":
        save(f"pics/{name}.png", RED)
    written = session.write_png

    def interrupted(path, image):
        if path.name == "b_mask.png":
            raise KeyboardInterrupt
        written(path, image)

    options = ("--image", "pics", "--prompt", "red", "--output", "out")
    monkeypatch.setattr(session, "write_png", interrupted)
    with pytest.raises(SystemExit, match="130"):
        run(*options)
    monkeypatch.setattr(session, "write_png", written)
    assert {path.name for path in Path("out").iterdir()} == {
        *("a_mask.png", "a_overlay.png", "b_overlay.png", "predictions.csv"),
    }
    assert "kept: 1" in run(*options)
    assert [row["mask"] for row in rows()] == ["a_mask.png", "b_mask.png", "c_mask.png"]


def test_a_table_of_version_010_is_kept(run):
    save("a.png", RED)
    old = save("out/a_mask.png", RED, RED)
    Path("out/predictions.csv").write_text("image,prompt,mask,marked\na.png,red,a_mask.png,0.5\n")
    run("--image", "a.png", "--prompt", "red", "--output", "out")
    assert_array_equal(mask("out/a_mask.png"), old)
    (first, second) = rows()
    assert (first["mask"], first["marked"], first["threshold"]) == ("a_mask.png", "0.5", "")
    assert second["mask"] != "a_mask.png" and (Path("out") / second["mask"]).is_file()


def test_a_table_without_presence_is_completed(run, predictor):
    """It has the columns of later versions, then a presence for the masks of a model that says it."""
    save("a.png", RED)
    options = "--image", "a.png", "--output", "out", "--prompt"
    run(*options, "red")
    path = Path("out/predictions.csv")
    lines = path.read_text().splitlines()
    assert lines[0].endswith(",presence") and lines[1].endswith(",")
    path.write_text("".join(f"{line.rpartition(',')[0]}\n" for line in lines))
    predictor.has_presence = True
    run(*options, "green")
    assert [(row["prompt"], row["presence"]) for row in rows()] == [("red", ""), ("green", "0")]
    assert path.read_text().splitlines()[0] == lines[0]


def test_several_prompts_give_a_label_map(run):
    """A pixel belongs to the likeliest prompt above the threshold; the first where two are equal."""
    save("a.png", (255, 200, 0), (140, 250, 0), (120, 100, 0))
    run("--image", "a.png", "--prompt", "red", "--prompt", "green", "--output", "out", "--spacing", 0.5, 2)
    labels = mask("out/a_labels.png")
    assert labels.dtype == np.uint8 and labels.shape == (6, 8)
    assert (labels[0, 0], labels[2, 2], labels[4, 4], labels.sum()) == (1, 2, 0, 3)
    assert [(row["mask"], row["pixels"], row["components"]) for row in rows()] == [
        ("a_red_mask.png", "2", "2"),
        ("a_green_mask.png", "2", "2"),
    ]
    assert [
        (row["labels"], row["value"], row["prompt"], row["pixels"], row["components"], row["area_mm2"])
        for row in rows("out/label_maps.csv")
    ] == [("a_labels.png", "1", "red", "1", "1", "1"), ("a_labels.png", "2", "green", "1", "1", "1")]
    run("--image", "a.png", "--prompt", "green", "red", "--output", "out")  # another order is another map
    assert mask("out/a_green-red_labels.png")[0, 0] == 2 and mask("out/a_labels.png")[0, 0] == 1


def test_probabilities(run):
    image = save("a.png", GREY, RED)
    given = ("--image", "a.png", "--prompt", "red", "--output", "out")
    run(*given)
    run(*given, "--probabilities")
    run(*given, "--probabilities", "npy", "png")
    expected = 1 / (1 + np.exp(4 - image[..., 0] * (8 / 255)))
    assert np.load("out/a_probability.npy").dtype == np.float32
    np.testing.assert_allclose(np.load("out/a_probability.npy"), expected, atol=1e-6)
    stored = cv2.imread("out/a_probability.png", cv2.IMREAD_UNCHANGED)
    assert stored is not None and stored.dtype == np.uint16
    np.testing.assert_allclose(stored / 65535, expected, atol=1e-5)
    (row,) = rows()
    assert row["probabilities"] == "npy png"


@pytest.mark.parametrize("name", ["-", "pipe"])
def test_an_image_through_a_pipe(run, monkeypatch, name):
    """Another one gets another mask."""
    first, second = save("a.png", RED), save("b.png", RED, RED)
    for path in ("a.png", "b.png", "a.png"):
        data = Path(path).read_bytes()
        read, write = os.pipe()
        os.write(write, data)
        os.close(write)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        run("--image", name if name == "-" else f"/dev/fd/{read}", "--prompt", "red", "--output", "out")
        os.close(read)
    assert len(rows()) == 2
    for row, image in zip(rows(), (first, second), strict=True):
        assert_array_equal(mask(f"out/{row['mask']}") > 0, image[..., 0] > 0)


def test_files_that_cannot_be_read_do_not_stop_the_others(run):
    save("pics/a.png", RED)
    save("pics/c.png", RED)
    Path("pics/b.png").write_bytes(b"no image")
    run("--image", "pics", "--prompt", "red", "--output", "out", fails="undecodable: pics/b.png")
    Path("pics/d.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 64)
    both = "unreadable: 2 files .*b.png.*d.heic"
    assert "kept: 2" in run("--image", "pics", "--prompt", "red", "--output", "out", fails=both)
    assert [row["image"] for row in rows()] == ["pics/a.png", "pics/c.png"]


def test_mistakes(run, predictor):
    save("pics/a.png", RED)
    Path("docs").mkdir()
    Path("docs/a.dcm").touch()
    for options, says in (
        (("--image", "docs"), "no-images: docs holds no images .*a.dcm .dcm is no"),
        (("--image", "pics/*.jpg"), r"no-such-file: no file fits pics/\*.jpg"),
        (("--image", r"pics\a.png"), "no-such-file: did you mean pics/a.png"),
        (("--image", "pics", "--threshold", "0"), "out-of-range: --threshold"),
        (("--image", "pics", "--spacing", "0"), "out-of-range: --spacing .*0"),
        (("--image", "pics", "--spacing", "1", "2", "3"), "out-of-range: --spacing"),
        (("--image", "pics", "--prompt"), "missing-option: --prompt"),
        (("--image", "pics", "--probabilities", "jpg"), "invalid-option: jpg"),
    ):
        prompt = () if "--prompt" in options else ("--prompt", "red")
        run(*options, *prompt, "--output", "out/deep", fails=says.replace(".dcm .dcm", r".dcm \(.dcm"))
        assert not Path("out").exists()
    run("--image", "pics/*.png", "--prompt", "red", "--output", "out")
    assert [row["image"] for row in rows()] == ["pics/a.png"]


def test_two_processes_do_not_write_into_one_folder(run):
    save("a.png", RED)
    with predict.folder.held(Path("out")):
        run("--image", "a.png", "--prompt", "red", "--output", "out", fails="folder-in-use: out")
    assert not Path("out").exists()
    shutil.rmtree("out", ignore_errors=True)


def test_spaces_around_a_prompt_make_no_other_prompt(run):
    save("a.png", RED)
    run("--image", "a.png", "--prompt", "red", "red ", " red", "--output", "out")
    (row,) = rows()
    assert (row["prompt"], row["mask"]) == ("red", "a_mask.png")
