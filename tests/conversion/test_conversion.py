"""Tests of `python -m conversion.clipseg` and of model folders: exact round trips, and one line for each mistake."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from safetensors.numpy import load_file, save_file

from conversion import clipseg
from conversion.tiny.sizes import train_tokenizer
from conversion.torch_files import unpickled
from tunevlseg_jax import cli
from tunevlseg_jax.models import CRISConfig
from tunevlseg_jax.pretrained import model as model_files
from tunevlseg_jax.pretrained.load import load_pretrained, save_pretrained
from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_json, sha256, write_json

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "clipseg_simple"
MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.5, 0.125]
PREPROCESSOR = {"size": {"height": 64, "width": 64}, "image_mean": MEAN, "image_std": STD}
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
POSITIONS = "clip.vision_model.embeddings.position_ids"


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer()


@pytest.fixture
def source(tmp_path, tokenizer) -> Path:
    """A Hugging Face folder as transformers 4 wrote it, with a tokenizer and a preprocessor."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(GOLDEN / name, folder / name)
    tokenizer.save(folder)
    write_json(folder / "preprocessor_config.json", PREPROCESSOR)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory, tokenizer) -> Path:
    return build(tmp_path_factory.mktemp("built"), tokenizer)


@pytest.fixture(scope="module")
def built_complex(tmp_path_factory, tokenizer) -> Path:
    return build(tmp_path_factory.mktemp("built_complex"), tokenizer, patch=16, complex_upsampling=True)


def build(folder: Path, tokenizer, *, patch: int = 8, complex_upsampling: bool = False) -> Path:
    """A Hugging Face folder fresh from the transformers at hand."""
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


@pytest.fixture
def convert(monkeypatch, capsys) -> Callable[..., str]:
    """Runs the command in this process; gives what it prints, or raises a UserError with its line of error."""

    def run(checkpoint, output, *options: str) -> str:
        arguments = ["--checkpoint", str(checkpoint), "--output", str(output), *options]
        monkeypatch.setattr(sys, "argv", ["clipseg", *arguments])
        capsys.readouterr()  # what a fixture printed
        try:
            cli.run(clipseg.main)
        except SystemExit as stop:
            assert stop.code == cli.MISTAKEN
            told = capsys.readouterr()
            assert told.out == "" and told.err.count("\n") == 1 and told.err.startswith("error: ")
            raise UserError(told.err) from None
        told = capsys.readouterr()
        assert told.err == ""
        return told.out

    return run


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


def assert_same_models(one: Pretrained, other: Pretrained) -> None:
    assert one.config == other.config
    assert one.tokenizer.backend.to_str() == other.tokenizer.backend.to_str()
    assert_same_tensors(one.weights, other.weights)


# Conversions that succeed


@pytest.mark.parametrize("fixture", ["source", "built", "built_complex"])
def test_there_and_back_is_exact(fixture, request, tmp_path, convert):
    theirs, ours, back = request.getfixturevalue(fixture), tmp_path / "ours", tmp_path / "back"
    digest = sha256(theirs / "model.safetensors")
    tensors = load_file(theirs / "model.safetensors")
    told = convert(theirs, ours)
    count = len(load_file(ours / "model.safetensors"))
    size = sum(tensor.size for tensor in tensors.values())
    assert told == f"wrote {ours}: {count} tensors, {size:,} parameters, from weights with sha256 {digest}\n"
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
    assert direct.config.image_size == 64
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
    with pytest.raises(UserError, match=r"can.t read .*pytorch_model\.bin: .*Float8"):
        load_pretrained(str(source), unpickle=unpickled)
    half = {name: torch.tensor(tensor).bfloat16() for name, tensor in tensors.items()}
    torch.save(half, source / "pytorch_model.bin")
    weights = load_pretrained(str(source), unpickle=unpickled).weights
    assert_same_tensors(
        weights, {name: tensor.astype(ml_dtypes.bfloat16).astype(np.float32) for name, tensor in safe.weights.items()}
    )
    with pytest.raises(UserError, match=r"pickled file, .*python -m conversion\.clipseg --checkpoint"):
        load_pretrained(str(source))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_weights_become_float32(source, dtype):
    full = load_pretrained(str(source)).weights
    change_tensors(source, lambda tensors: {name: tensor.astype(dtype) for name, tensor in tensors.items()})
    half = load_pretrained(str(source)).weights
    assert_same_tensors(half, {name: tensor.astype(dtype).astype(np.float32) for name, tensor in full.items()})


