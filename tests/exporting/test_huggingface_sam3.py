"""A slow test: transformers reads the Hugging Face folder of a trained SAM 3, and draws the masks of `predict`."""

import exported
import numpy as np
import pytest
import small
import small_sam3
import torch
from torch.nn.functional import interpolate
from transformers import AutoTokenizer, Sam3Model

from tunevlseg_jax.config import Train
from tunevlseg_jax.exporting import write
from tunevlseg_jax.learners.contract import ZeroShot
from tunevlseg_jax.run import load_run
from tunevlseg_jax.runtime.files import read_json

quick_compilation = small.quick_compilation
COUNT = 7


@pytest.mark.slow
def test_transformers_draws_the_masks_of_predict(tmp_path):
    train = Train(tune="decoder", precision="float32")
    checkpoint = str(small_sam3.write_folder(tmp_path / "model"))  # the embedded one has no instances
    run = exported.make_run(tmp_path / "run", checkpoint, ZeroShot(), train=train)
    assert "for transformers" in write.huggingface(tmp_path / "out", run)
    loaded, settings = load_run(run), read_json(tmp_path / "out" / "preprocessor_config.json")
    size = settings["size"]["height"], settings["size"]["width"]
    images = exported.images(size, COUNT)
    pixels = (images.astype(np.float32) / 255 - settings["image_mean"]) / settings["image_std"]
    theirs = Sam3Model.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    phrases = [f"{phrase}." for phrase in exported.asked(COUNT)]  # `data.full_stop`
    words = AutoTokenizer.from_pretrained(tmp_path / "out")(phrases, padding=True, return_tensors="pt")
    with torch.inference_mode():
        found = theirs(pixel_values=torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32), **words)
        logits = interpolate(found.semantic_seg, size, mode="bilinear")[:, 0]
    probabilities = torch.sigmoid(logits / exported.TEMPERATURE).numpy()
    exported.check_masks(probabilities, loaded, images)
    marked = np.mean(loaded.predict(list(images), exported.asked(COUNT)))
    assert 0.01 < marked < 0.99, "there is something to compare"
