"""Tests of `python -m conversion.cris`: exact for every layout of a checkpoint, and one line for each mistake."""

import dataclasses
import json
import os
import sys
import warnings
from pathlib import Path

import chex
import mistakes
import numpy as np
import pytest
import small_cris
import torch
from numpy.testing import assert_array_equal
from safetensors.numpy import save_file

from conversion import cris, cris_model, cris_verify
from conversion.cris_config import check_preset
from conversion.cris_tensors import cris_rules
from tunevlseg_jax import cli
from tunevlseg_jax.models.resnet import RN101
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.load import EMBEDDED, load_pretrained
from tunevlseg_jax.runtime.files import sha256

CLIP = ("backbone.", "backbone.visual.attnpool.connect.")
"""CLIP's tensors start with the first, but not with the second."""


class Code:
    """What a pickled file may carry: calls a function of its choice when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def published(*, counters: bool = True) -> dict[str, torch.Tensor]:
    """The small model's tensors as the public checkpoint has them, with BatchNorm's counters."""
    tensors = {name: torch.tensor(tensor) for name, tensor in small_cris.published().items()}
    if counters:
        norms = [name for name in tensors if name.endswith("running_var")]
        tensors |= {name.replace("running_var", "num_batches_tracked"): torch.tensor(7) for name in norms}
    return tensors


def write(path: Path, layout: str = "state_dict, module.") -> Path:
    """A checkpoint in one of the layouts that there are."""
    tensors = {f"module.{name}" if "module." in layout else name: x for name, x in published().items()}
    torch.save({"epoch": 3, "best_iou": 0.5, "state_dict": tensors} if "state_dict" in layout else tensors, path)
    return path


def options(checkpoint: Path, output: Path, **changes) -> list[str]:
    settings = {
        "checkpoint": checkpoint,
        "output": output,
        "tokenizer": EMBEDDED / "clipseg-tiny",
        "decoder-heads": small_cris.HEADS,
        "image-size": small_cris.IMAGE,
    }
    settings |= {name.replace("_", "-"): value for name, value in changes.items()}
    return [word for name, value in settings.items() if value is not None for word in (f"--{name}", str(value))]


def convert(monkeypatch, checkpoint: Path, output: Path, *more: str, **changes) -> None:
    """Runs the command; mistakes exit with one line."""
    monkeypatch.setattr(sys, "argv", ["conversion.cris", *options(checkpoint, output, **changes), *more])
    cli.run(cris.main)


def complaint(monkeypatch, capsys, checkpoint: Path, output: Path, *more: str, **changes) -> str:
    """The one line on stderr of a conversion that can't be."""
    with pytest.raises(SystemExit) as exit_status:
        convert(monkeypatch, checkpoint, output, *more, **changes)
    assert exit_status.value.code == cli.MISTAKEN
    assert not output.exists()
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


@pytest.mark.parametrize("layout", ["bare", "module.", "state_dict", "state_dict, module."])
def test_every_layout_becomes_the_same_model(layout, tmp_path, monkeypatch, capsys):
    checkpoint = write(tmp_path / "cris_best.pth", layout)
    convert(monkeypatch, checkpoint, tmp_path / "model")
    assert "wrote" in capsys.readouterr().out
    model = load_pretrained(str(tmp_path / "model"))
    assert model.config == small_cris.sizes()
    chex.assert_trees_all_equal(model.weights, small_cris.weights(), strict=True)
    source = json.loads((tmp_path / "model" / "config.json").read_text())["source"]
    assert source["checkpoint"] == "cris_best.pth" and source["checkpoint sha256"] == sha256(checkpoint)
    assert str(tmp_path) not in json.dumps(source)


def test_safetensors_and_half_precision(tmp_path, monkeypatch):
    halves = {name: x.astype(np.float16) for name, x in small_cris.published().items()}
    save_file(halves, tmp_path / "cris.safetensors")
    convert(monkeypatch, tmp_path / "cris.safetensors", tmp_path / "model", dtype="float16")
    model = load_pretrained(str(tmp_path / "model"))
    for name, weight in small_cris.weights().items():
        assert_array_equal(model.weights[name], weight.astype(np.float16).astype(np.float32), strict=True)