def test_position_buffers_of_old_checkpoints_are_dropped(source):
    before = load_pretrained(str(source))
    buffers = {name: np.arange(size)[None] for name, size in zip(clipseg_buffers(), (24, 17), strict=True)}
    change_tensors(source, lambda tensors: tensors | buffers)
    assert_same_models(load_pretrained(str(source)), before)


def clipseg_buffers() -> tuple[str, str]:
    return "clip.text_model.embeddings.position_ids", POSITIONS


def test_vocabulary_files_of_old_checkpoints(source):
    (source / "tokenizer.json").unlink()
    letters = [*"abc", *(f"{letter}</w>" for letter in "abc"), "ab</w>", "<|startoftext|>", "<|endoftext|>"]
    write_json(source / "vocab.json", {token: number for number, token in enumerate(letters)})
    (source / "merges.txt").write_text("#version: 0.2\na b</w>\n")
    assert load_pretrained(str(source)).tokenizer.table(["ab c", "a"], 9).tolist() == [[7, 6, 5, 8], [7, 3, 8, 8]]


@pytest.mark.parametrize(
    ("preprocessor", "side"),
    [({"size": 40}, 40), ({"size": {"shortest_edge": 48}}, 48), ({"size": {"height": 56, "width": 56}}, 56)],
)
def test_sizes_of_preprocessors(source, preprocessor, side):
    write_json(source / "preprocessor_config.json", PREPROCESSOR | preprocessor)
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
    assert clipseg.config_from_huggingface(theirs).image_size == 48


def test_old_configurations_say_a_tower_twice(source):
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
    assert preprocessor["size"] == {"height": 64, "width": 64}
    assert (preprocessor["image_mean"], preprocessor["image_std"]) == (MEAN, STD)


def test_transformers_reads_what_was_written(built, tmp_path, convert):
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
    found, wrote = done.stdout.splitlines()
    words = found.split()
    # With these random weights the original's own float32 is up to 1.3e-5 from its float64.
    assert found.startswith("largest difference from transformers' logits: ") and 0 <= float(words[5]) < 5e-5
    assert wrote.startswith(f"wrote {tmp_path / 'ours'}: ")
    assert_same_models(load_pretrained(str(tmp_path / "ours")), load_pretrained(str(built)))


def test_verify_finds_a_wrong_weight(built, tmp_path, convert, monkeypatch):
    """Ours against an export of ours would agree on anything; against the source it doesn't."""
    load = load_pretrained

    def wrong(checkpoint: str, **options) -> Pretrained:
        model = load(checkpoint, **options)
        name = "vision_tower/pre_norm/scale"
        return dataclasses.replace(model, weights={**model.weights, name: 1.01 * model.weights[name]})

    monkeypatch.setattr(clipseg, "load_pretrained", wrong)
    with pytest.raises(UserError, match="so the conversion is wrong"):
        convert(built, tmp_path / "wrong", "--verify")
    assert not (tmp_path / "wrong").exists()


