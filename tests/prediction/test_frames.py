"""Tests of files of several frames and of HEIC: which frames are read, where their masks are, and what is left out."""

from pathlib import Path

import cv2
import mistakes
import numpy as np
import pillow_heif
import predicted
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from predicted import RED, mask, rows, save

from tunevlseg_jax import predict
from tunevlseg_jax.data.images import read_rgb
from tunevlseg_jax.prediction import frames
from tunevlseg_jax.prediction.frames import open_file
from tunevlseg_jax.runtime import optional

predictor, run = predicted.predictor, predicted.run


def squares(count: int, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """Black images with a red square, which moves to the right."""
    images = [np.zeros((*size, 3), np.uint8) for _ in range(count)]
    for number, image in enumerate(images):
        image[16:32, 8 * number : 8 * number + 16] = RED
    return images


def save_video(path: str, images: list[np.ndarray], code: str) -> None:
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*code), 5, (width, height))
    for image in images:
        writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    writer.release()


def save_all(path: str, images: list[np.ndarray], **options: object) -> None:
    first, *others = map(Image.fromarray, images)
    first.save(path, save_all=True, append_images=others, **options)


KINDS = {
    "clip.gif": lambda path: save_all(path, squares(4), duration=100),
    "clip.tif": lambda path: save_all(path, squares(4)),
    "clip.webp": lambda path: save_all(path, squares(4), lossless=True),
    "clip.png": lambda path: save_all(path, squares(4)),
    "clip.avi": lambda path: save_video(path, squares(4), "FFV1"),
    "clip.mkv": lambda path: save_video(path, squares(4), "FFV1"),
    "clip.mp4": lambda path: save_video(path, squares(4), "mp4v"),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_first_frame_or_all(run, predictor, name):
    KINDS[name](name)
    expected = [image[..., 0] > 127 for image in squares(4)]
    said = run("--image", name, "--prompt", "red", "--output", "out")
    assert f"left out: {name} (frames 2 to 4: --frames all takes them)" in said
    exact = not name.endswith("mp4")
    agrees(mask("out/clip_mask.png"), expected[0], exact)
    assert "left out" not in run("--image", name, "--prompt", "red", "--output", "out", "--frames", "all")
    for number, one in enumerate(expected, 1):
        agrees(mask(f"out/clip/{number:06d}_mask.png"), one, exact)
    assert [row["frame"] for row in rows()] == ["", "1", "2", "3", "4"]
    is_video = Path(name).suffix in frames.VIDEOS
    assert Path("out/clip/000001_overlay.png").exists() != is_video
    assert Path("out/clip_overlay.mp4").exists() == is_video
    assert predictor.asked == 5
    run("--image", name, "--prompt", "red", "--output", "out", "--frames", "all")
    assert predictor.asked == 5 and not list(Path("out").glob(".*"))


def agrees(found: np.ndarray, expected: np.ndarray, exact: bool) -> None:
    """Lossy videos may be off at edges."""
    assert found.dtype == np.uint8 and set(np.unique(found)) == {0, 255}
    assert ((found > 0) != expected).mean() <= (0 if exact else 0.05)


def test_the_overlay_of_a_video_goes_on(run, predictor):
    """It has every frame, whichever masks were there already, with the video's rate and size."""
    save_video("clip.avi", squares(6), "FFV1")
    options = ("--image", "clip.avi", "--prompt", "red", "green", "--output", "out", "--frames", "all")
    run(*options)
    for number in (2, 5):
        Path(f"out/clip_red/{number:06d}_mask.png").unlink()
    Path("out/clip_red_overlay.mp4").unlink()
    run(*options)
    assert predictor.asked == 8
    overlays = cv2.VideoCapture("out/clip_red_overlay.mp4")
    images = []
    while (read := overlays.read())[0]:
        images.append(read[1])
    assert len(images) == 6 and overlays.get(cv2.CAP_PROP_FPS) == 5
    for image, plain in zip(images, squares(6), strict=True):
        assert image.shape == plain.shape
        changed = np.abs(image[..., ::-1].astype(int) - plain).max(axis=-1) > 15
        assert changed[plain[..., 0] > 0].mean() > 0.5 and changed[plain[..., 0] == 0].mean() < 0.15


def test_a_frame_number_is_part_of_the_question(run):
    """The first frame alone and all frames have masks of their own, and label maps."""
    save_all("a.gif", squares(2), duration=100)
    for take in ("first", "all"):
        run("--image", "a.gif", "--prompt", "red", "green", "--output", "out", "--frames", take)
    found = {str(path.relative_to("out")) for path in Path("out").rglob("*_labels.png")}
    assert found == {"a_labels.png", "a/000001_labels.png", "a/000002_labels.png"}
    assert_array_equal(mask("out/a/000002_labels.png"), squares(2)[1][..., 0] > 127)


def test_heic(run):
    """Also with the ending of another format."""
    pillow_heif.register_heif_opener()
    image = Image.fromarray(np.concatenate([squares(1)[0]] * 2))
    image.save("a.heic", quality=95)
    Path("b.jpg").write_bytes(Path("a.heic").read_bytes())
    run("--image", "a.heic", "b.jpg", "--prompt", "red", "--output", "out")
    expected = np.asarray(image)[..., 0] > 127
    assert (mask("out/a_mask.png") > 0).shape == (96, 64)
    for name in "ab":
        agrees(mask(f"out/{name}_mask.png"), expected, exact=False)


def test_a_heic_photo_is_turned_once(run):
    """pillow-heif turns the pixels, and the EXIF orientation of the file doesn't turn them again."""
    pillow_heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(np.rot90(squares(1)[0])).save("a.heic", quality=95, exif=exif.tobytes())
    run("--image", "a.heic", "--prompt", "red", "--output", "out")
    assert mask("out/a_mask.png").shape == (48, 64)
    agrees(mask("out/a_mask.png"), squares(1)[0][..., 0] > 127, exact=False)


def test_heic_without_its_package(run, monkeypatch):
    save("pics/a.png", RED)
    pillow_heif.register_heif_opener()
    Image.fromarray(squares(1)[0]).save("pics/b.heic")

    def missing(user: str) -> None:
        raise predict.UserError(f"{user} needs pillow-heif: install the extra `heic`", "needs-package")

    monkeypatch.setattr(frames, "import_heif", missing)
    run("--image", "pics", "--prompt", "red", "--output", "out", fails="needs-package: b.heic .*extra `heic`")
    assert [row["image"] for row in rows()] == ["pics/a.png"]
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with mistakes.raises("needs-package: pillow-heif.*`heic`"):
        optional.import_heif("b.heic")


@pytest.mark.parametrize("name", ["clip.avi", "clip.gif", "clip.tif"])
def test_broken_files(run, name):
    """A file that ends early has the frames before its end, or is an error; never masks of nothing."""
    KINDS[name](name)
    data = Path(name).read_bytes()
    Path(f"empty{Path(name).suffix}").touch()
    Path(f"text{Path(name).suffix}").write_bytes(b"no image")
    for broken in ("empty", "text"):
        given = f"{broken}{Path(name).suffix}"
        run("--image", given, "--prompt", "red", "--output", "out", "--frames", "all", fails=f"undecodable: {given}")
    assert not Path("out").exists()
    Path(name).write_bytes(data[: len(data) * 3 // 4])
    try:
        said = run("--image", name, "--prompt", "red", "--output", "out", "--frames", "all")
    except SystemExit as stop:
        assert stop.code == 2
    else:
        assert "left out" in said
    written = sorted(Path("out").rglob("*_mask.png")) if Path("out").exists() else []
    assert len(written) < 4
    for path, expected in zip(written, squares(4), strict=False):
        agrees(mask(str(path)), expected[..., 0] > 127, exact=True)


def test_deep_pages_are_refused(tmp_path):
    pages = [Image.fromarray(np.full((4, 5), value, np.uint16)) for value in (1000, 60000)]
    pages[0].save(tmp_path / "deep.tif", save_all=True, append_images=pages[1:])
    with mistakes.raises("several-pages: deep.tif .*2 pages"):
        next(open_file(tmp_path / "deep.tif").frames("first"))


def test_a_file_of_one_image_is_read_as_in_training(tmp_path):
    """Also a TIFF with a reduced copy, and a photo with a preview."""
    image = squares(1)[0]
    whole, reduced = Image.fromarray(image), Image.fromarray(image[::4, ::4])
    whole.save(tmp_path / "pyramid.tif", save_all=True, append_images=[reduced], tiffinfo={254: 0})
    whole.save(tmp_path / "photo.jpg", quality=95)
    whole.save(tmp_path / "photo.mpo", format="MPO", save_all=True, append_images=[reduced])
    for name in ("photo.jpg", "photo.mpo"):
        opened = open_file(tmp_path / name)
        assert opened.count == 1
        assert_array_equal(next(opened.frames("all")).image, read_rgb(tmp_path / name))