class Archive(torch.nn.Module):
    """CLIP as OpenAI publishes it: a program with its weights in half precision, and sizes beside them."""

    def __init__(self, tensors: dict[str, torch.Tensor]):
        super().__init__()
        for name, tensor in tensors.items():
            module: torch.nn.Module = self
            *path, last = name.split(".")
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, torch.nn.Module())
                module = getattr(module, part)
            module.register_buffer(last, tensor)
        self.register_buffer("input_resolution", torch.tensor(224))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def write_clip(path: Path) -> Path:
    tensors = {
        name.removeprefix(CLIP[0]): x.half() if x.is_floating_point() else x
        for name, x in published().items()
        if name.startswith(CLIP[0]) and not name.startswith(CLIP[1])
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have another format; OpenAI's files have this one
        torch.jit.save(torch.jit.script(Archive(tensors)), path)
    return path


def write_without_clip(path: Path) -> Path:
    tensors = {name: x for name, x in published().items() if not name.startswith(CLIP[0]) or name.startswith(CLIP[1])}
    torch.save(tensors, path)
    return path


def test_encoder_from_clips_archive(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "RN50.pt")
    convert(monkeypatch, write_without_clip(tmp_path / "cris.pth"), tmp_path / "model", clip=clip)
    model = load_pretrained(str(tmp_path / "model"))
    for name, weight in small_cris.weights().items():
        in_checkpoint = name.startswith("decoder/") or "connect" in name
        assert_array_equal(
            model.weights[name], weight if in_checkpoint else weight.astype(np.float16).astype(np.float32)
        )
    source = json.loads((tmp_path / "model" / "config.json").read_text())["source"]
    assert source["clip"] == "RN50.pt" and source["clip sha256"] == sha256(clip)


def test_a_whole_checkpoint_keeps_its_encoder(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "RN50.pt")
    convert(monkeypatch, write(tmp_path / "cris.pth"), tmp_path / "model", clip=clip)
    model = load_pretrained(str(tmp_path / "model"))
    for name, weight in small_cris.weights().items():
        assert_array_equal(model.weights[name], weight, strict=True)


def test_verify_compares_what_there_is(tmp_path, monkeypatch, capsys):
    convert(monkeypatch, write(tmp_path / "cris.pth"), tmp_path / "model", "--verify")
    out = capsys.readouterr().out
    assert "largest difference from transformers' text tower" in out
    assert "not compared: attention pool, neck, decoder and projector" in out


def test_verify_finds_a_wrong_text_tower(monkeypatch):
    ours = np.ones((2, 3), np.float32)
    monkeypatch.setattr(cris_verify, "sentences", lambda *_: (ours, ours * 1.01))
    with mistakes.raises("wrong-conversion"):
        list(cris_verify.verify(small_cris.model()))


# Mistakes: the function that writes the checkpoint, further options, and the line of error.


def _truncated(path: Path) -> Path:
    content = write(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def _code(path: Path) -> Path:
    torch.save({"state_dict": published(), "extra": Code(path.with_suffix(".ran"))}, path)
    return path


def _changed(change):
    def make(path: Path) -> Path:
        tensors = published()
        change(tensors)
        torch.save(tensors, path)
        return path

    return make


def _clipseg(path: Path) -> Path:
    torch.save({"clip.text_model.final_layer_norm.bias": torch.zeros(3), "decoder.film_mul.bias": torch.zeros(3)}, path)
    return path


def _clip(path: Path) -> Path:
    return write_clip(path)


def _not_tensors(path: Path) -> Path:
    torch.save({"state_dict": {"neck": [1, 2]}}, path)
    return path


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _integers(tensors):
    tensors["neck.extra"] = torch.tensor([1])


def _neck_of_another(tensors):
    tensors["neck.f1_v_proj.0.weight"] = torch.zeros(32, 48, 1, 1)


MISTAKES = {
    "truncated": (_truncated, {}, "unreadable: cut off"),
    "code": (_code, {}, "unreadable: pickled code"),
    "clipseg": (_clipseg, {}, "wrong-model: CLIPSeg.*conversion.clipseg"),
    "clip": (_clip, {}, "wrong-model: CLIP alone.*--clip"),
    "no tensors": (_not_tensors, {}, "unreadable: dictionary"),
    "absent": (lambda path: path, {}, "no-such-file: cris_best.pth"),
    "a folder": (_folder, {}, "not-a-file: cris_best.pth"),
    "another preset": (write, {"preset": "RN50"}, r"wrong-model: not RN50's \(3, 4, 6, 3\) and 64"),
    "lacking": (_changed(lambda t: t.pop("proj.txt.bias")), {}, "wrong-weights: lacks proj.txt.bias"),
    "left over": (_changed(lambda t: t.update({"neck.more": torch.ones(2)})), {}, "wrong-weights: neck.more"),
    "integers": (_changed(_integers), {}, r"wrong-weights: neck.extra \(int64\)"),
    "another neck": (_changed(_neck_of_another), {}, "wrong-model: encoder .*32, .*neck .*48"),
    "no clip": (write_without_clip, {}, "wrong-weights: --clip RN50.pt"),
    "no tokenizer": (write, {"tokenizer": None}, "no-tokenizer: --tokenizer CIDAS/clipseg-rd64"),
    "tokenizer of no folder": (write, {"tokenizer": "nowhere"}, "no-such-model: nowhere"),
    "heads": (write, {"decoder_heads": 3}, "model-config: --decoder-heads"),
    "image size": (write, {"image_size": 100}, "model-config: --image-size"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line(mistake, tmp_path, monkeypatch, capsys):
    make, changes, says = MISTAKES[mistake]
    checkpoint = make(tmp_path / "cris_best.pth")
    mistakes.check_line(complaint(monkeypatch, capsys, checkpoint, tmp_path / "model", **changes), says)
    assert not (tmp_path / "cris_best.ran").exists()


def test_clips_archive_of_another_model(tmp_path, monkeypatch, capsys):
    other = tmp_path / "RN50.pt"
    torch.save({"visual.conv1.weight": torch.zeros(3, 3)}, other)
    checkpoint = write_without_clip(tmp_path / "cris.pth")
    line = complaint(monkeypatch, capsys, checkpoint, tmp_path / "model", clip=other)
    mistakes.check_line(line, "wrong-model: CLIP with a ResNet")
    line = complaint(
        monkeypatch, capsys, checkpoint, tmp_path / "model", clip=write_clip(tmp_path / "RN101.pt"), preset="RN50"
    )
    mistakes.check_line(line, "wrong-model: RN101.pt .*RN50's")


def test_rn101s_weights_with_rn50s_preset(tmp_path, monkeypatch, capsys):
    sizes = small_cris.sizes()
    deep = dataclasses.replace(sizes, vision=dataclasses.replace(sizes.vision, layers=RN101.layers))
    theirs = rules.to_theirs(cris_rules(deep), small_cris.random_weights(deep))
    torch.save({name: torch.tensor(tensor) for name, tensor in theirs.items()}, tmp_path / "cris.pth")
    line = complaint(monkeypatch, capsys, tmp_path / "cris.pth", tmp_path / "model", preset="RN50")
    mistakes.check_line(line, r"wrong-model: RN101 \(\(3, 4, 23, 3\) .*RN50's \(3, 4, 6, 3\)")


def test_rn101_is_named():
    with mistakes.raises("wrong-model: RN101 .* not RN50's"):
        check_preset(RN101, "RN50", "cris.pth")


def test_a_tokenizer_of_another_vocabulary(tmp_path, monkeypatch, capsys):
    tensors = published()
    tensors["backbone.token_embedding.weight"] = torch.zeros(1000, 64)
    torch.save(tensors, tmp_path / "cris.pth")
    line = complaint(monkeypatch, capsys, tmp_path / "cris.pth", tmp_path / "model")
    mistakes.check_line(line, "wrong-tokenizer: tokens, .*1000")


def test_rules_are_undone_exactly():
    theirs = small_cris.published()
    _, ours = cris_model.convert(theirs, decoder_heads=small_cris.HEADS, image_size=small_cris.IMAGE)
    back = rules.to_theirs(cris_rules(small_cris.sizes()), ours)
    for name, tensor in theirs.items():
        assert_array_equal(back[name], tensor, strict=True)