# Bad input


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
PATCHES = "clip.vision_model.embeddings.patch_embedding.weight"
BAD = {
    "no configuration": (lambda f: remove(f, "config.json"), "no model at"),
    "broken configuration": (lambda f: write(f, "config.json", "{"), r"can't read .*config.json"),
    "a list": (lambda f: write(f, "config.json", "[]"), "holds no JSON object"),
    "neither ours nor theirs": (lambda f: write(f, "config.json", "{}"), "neither 'model' nor 'model_type'"),
    "another model": (lambda f: change_config(f, model_type="clip"), "model_type is 'clip'; known is 'clipseg'"),
    "another activation": (lambda f: change_config(f, "text_config", hidden_act="gelu"), "hidden_act 'gelu'"),
    "another epsilon": (lambda f: change_config(f, "vision_config", layer_norm_eps=1e-6), "layer_norm_eps 1e-06"),
    "a size in words": (lambda f: change_config(f, reduce_dim="64"), "reduce_dim is '64'"),
    "two end tokens": (lambda f: change_config(f, "text_config", eos_token_id=[2, 3]), "eos_token_id is"),
    "a tower that is none": (lambda f: change_config(f, text_config=3), "text_config is 3"),
    "no taps": (lambda f: change_config(f, extract_layers=[]), r"extract_layers is \[\]"),
    "taps beyond": (lambda f: change_config(f, extract_layers=[1, 6]), "not all among 6 blocks"),
    "condition beyond": (lambda f: change_config(f, conditional_layer=3), "conditional_layer 3"),
    "heads": (lambda f: change_config(f, decoder_num_attention_heads=3), "heads don't divide"),
    "complex": (lambda f: change_config(f, use_complex_transposed_convolution=True), "patch of 16, not 8"),
    "image size": (preprocess(size=60), "60 pixels are no multiple of the patch, 8"),
    "no square": (preprocess(size={"height": 64, "width": 32}), "not the side of a square"),
    "no size": (preprocess(size=[64, 64]), "not the side of a square"),
    "no mean": (preprocess(image_mean=None), "image_mean is None"),
    "no deviation": (preprocess(image_std=[0.5, 0.5, 0]), "image_std is"),
    "other preprocessing": (preprocess(do_normalize=False), "do_normalize False"),
    "no weights": (lambda f: remove(f, "model.safetensors"), "neither model.safetensors nor pytorch_model.bin"),
    "truncated weights": (lambda f: truncate(f, "model.safetensors"), r"can't read .*model.safetensors"),
    "empty weights": (lambda f: write(f, "model.safetensors", ""), r"can't read .*model.safetensors"),
    "missing tensor": (drop(QUERY), f"the checkpoint lacks {QUERY}"),
    "unknown tensor": (put("decoder.extra", np.zeros(1, np.float32)), "doesn't know: decoder.extra"),
    "wrong shape": (put("decoder.film_mul.bias", np.zeros(3, np.float32)), "the shape of decoder.film_mul.bias"),
    "wrong rank": (put(PATCHES, np.zeros((64, 192), np.float32)), f"the shape of {PATCHES}"),
    "wrong order": (put(PATCHES, np.zeros((64, 8, 8, 3), np.float32)), f"the shape of {PATCHES}"),
    "integers": (put("decoder.film_mul.bias", np.zeros(16, np.int8)), r"decoder.film_mul.bias \(int8\)"),
    "positions": (put(POSITIONS, np.arange(1, 18)[None]), f"{POSITIONS} is not 0, 1, 2"),
    "no tokenizer": (lambda f: remove(f, "tokenizer.json"), "holds no tokenizer"),
    "broken tokenizer": (lambda f: write(f, "tokenizer.json", "{}"), "can't read the tokenizer"),
    "tokenizer too large": (lambda f: change_config(f, "text_config", vocab_size=99), "the model embeds 99"),
    "another end": (lambda f: change_config(f, "text_config", eos_token_id=7), "an empty prompt"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_writes_nothing(name, source, tmp_path, convert):
    damage, message = BAD[name]
    damage(source)
    with pytest.raises(UserError, match=message):
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
    told = "it holds pickled code beside tensors, which isn.t run" if kind == "code" else "it is"
    with pytest.raises(UserError, match=rf"can't read .*pytorch_model.bin: {told}"):
        convert(source, tmp_path / "ours")
    assert [entry.name for entry in tmp_path.iterdir()] == ["source"]


def test_missing_torch_is_told(source, tmp_path, convert, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match="--verify needs torch: install the extra `convert`"):
        convert(source, tmp_path / "ours", "--verify")
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin needs torch: install the extra `convert`"):
        convert(source, tmp_path / "ours")


def test_missing_folder_and_hub_without_network(tmp_path, convert, monkeypatch):
    with pytest.raises(UserError, match=r"no model at '.*nowhere'.*clipseg-tiny"):
        convert(tmp_path / "nowhere", tmp_path / "ours")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="no folder 'nobody/no-such-model' here, and the Hugging Face hub"):
        convert("nobody/no-such-model", tmp_path / "ours")
    assert not any(tmp_path.iterdir())


def test_float16_that_overflows(source, tmp_path, convert):
    put("decoder.film_mul.bias", np.full(16, 1e5, np.float32))(source)
    with pytest.raises(UserError, match="float16 can't hold decoder/film_scale/bias"):
        convert(source, tmp_path / "ours", "--dtype", "float16")


def test_misspelt_option(source, tmp_path, convert):
    with pytest.raises(UserError, match="dtype"):
        convert(source, tmp_path / "ours", "--dtype", "float8")
    with pytest.raises(UserError, match="did you mean --to-huggingface"):
        convert(source, tmp_path / "ours", "--to-hugingface")


def test_output_that_is_someone_elses(source, tmp_path, convert):
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    with pytest.raises(UserError, match="not empty, and not a model that this command wrote"):
        convert(source, source)
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before
    with pytest.raises(UserError, match="is a file, not a folder"):
        convert(source, source / "config.json")
    with pytest.raises(UserError, match="can't write"):
        convert(source, source / "config.json" / "ours")


def test_failed_write_leaves_the_earlier_model(source, tmp_path, convert, monkeypatch):
    output = tmp_path / "ours"
    convert(source, output)
    before = {path.name: path.read_bytes() for path in output.iterdir()}

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_files, "save_file", full)
    change_tensors(source, lambda tensors: {name: -tensor for name, tensor in tensors.items()})
    with pytest.raises(UserError, match="No space left on device"):
        convert(source, output)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "source"]


