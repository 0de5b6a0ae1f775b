"""Folders of small CLIPSeg models as Hugging Face writes them, and changes of such folders."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from safetensors.numpy import load_file, save_file

from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.runtime.files import read_json, write_json

GOLDEN = Path(__file__).parent / "golden" / "clipseg_simple"
MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.5, 0.125]
PATCH: int = read_json(GOLDEN / "config.json")["vision_config"]["patch_size"]
SIDE = 4 * math.lcm(16, PATCH)
"""Side of images that every model here divides into patches."""
PREPROCESSOR = {"size": {"height": SIDE, "width": SIDE}, "image_mean": MEAN, "image_std": STD}
POSITIONS = "clip.vision_model.embeddings.position_ids"


def build(folder: Path, tokenizer, *, patch: int = 8, complex_upsampling: bool = False) -> Path:
    """A Hugging Face folder written by the installed transformers, with random weights."""
    torch = pytest.importorskip("torch")
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

    torch.manual_seed(0)

    end = tokenizer.backend.token_to_id("<|endoftext|>")
    small = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPSegConfig(
        text_config=small
        | {"vocab_size": end + 1, "max_position_embeddings": 16, "bos_token_id": end - 1, "eos_token_id": end},
        vision_config=small | {"image_size": 32, "patch_size": patch},
        projection_dim=20,
        extract_layers=[0, 1],
        reduce_dim=16,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
        conditional_layer=1,
        use_complex_transposed_convolution=complex_upsampling,
    )
    CLIPSegForImageSegmentation(config).save_pretrained(folder)
    tokenizer.save(folder)
    write_json(folder / "preprocessor_config.json", PREPROCESSOR)
    return folder


def change_config(folder: Path, section: str | None = None, **changes) -> None:
    config = read_json(folder / "config.json")
    (config if section is None else config[section]).update(changes)
    write_json(folder / "config.json", config)


def change_tensors(folder: Path, change: Callable[[dict], dict]) -> None:
    path = folder / "model.safetensors"
    changed = {name: np.asarray(tensor) for name, tensor in change(load_file(path)).items()}
    save_file(changed, path, metadata={"format": "pt"})


def assert_same_tensors(ours, theirs) -> None:
    assert set(ours) == set(theirs)
    for name in ours:
        assert_array_equal(ours[name], theirs[name], err_msg=name, strict=True)


def assert_same_models(first: Pretrained, second: Pretrained) -> None:
    assert first.config == second.config
    assert first.tokenizer.backend.to_str() == second.tokenizer.backend.to_str()
    assert_same_tensors(first.weights, second.weights)
