"""Tests of SAM 3's folders from the time when its instances were among the unused parts."""

from pathlib import Path

import mistakes
import numpy as np
import pytest
import small_sam3
from safetensors.numpy import load_file, save_file

from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.runtime.files import read_json, write_json

PARTS = {
    "box_embedding": "instances/reference_embedding",
    "query_norm": "instances/output_norm",
    "box": "instances/box_head",
    "presence": "instances/presence_head",
    "position": "instances/reference_head",
    "mask": "mask_embedder",
    "pixels": "instance_projection",
}
IN_LAYER = {
    "self_attention": "attentions/0",
    "word_attention": "attentions/1",
    "cell_attention": "attentions/2",
    "norm1": "norms/0",
    "norm2": "norms/1",
    "norm3": "norms/2",
    "norm4": "norms/3",
    "mlp": "mlp",
}
SCORING = {"mlp": "mlp", "norm": "norm", "word": "text", "query": "query"}


def earlier_path(path: str) -> str:
    match path.split("/"):
        case ["instances", "layers", number, part, *rest]:
            return "/".join(["unused/instances/layers", number, IN_LAYER[part], *rest])
        case ["instances", "scoring", part, *rest]:
            return "/".join(["unused/scoring", SCORING[part], *rest])
        case ["instances", part, *rest]:
            return "/".join(["unused", PARTS.get(part, f"instances/{part}"), *rest])
    return path


@pytest.fixture
def earlier(tmp_path) -> Path:
    """A folder in the layout of that time."""
    folder = small_sam3.write_folder(tmp_path)
    weights = folder / "model.safetensors"
    save_file({earlier_path(path): tensor for path, tensor in load_file(weights).items()}, weights)
    config = read_json(folder / "config.json")
    instances = config["model"].pop("instances")
    names = {"query_layers": "layers", "query_heads": "heads", "query_hidden": "hidden", "queries": "queries"}
    config["model"]["unused"] |= {name: instances[present] for name, present in names.items()}
    del config["model"]["masks"]
    write_json(folder / "config.json", config)
    return folder


def test_an_earlier_folder_loads(earlier):
    assert not any(path.startswith("instances/") for path in load_file(earlier / "model.safetensors"))
    loaded = load_pretrained(str(earlier))
    assert loaded.config == small_sam3.sizes()
    assert loaded.weights.keys() == small_sam3.model().weights.keys()
    assert all(np.array_equal(loaded.weights[path], weight) for path, weight in small_sam3.model().weights.items())


def test_a_tensor_that_an_earlier_folder_lacks_is_named(earlier):
    weights = earlier / "model.safetensors"
    tensors = load_file(weights)
    del tensors["unused/scoring/text/bias"]
    save_file(tensors, weights)
    with mistakes.raises("wrong-weights: lacks instances/scoring/word/bias"):
        load_pretrained(str(earlier))