# Reading our own folders


@pytest.fixture
def base(source, tmp_path) -> Path:
    save_pretrained(tmp_path / "base", load_pretrained(str(source)), {"made by": "a test"})
    return tmp_path / "base"


OWN = {
    "missing tensor": (drop("decoder/film_scale/bias"), "lacks decoder/film_scale/bias"),
    "unknown tensor": (put("decoder/extra", np.zeros(1, np.float32)), "has unknown decoder/extra"),
    "wrong shape": (put("logit_scale", np.zeros(2, np.float32)), "has another shape of logit_scale"),
    "no weights": (lambda f: remove(f, "model.safetensors"), r"there is no .*model.safetensors"),
    "truncated weights": (lambda f: truncate(f, "model.safetensors"), r"can't read .*model.safetensors"),
    "unknown field": (lambda f: change_config(f, "model", decoder_widht=3), "no field 'decoder_widht'; did you mean"),
    "missing field": (lambda f: write_json(f / "config.json", {"model": {"class": "CLIPSegConfig"}}), "lacks text"),
    "another kind": (lambda f: change_config(f, "model", **{"class": "SAMConfig"}), "of class 'SAMConfig'"),
    "sizes": (lambda f: change_config(f, "model", complex_upsampling=True), "patch of 16"),
    "no tokenizer": (lambda f: remove(f, "tokenizer.json"), "holds no tokenizer"),
    "broken tokenizer": (lambda f: truncate(f, "tokenizer.json"), "can't read the tokenizer"),
    "broken configuration": (lambda f: truncate(f, "config.json"), r"can't read .*config.json"),
}


@pytest.mark.parametrize("name", OWN)
def test_our_own_broken_folders(name, base):
    damage, message = OWN[name]
    damage(base)
    with pytest.raises(UserError, match=message):
        load_pretrained(str(base))


def test_our_own_folder_and_the_embedded_sizes(base, source):
    assert_same_models(load_pretrained(str(base)), load_pretrained(str(source)))
    assert load_pretrained(str(base), weights=False).weights == {}
    tiny = load_pretrained("clipseg-tiny", weights=False)
    assert tiny.config.text.end_token == tiny.tokenizer.table(["seven"], 9)[0, -1]


def test_a_model_of_another_class_is_refused(base, tmp_path, convert, monkeypatch):
    model = load_pretrained(str(base))
    monkeypatch.setattr(clipseg, "load_pretrained", lambda _, **__: dataclasses.replace(model, config=CRISConfig()))
    with pytest.raises(UserError, match="a model of class CRISConfig, no CLIPSeg"):
        convert(base, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
