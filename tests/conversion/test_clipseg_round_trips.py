"""Tests of `python -m conversion.clipseg`: exact round trips, and the kinds of folders that it reads."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import mistakes
import ml_dtypes
import numpy as np
import pytest
from clipseg_folders import (
    GOLDEN,
    MEAN,
    PATCH,
    POSITIONS,
    PREPROCESSOR,
    SIDE,
    STD,
    assert_same_models,
    assert_same_tensors,
    build,
    change_config,
    change_tensors,
)
from safetensors.numpy import load_file

from conversion.torch_files import unpickled
from tunevlseg_jax.pretrained import load as pretrained
from tunevlseg_jax.pretrained.clipseg_config import config_from_huggingface
from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.runtime.files import read_json, sha256, write_json

ROOT = Path(__file__).parents[2]
TEXT_POSITIONS = "clip.text_model.embeddings.position_ids"
SIZES = {
    "projection_dim",
    "extract_layers",
    "reduce_dim",
    "decoder_num_attention_heads",
    "decoder_intermediate_size",
    "conditional_layer",
    "use_complex_transposed_convolution",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
    "eos_token_id",
    "image_size",
    "patch_size",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory, tokenizer) -> Path:
    return build(tmp_path_factory.mktemp("built"), tokenizer)


@pytest.fixture(scope="module")
def built_complex(tmp_path_factory, tokenizer) -> Path:
    return build(tmp_path_factory.mktemp("built_complex"), tokenizer, patch=16, complex_upsampling=True)


@pytest.mark.parametrize("fixture", ["source", "built", "built_complex"])
def test_round_trip_is_exact(fixture, request, tmp_path, convert):
    theirs, ours, back = request.getfixturevalue(fixture), tmp_path / "ours", tmp_path / "back"
    digest = sha256(theirs / "model.safetensors")
    tensors = load_file(theirs / "model.safetensors")
    output = convert(theirs, ours)
    count = len(load_file(ours / "model.safetensors"))
    size = sum(tensor.size for tensor in tensors.values())
    assert output == f"wrote {ours}: {count} tensors, {size:,} parameters, from weights with sha256 {digest}\n"
    assert sorted(path.name for path in ours.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    named = {"made by": "conversion.clipseg", "checkpoint": theirs.name, "sha256": digest}
    assert read_json(ours / "config.json")["source"] == named

    convert(ours, back, "--to-huggingface")
    assert_same_tensors(load_file(back / "model.safetensors"), tensors)
    assert_same_models(load_pretrained(str(back)), load_pretrained(str(theirs)))
    was, now = read_json(theirs / "config.json"), read_json(back / "config.json")
    assert {key: was[key] for key in now if key in SIZES} == {key: now[key] for key in now if key in SIZES}
    for tower in ("text_config", "vision_config"):
        assert {key: was[tower].get(key) for key in SIZES} == {key: now[tower].get(key) for key in SIZES}


def test_direct_load_is_the_converted_model(source, tmp_path, convert):
    convert(source, tmp_path / "ours")
    direct, converted = load_pretrained(str(source)), load_pretrained(str(tmp_path / "ours"))
    assert_same_models(direct, converted)
    assert all(weight.dtype == np.float32 for weight in direct.weights.values())
    assert direct.config.image_size == SIDE
    assert (direct.config.mean, direct.config.std) == (tuple(MEAN), tuple(STD))
    assert direct.sha256 == sha256(source / "model.safetensors")
    without = load_pretrained(str(source), weights=False)
    assert (without.config, without.weights, without.sha256) == (direct.config, {}, "")


def test_permissions_are_those_of_new_files(source, tmp_path, convert):
    convert(source, tmp_path / "ours")
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "file").touch()
    assert (tmp_path / "ours").stat().st_mode == plain.stat().st_mode
    assert {path.stat().st_mode for path in (tmp_path / "ours").iterdir()} == {(plain / "file").stat().st_mode}


def test_pickled_weights_give_the_same_model(source):
    torch = pytest.importorskip("torch")
    safe = load_pretrained(str(source))
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    torch.save({name: torch.tensor(tensor) for name, tensor in tensors.items()}, source / "pytorch_model.bin")
    pickled = load_pretrained(str(source), unpickle=unpickled)
    assert_same_models(pickled, safe)
    assert pickled.sha256 == sha256(source / "pytorch_model.bin")
    learnable = {name: torch.nn.Parameter(torch.tensor(tensor)) for name, tensor in tensors.items()}
    torch.save(learnable, source / "pytorch_model.bin")
    assert_same_models(load_pretrained(str(source), unpickle=unpickled), safe)
    torch.save({"weight": torch.zeros(2, dtype=torch.float8_e4m3fn)}, source / "pytorch_model.bin")
    with mistakes.raises(r"unreadable: pytorch_model\.bin: .*Float8"):
        load_pretrained(str(source), unpickle=unpickled)
    half = {name: torch.tensor(tensor).bfloat16() for name, tensor in tensors.items()}
    torch.save(half, source / "pytorch_model.bin")
    weights = load_pretrained(str(source), unpickle=unpickled).weights
    assert_same_tensors(
        weights, {name: tensor.astype(ml_dtypes.bfloat16).astype(np.float32) for name, tensor in safe.weights.items()}
    )
    with mistakes.raises(r"pickled-weights: python -m conversion\.clipseg --checkpoint"):
        load_pretrained(str(source))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_weights_become_float32(source, dtype):
    full = load_pretrained(str(source)).weights
    change_tensors(source, lambda tensors: {name: tensor.astype(dtype) for name, tensor in tensors.items()})
    half = load_pretrained(str(source)).weights
    assert_same_tensors(half, {name: tensor.astype(dtype).astype(np.float32) for name, tensor in full.items()})


def test_position_buffers_of_old_checkpoints_are_dropped(source):
    before = load_pretrained(str(source))
    text, vision = before.config.text, before.config.vision
    sizes = {TEXT_POSITIONS: text.context_length, POSITIONS: (vision.image_size // vision.patch) ** 2 + 1}
    buffers = {name: np.arange(size)[None] for name, size in sizes.items()}
    change_tensors(source, lambda tensors: tensors | buffers)
    assert_same_models(load_pretrained(str(source)), before)


def test_vocabulary_files_of_old_checkpoints(source):
    (source / "tokenizer.json").unlink()
    letters = [*"abc", *(f"{letter}</w>" for letter in "abc"), "ab</w>", "<|startoftext|>", "<|endoftext|>"]
    write_json(source / "vocab.json", {token: number for number, token in enumerate(letters)})
    (source / "merges.txt").write_text("#version: 0.2\na b</w>\n")
    assert load_pretrained(str(source)).tokenizer.table(["ab c", "a"], 9).tolist() == [[7, 6, 5, 8], [7, 3, 8, 8]]


@pytest.mark.parametrize(
    ("size", "side"),
    [
        (5 * PATCH, 5 * PATCH),
        ({"shortest_edge": 6 * PATCH}, 6 * PATCH),
        ({"height": 7 * PATCH, "width": 7 * PATCH}, 7 * PATCH),
    ],
)
def test_sizes_of_preprocessors(source, size, side):
    write_json(source / "preprocessor_config.json", PREPROCESSOR | {"size": size})
    assert load_pretrained(str(source)).config.image_size == side


def test_preprocessor_may_be_part_of_the_processor_or_absent(source):
    (source / "preprocessor_config.json").rename(source / "unnested.json")
    write_json(source / "processor_config.json", {"image_processor": read_json(source / "unnested.json")})
    assert load_pretrained(str(source)).config.mean == tuple(MEAN)
    (source / "processor_config.json").unlink()
    config = load_pretrained(str(source)).config
    assert (config.image_size, config.mean) == (352, (0.485, 0.456, 0.406))


def test_no_preprocessor_and_a_patch_that_does_not_divide_352():
    theirs = json.loads((GOLDEN / "config.json").read_text())
    theirs["vision_config"] |= {"patch_size": 12, "image_size": 48}
    assert config_from_huggingface(theirs).image_size == 48


def test_old_configurations_that_hold_a_tower_twice(source):
    before = load_pretrained(str(source)).config
    change_config(source, text_config_dict=read_json(source / "config.json")["text_config"], text_config={})
    assert load_pretrained(str(source)).config == before


def test_float16(source, tmp_path, convert):
    convert(source, tmp_path / "ours", "--dtype", "float16")
    full, half = load_pretrained(str(source)), load_pretrained(str(tmp_path / "ours"))
    stored = load_file(tmp_path / "ours" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {np.dtype(np.float16)}
    assert_same_tensors(stored, {name: tensor.astype(np.float16) for name, tensor in full.weights.items()})
    assert_same_tensors(half.weights, {name: tensor.astype(np.float32) for name, tensor in stored.items()})


def test_a_model_that_this_command_wrote_is_replaced(source, tmp_path, convert):
    output = tmp_path / "ours"
    output.mkdir()
    convert(source, output, "--to-huggingface")
    (output / "notes.txt").write_text("mine")
    convert(source, output, "--dtype", "float16")
    convert(source, output)
    assert sorted(path.name for path in output.iterdir()) == [
        "config.json",
        "model.safetensors",
        "notes.txt",
        "tokenizer.json",
    ]
    assert_same_models(load_pretrained(str(output)), load_pretrained(str(source)))
    convert(output, output, "--dtype", "float16")
    assert {tensor.dtype.name for tensor in load_file(output / "model.safetensors").values()} == {"float16"}


def test_tokenizer_and_preprocessor_for_transformers(source, tmp_path, convert):
    from transformers import AutoTokenizer

    convert(source, tmp_path / "theirs", "--to-huggingface")
    ours = load_pretrained(str(source)).tokenizer.table(["a photo of a seven.", "ring"], 16)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "theirs")(["a photo of a seven.", "ring"], padding=True)
    assert theirs.input_ids == ours.tolist()
    preprocessor = read_json(tmp_path / "theirs" / "preprocessor_config.json")
    assert preprocessor["size"] == {"height": SIDE, "width": SIDE}
    assert (preprocessor["image_mean"], preprocessor["image_std"]) == (MEAN, STD)


def test_transformers_reads_the_converted_folder(built, tmp_path, convert):
    torch = pytest.importorskip("torch")
    from transformers import CLIPSegForImageSegmentation

    convert(built, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs", "--to-huggingface")
    assert_same_tensors(load_file(tmp_path / "theirs/model.safetensors"), load_file(built / "model.safetensors"))
    before, after = (
        CLIPSegForImageSegmentation.from_pretrained(folder).eval() for folder in (built, tmp_path / "theirs")
    )
    end = before.config.text_config.eos_token_id
    inputs = {"input_ids": torch.tensor([[end - 1, 5, end]]), "pixel_values": torch.rand(1, 3, 64, 64)}
    with torch.inference_mode():
        assert torch.equal(before(**inputs).logits, after(**inputs).logits)


@pytest.mark.slow
def test_verify_on_the_command_line(built, tmp_path):
    pytest.importorskip("torch")
    arguments = ["--checkpoint", str(built), "--output", str(tmp_path / "ours"), "--verify"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "conversion.clipseg", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    compared, wrote = done.stdout.splitlines()
    words = compared.split()
    # With these random weights the original's own float32 is up to 1.3e-5 from its float64.
    assert compared.startswith("largest difference from transformers' logits: ") and 0 <= float(words[5]) < 5e-5
    assert wrote.startswith(f"wrote {tmp_path / 'ours'}: ")
    assert_same_models(load_pretrained(str(tmp_path / "ours")), load_pretrained(str(built)))


def test_verify_finds_a_wrong_weight(built, tmp_path, convert, monkeypatch):
    """The comparison is with the source, since an export of our weights would always agree with them."""
    load = load_pretrained

    def wrong(checkpoint: str, **options) -> Pretrained:
        model = load(checkpoint, **options)
        name = "vision_tower/pre_norm/scale"
        return dataclasses.replace(model, weights={**model.weights, name: 1.01 * model.weights[name]})

    monkeypatch.setattr(pretrained, "load_pretrained", wrong)
    with mistakes.raises("wrong-conversion"):
        convert(built, tmp_path / "wrong", "--verify")
    assert not (tmp_path / "wrong").exists()
