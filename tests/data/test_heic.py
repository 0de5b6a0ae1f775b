"""Tests of HEIC photographs, which pillow-heif turns upright: they are turned once, and masks fit them."""

import numpy as np
import pillow_heif
import pytest
import user_folders
from fake_downloads import save
from PIL import Image
from user_folders import assert_fails, masks_by_class

from tunevlseg_jax.data.images import read_rgb
from tunevlseg_jax.data.mask_files import TURNS

run, source = user_folders.run, user_folders.source


def photo_on_its_side(orientation: int) -> tuple[np.ndarray, Image.Image]:
    """An upright photo (height, width, 3) of a white box, and as a camera stores it for an orientation."""
    upright = np.zeros((64, 96, 3), np.uint8)
    upright[8:32, 16:40] = 255
    image = Image.fromarray(upright)
    for turn in Image.Transpose:
        stored = image.transpose(turn)
        if np.array_equal(np.asarray(stored.transpose(TURNS[orientation])), upright):
            return upright, stored
    raise AssertionError(f"no operation undoes orientation {orientation}")


@pytest.mark.parametrize("orientation", sorted(TURNS))
def test_a_photo_is_turned_once(run, tmp_path, orientation):
    pillow_heif.register_heif_opener()
    upright, stored = photo_on_its_side(orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for number in range(3):
        path = tmp_path / "source" / "images" / f"{number}.HEIC"
        path.parent.mkdir(parents=True, exist_ok=True)
        stored.save(path, "HEIF", exif=exif.tobytes(), quality=95)
        save(tmp_path / "source" / "masks" / f"{number}.png", upright[..., 0])
    examples = run("--prompt", "box")
    assert len(examples) == 3 and sorted(example.id for example in examples.values()) == ["0", "1", "2"]
    for example in examples.values():
        box = masks_by_class(example)["box"]
        np.testing.assert_array_equal(box, upright[..., 0] > 0)
        assert np.abs(example.rgb().astype(int) - upright).max() < 60  # lossy at the edge of the box
        assert example.rgb()[box].min() > 200 and example.rgb()[~box].max() < 60
    np.testing.assert_array_equal(read_rgb(path), next(iter(examples.values())).rgb())


def test_heic_files_that_prepare_refuses(source, tmp_path, monkeypatch, capsys):
    """A broken file, one of several images, and any without pillow-heif: a line each, and no set."""
    (source / "images" / "c.jpg").unlink()
    path, output = source / "images" / "c.heic", tmp_path / "data"
    folder = ["folder", "--name", "mine", "--source", source, "--prompt", "wound", "--output", output]
    path.write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 64)
    assert_fails(monkeypatch, capsys, "undecodable: images/c.heic", *folder)
    images = [Image.new("RGB", (16, 40)) for _ in range(2)]
    pillow_heif.register_heif_opener()
    images[0].save(path, "HEIF", save_all=True, append_images=images[1:])
    assert_fails(monkeypatch, capsys, "several-pages: images/c.heic.*one image, got 2", *folder)
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    assert_fails(monkeypatch, capsys, "needs-package: images/c.heic.*extra `heic`", *folder)
    assert not (output / "mine").exists()
