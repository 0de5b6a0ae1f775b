"""Tests of `python -m conversion.clipseg` and of model folders: one line for each mistake."""

import dataclasses
import pickle
import sys
from pathlib import Path

import mistakes
import numpy as np
import pytest
from clipseg_folders import (
    GOLDEN,
    PATCH,
    POSITIONS,
    PREPROCESSOR,
    SIDE,
    assert_same_models,
    change_config,
    change_tensors,
)

from tunevlseg_jax.models.catalogue import CRISConfig
from tunevlseg_jax.pretrained import load as pretrained
from tunevlseg_jax.pretrained import model as model_files
from tunevlseg_jax.pretrained.load import load_pretrained, save_pretrained
from tunevlseg_jax.runtime.files import read_json, write_json


def remove(folder: Path, name: str) -> None:
    (folder / name).unlink()


def truncate(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)


def drop(name: str):
    return lambda folder: change_tensors(folder, lambda tensors: {k: t for k, t in tensors.items() if k != name})


def put(name: str, value: np.ndarray):
    return lambda folder: change_tensors(folder, lambda tensors: tensors | {name: value})


def preprocess(**changes):
    return lambda folder: write_json(folder / "preprocessor_config.json", PREPROCESSOR | changes)


QUERY = "clip.text_model.encoder.layers.1.self_attn.q_proj.weight"
BLOCKS = read_json(GOLDEN / "config.json")["vision_config"]["num_hidden_layers"]
PATCHES = "clip.vision_model.embeddings.patch_embedding.weight"
BAD = {
    "no configuration": (lambda f: remove(f, "config.json"), "no-such-model: clipseg-tiny"),
    "broken configuration": (lambda f: write(f, "config.json", "{"), "unreadable: config.json"),
    "a list": (lambda f: write(f, "config.json", "[]"), "wrong-json: config.json"),
    "neither ours nor theirs": (lambda f: write(f, "config.json", "{}"), "not-a-model: 'model' .*'model_type'"),
    "another model": (lambda f: change_config(f, model_type="clip"), "unknown-model-type: 'clipseg', .*'clip'"),
    "another activation": (
        lambda f: change_config(f, "text_config", hidden_act="gelu"),
        "model-config: hidden_act .*'gelu'",
    ),
    "another epsilon": (
        lambda f: change_config(f, "vision_config", layer_norm_eps=1e-6),
        "model-config: layer_norm_eps .*1e-06",
    ),
    "a size in words": (lambda f: change_config(f, reduce_dim="64"), "model-config: reduce_dim .*'64'"),
    "two end tokens": (lambda f: change_config(f, "text_config", eos_token_id=[2, 3]), "model-config: eos_token_id"),
    "a tower that is none": (lambda f: change_config(f, text_config=3), "model-config: text_config .*3"),
    "no taps": (lambda f: change_config(f, extract_layers=[]), r"model-config: extract_layers .*\[\]"),
    "taps beyond": (lambda f: change_config(f, extract_layers=[1, BLOCKS]), f"model-config: {BLOCKS} blocks"),
    "condition beyond": (lambda f: change_config(f, conditional_layer=3), "model-config: conditional_layer 3"),
    "heads": (lambda f: change_config(f, decoder_num_attention_heads=1000), "model-config: heads"),
    "complex": (
        lambda f: change_config(f, use_complex_transposed_convolution=True),
        f"model-config: patch of 16, .*{PATCH}",
    ),
    "image size": (preprocess(size=SIDE + 1), f"model-config: {SIDE + 1} .*{PATCH}"),
    "no square": (preprocess(size={"height": 64, "width": 32}), "model-config: size .*64"),
    "no size": (preprocess(size=[64, 64]), "model-config: size .*64"),
    "no mean": (preprocess(image_mean=None), "model-config: image_mean .*None"),
    "no deviation": (preprocess(image_std=[0.5, 0.5, 0]), "model-config: image_std"),
    "other preprocessing": (preprocess(do_normalize=False), "model-config: do_normalize .*False"),
    "no weights": (lambda f: remove(f, "model.safetensors"), "not-a-model: model.safetensors .*pytorch_model.bin"),
    "truncated weights": (lambda f: truncate(f, "model.safetensors"), "unreadable: model.safetensors"),
    "empty weights": (lambda f: write(f, "model.safetensors", ""), "unreadable: model.safetensors"),
    "missing tensor": (drop(QUERY), f"wrong-weights: lacks {QUERY}"),
    "unknown tensor": (put("decoder.extra", np.zeros(1, np.float32)), "wrong-weights: decoder.extra"),
    "wrong shape": (
        put("decoder.film_mul.bias", np.zeros(3, np.float32)),
        "wrong-weights: shape of decoder.film_mul.bias",
    ),
    "wrong rank": (put(PATCHES, np.zeros((64, 192), np.float32)), f"wrong-weights: shape of {PATCHES}"),
    "wrong order": (put(PATCHES, np.zeros((64, 8, 8, 3), np.float32)), f"wrong-weights: shape of {PATCHES}"),
    "integers": (put("decoder.film_mul.bias", np.zeros(16, np.int8)), r"wrong-weights: decoder.film_mul.bias \(int8\)"),
    "positions": (put(POSITIONS, np.arange(1, 18)[None]), f"wrong-weights: {POSITIONS} .*0, 1, 2"),
    "no tokenizer": (lambda f: remove(f, "tokenizer.json"), "no-tokenizer"),
    "broken tokenizer": (lambda f: write(f, "tokenizer.json", "{}"), "unreadable: tokenizer"),
    "tokenizer too large": (lambda f: change_config(f, "text_config", vocab_size=99), "wrong-tokenizer: 99"),
    "another end": (lambda f: change_config(f, "text_config", eos_token_id=7), "wrong-tokenizer: 7"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_writes_nothing(name, source, tmp_path, convert):
    damage, message = BAD[name]
    damage(source)
    with mistakes.raises(message):
        convert(source, tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


class Code:
    """What a pickle may run when it is read."""

    def __reduce__(self):
        return (Path.touch, (Path("touched"),))


@pytest.mark.parametrize("kind", ["code", "plain pickle", "truncated", "empty", "page", "nested"])
def test_bad_pickles_are_refused(kind, source, tmp_path, convert, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    path = source / "pytorch_model.bin"
    (source / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(4), "evil": Code()} if kind == "code" else {"a": {"b": torch.zeros(4000)}}, path)
    if kind == "truncated":
        truncate(source, path.name)
    elif kind != "code" and kind != "nested":
        path.write_bytes({"plain pickle": pickle.dumps([Code()]), "empty": b"", "page": b"<html></html>"}[kind])
    fact = "pickled code" if kind == "code" else ""
    with mistakes.raises(rf"unreadable: pytorch_model.bin: .*{fact}"):
        convert(source, tmp_path / "ours")
    assert [entry.name for entry in tmp_path.iterdir()] == ["source"]


def test_missing_torch_is_named(source, tmp_path, convert, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with mistakes.raises("needs-package: --verify .*torch.*`convert`"):
        convert(source, tmp_path / "ours", "--verify")
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with mistakes.raises(r"needs-package: pytorch_model\.bin .*torch.*`convert`"):
        convert(source, tmp_path / "ours")


def test_missing_folder_and_hub_without_network(tmp_path, convert, monkeypatch):
    with mistakes.raises("no-such-model: nowhere'.*clipseg-tiny"):
        convert(tmp_path / "nowhere", tmp_path / "ours")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with mistakes.raises("no-such-model: 'nobody/no-such-model'.*Hugging Face hub"):
        convert("nobody/no-such-model", tmp_path / "ours")
    assert not any(tmp_path.iterdir())


def test_float16_that_overflows(source, tmp_path, convert):
    width = read_json(source / "config.json")["reduce_dim"]
    put("decoder.film_mul.bias", np.full(width, 1e5, np.float32))(source)
    with mistakes.raises("beyond-float16: decoder/film_scale/bias"):
        convert(source, tmp_path / "ours", "--dtype", "float16")


def test_misspelt_option(source, tmp_path, convert):
    with mistakes.raises("invalid-option: dtype"):
        convert(source, tmp_path / "ours", "--dtype", "float8")
    with mistakes.raises("invalid-option: --to-huggingface"):
        convert(source, tmp_path / "ours", "--to-hugingface")


def test_output_that_is_someone_elses(source, tmp_path, convert):
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    with mistakes.raises("other-folder: source"):
        convert(source, source)
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before
    with mistakes.raises("not-a-folder: config.json"):
        convert(source, source / "config.json")
    with mistakes.raises("unwritable: config.json/ours"):
        convert(source, source / "config.json" / "ours")


def test_failed_write_leaves_the_earlier_model(source, tmp_path, convert, monkeypatch):
    output = tmp_path / "ours"
    convert(source, output)
    before = {path.name: path.read_bytes() for path in output.iterdir()}

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_files, "save_file", full)
    change_tensors(source, lambda tensors: {name: -tensor for name, tensor in tensors.items()})
    with mistakes.raises("unwritable: No space left on device"):
        convert(source, output)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "source"]


# Reading our own folders


@pytest.fixture
def base(source, tmp_path) -> Path:
    save_pretrained(tmp_path / "base", load_pretrained(str(source)), {"made by": "a test"})
    return tmp_path / "base"


OWN = {
    "missing tensor": (drop("decoder/film_scale/bias"), "wrong-weights: lacks decoder/film_scale/bias"),
    "unknown tensor": (put("decoder/extra", np.zeros(1, np.float32)), "wrong-weights: unknown decoder/extra"),
    "wrong shape": (put("logit_scale", np.zeros(2, np.float32)), "wrong-weights: shape of logit_scale"),
    "no weights": (lambda f: remove(f, "model.safetensors"), "no-such-file: model.safetensors"),
    "truncated weights": (lambda f: truncate(f, "model.safetensors"), "unreadable: model.safetensors"),
    "unknown field": (
        lambda f: change_config(f, "model", decoder_widht=3),
        "unknown-field: 'decoder_widht'.*'decoder_width'",
    ),
    "missing field": (
        lambda f: write_json(f / "config.json", {"model": {"class": "CLIPSegConfig"}}),
        "missing-field: text",
    ),
    "another kind": (lambda f: change_config(f, "model", **{"class": "SAMConfig"}), "unknown-type: 'SAMConfig'"),
    "sizes": (lambda f: change_config(f, "model", complex_upsampling=True), "wrong-weights: patch of 16"),
    "no tokenizer": (lambda f: remove(f, "tokenizer.json"), "no-tokenizer"),
    "broken tokenizer": (lambda f: truncate(f, "tokenizer.json"), "unreadable: tokenizer"),
    "broken configuration": (lambda f: truncate(f, "config.json"), "unreadable: config.json"),
}


@pytest.mark.parametrize("name", OWN)
def test_our_own_broken_folders(name, base):
    damage, message = OWN[name]
    damage(base)
    with mistakes.raises(message):
        load_pretrained(str(base))


def test_our_own_folder_and_the_embedded_sizes(base, source):
    assert_same_models(load_pretrained(str(base)), load_pretrained(str(source)))
    assert load_pretrained(str(base), weights=False).weights == {}
    tiny = load_pretrained("clipseg-tiny", weights=False)
    assert tiny.config.text.end_token == tiny.tokenizer.table(["seven"], 9)[0, -1]


def test_a_model_of_another_class_is_refused(base, tmp_path, convert, monkeypatch):
    model = load_pretrained(str(base))
    monkeypatch.setattr(pretrained, "load_pretrained", lambda _, **__: dataclasses.replace(model, config=CRISConfig()))
    with mistakes.raises("wrong-model: CLIPSeg, .*CRISConfig"):
        convert(base, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
