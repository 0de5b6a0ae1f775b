"""Tests of `python -m conversion.tunevlseg`: every golden learner imports, predicts and goes back."""

import dataclasses
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import chex
import cv2
import jax.numpy as jnp
import mistakes
import numpy as np
import pytest
import small
import test_golden
import test_golden_cris
import torch
from numpy.testing import assert_array_equal

from conversion import tunevlseg
from conversion.published import checkpoint
from conversion.published.learner import without_copies
from conversion.published.tensors import from_published
from tunevlseg_jax import cli, predict
from tunevlseg_jax.learners import CoCoOp, CoOp, MaPLe, SharedSeparate, ZeroShot
from tunevlseg_jax.models.build import with_prompt_offset
from tunevlseg_jax.models.resnet import ModifiedResNet
from tunevlseg_jax.network import Network
from tunevlseg_jax.prediction import session
from tunevlseg_jax.prediction.frames import Opened
from tunevlseg_jax.pretrained.load import EMBEDDED, load_pretrained, save_pretrained
from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.pretrained.tokenizer import Tokenizer
from tunevlseg_jax.runs.card import load_learnt
from tunevlseg_jax.runs.restore import restore
from tunevlseg_jax.training import step
from tunevlseg_jax.training.experiment import Experiment

pytestmark = [pytest.mark.usefixtures("quick_compilation"), pytest.mark.xdist_group("golden")]

ROWS = [row for row in (*test_golden.ROWS, *test_golden_cris.ROWS) if row["model"] != "clipseg_complex"]
NAMES = {row["file"].removesuffix(".safetensors"): row for row in ROWS}
MAPLE = "clipseg_simple/maple_depth3"
BASE = test_golden.golden_config("clipseg_simple")
"""Sizes of the model that the mistakes are about."""
Tensors = dict[str, torch.Tensor]


class Code:
    """What a pickle may run when it is read."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path) -> Callable[..., str]:
    """Runs the command, or another, in a folder of its own; gives what it prints, or raises its line of error."""
    monkeypatch.chdir(tmp_path)

    def run(*options: object, main=tunevlseg.main) -> str:
        try:
            small.run(monkeypatch, main, *options)
        except SystemExit as stop:
            captured = capsys.readouterr()
            assert stop.code == cli.MISTAKEN and captured.out == ""
            raise mistakes.printed(captured.err) from None
        return capsys.readouterr().out

    return run


def is_cris(row: dict) -> bool:
    return row["model"] == "cris"


@cache
def model_folder(name: str) -> Path:
    """A golden model as ours, whose images are normalised already, with a tokenizer that no test uses."""
    if name == "cris":
        config, params = test_golden_cris.golden_model(folded=False)
    else:
        config, params, _ = test_golden.golden_model(name)
    weights = {path.removeprefix("model/"): np.asarray(weight) for path, weight in params.items()}
    tokenizer = Tokenizer.load(EMBEDDED / "clipseg-tiny")
    save_pretrained(small.FOLDER / "golden" / name, Pretrained(config, weights, tokenizer, ""), {"made by": "tests"})
    return small.FOLDER / "golden" / name


def golden(row: dict) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The trained tensors of a case by published name, and its logits."""
    if is_cris(row):
        tensors = test_golden_cris.read(Path(row["file"]).stem)
    else:
        tensors = test_golden.load_file(test_golden.GOLDEN / row["file"])
    return test_golden.group(tensors, "param"), tensors["expected.logits"][:, 0]


def state_dict(row: dict) -> Tensors:
    """Every tensor of the published net of a case, with those that only a whole checkpoint holds."""
    if is_cris(row):
        base = {f"net.{name}": tensor for name, tensor in test_golden_cris.checkpoint().items()}
    else:
        weights = test_golden.load_file(test_golden.GOLDEN / row["model"] / "model.safetensors")
        base = {f"net.model.{name}": tensor for name, tensor in weights.items()}
    learnt = {f"net.{name}": tensor for name, tensor in golden(row)[0].items()}
    if row.get("one_projector_for_all_depths"):
        for depth in range(1, row["depth"]):
            first = {name: x for name, x in learnt.items() if "layers.0." in name}
            learnt |= {name.replace("layers.0.", f"layers.{depth}."): x for name, x in first.items()}
    counters = {name.replace("running_var", "num_batches_tracked") for name in base if "running_var" in name}
    tensors = {name: torch.tensor(np.array(x, order="C")) for name, x in {**base, **learnt}.items()}
    return tensors | {name: torch.tensor(0) for name in counters}


def write_checkpoint(path: Path, tensors: Tensors, **extra: object) -> Path:
    """A checkpoint of Lightning with tensors and plain values."""
    whole = {
        "epoch": 12,
        "global_step": 3400,
        "pytorch-lightning_version": "2.2.1",
        "state_dict": tensors,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 13, "completed": 12}}}},
        "callbacks": {
            "ModelCheckpoint{'monitor': 'val_dice'}": {"best_model_score": torch.tensor(0.9), "dirpath": "x"}
        },
        "optimizer_states": [{"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": [{"lr": 2e-4}]}],
        "lr_schedulers": [{"factor": 0.2, "patience": 5}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"compile": False, "task": "binary", "threshold": 0.5},
    }
    torch.save(whole | extra, path)
    return path


def options_of(row: dict) -> list[str]:
    """The options for a case, which differs from the published configurations."""
    height, width = image_size(row)
    options = [] if is_cris(row) else ["--image-size", str(height), str(width)]
    if row.get("normalize_image_features"):
        options += ["--learner.normalize-image"]
    if row["learner"] == "shared_attention":
        options += ["--learner.heads", str(row["nhead"])]
    if row["semantics"] == "paper":
        options += ["--prompt-offset", "0"] if is_cris(row) else []
        options += ["--learner.attends-across-tokens"] if row["learner"] == "shared_attention" else []
        options += ["--upsampling", "blend"] if row["upsampler"] else []
    return options


def inputs_of(row: dict) -> dict[str, np.ndarray]:
    return test_golden_cris.read("inputs") if is_cris(row) else test_golden.golden_model(row["model"])[2]


def image_size(row: dict) -> tuple[int, int]:
    """Height and width of the golden images of a case."""
    height, width = inputs_of(row)["target"].shape[2:]
    return height, width


def expected(row: dict) -> Network:
    """The network of a case."""
    params = golden(row)[0]
    learner = test_golden_cris.learner_of(row) if is_cris(row) else test_golden.learner_of(row)
    if isinstance(learner, CoOp | CoCoOp | MaPLe):
        learner = dataclasses.replace(learner, init_phrase=None)
    if isinstance(learner, CoCoOp | MaPLe | SharedSeparate):
        projector = learner.projector
        shared = learner.depth > 1 and (projector.shared or same_at_every_depth(params))
        learner = dataclasses.replace(learner, projector=dataclasses.replace(projector, shared=shared))
    upsampling = "none" if not row["upsampler"] else "blend" if "residual_ratio" in params else "add"
    offset = 1 if is_cris(row) and row["semantics"] == "published" else 0
    config = with_prompt_offset(load_pretrained(str(model_folder(row["model"]))).config, offset)
    return Network(config, learner, upsampling)


def assert_equal(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    chex.assert_trees_all_equal(ours, theirs, strict=True)


def same_at_every_depth(params: dict[str, np.ndarray]) -> bool:
    """Whether all depths have the same projector, as before the first step of training."""
    return all(
        np.array_equal(x, params[name.replace("layers.0.", f"layers.{depth}.")])
        for name, x in params.items()
        for depth in range(len(params["context_learner.context_vectors"]))
    )


DEAREST = ("cris/cocoop_depth1_published", "clipseg_simple/shared_attention_depth1_published")


@pytest.mark.parametrize("row", test_golden.cases(ROWS, *DEAREST))
def test_import_predict_and_export(row, run, tmp_path, monkeypatch):
    params, logits = golden(row)
    theirs = state_dict(row)
    write_checkpoint(tmp_path / "epoch.ckpt", theirs)
    importing = ("--model", model_folder(row["model"]), *options_of(row))
    output = run("--checkpoint", "epoch.ckpt", "--output", "run", *importing)
    assert type(expected(row).learner).__name__ in output

    config, learnt, _ = load_learnt(tmp_path / "run")
    network = expected(row)
    assert (config.learner, config.upsampling) == (network.learner, network.upsampling)
    assert config.model.prompt_offset == getattr(network.config, "prompt_offset", 0)
    assert_equal(learnt, from_published(without_copies(params, network.learner), network))

    sample = ROWS.index(row) % len(logits)
    mask = predicted(row, sample, run, monkeypatch)
    clear = np.abs(logits[sample]) > 1e-4 * np.abs(logits[sample]).max()
    assert_array_equal(mask[clear], logits[sample][clear] > 0)
    assert clear.mean() > 0.99

    run("--checkpoint", "run", "--export", "--output", "back.ckpt")
    back = torch.load(tmp_path / "back.ckpt", weights_only=True)["state_dict"]
    assert_equal({name: x.numpy() for name, x in back.items()}, {name: x.numpy() for name, x in theirs.items()})
    run("--checkpoint", "back.ckpt", "--output", "again", *importing)
    again, relearnt, _ = load_learnt(tmp_path / "again")
    assert dataclasses.replace(again, workdir=config.workdir) == config
    assert_equal(relearnt, learnt)


def predicted(row: dict, sample: int, run, monkeypatch) -> np.ndarray:
    """The mask that `predict` writes for a golden image, which is normalised already, and its prompt."""
    inputs = inputs_of(row)
    black = np.zeros((*image_size(row), 3), np.float32)
    image = inputs["image"][sample].transpose(1, 2, 0) if "image" in inputs else black
    table = jnp.asarray(inputs["input_ids"][sample : sample + 1], jnp.int32)
    if is_cris(row) and not test_golden_cris.WHOLE:
        features = [x[sample : sample + 1] for x in test_golden_cris.golden_features()]
        stand_in = lambda self, images: tuple(x.repeat(len(images), axis=0) for x in features)  # noqa: E731
        monkeypatch.setattr(ModifiedResNet, "__call__", stand_in)
    monkeypatch.setattr(session.frames, "open_file", lambda path, *_: Opened(path, lambda: iter([image])))
    monkeypatch.setattr(session, "overlay", lambda image, mask: np.zeros((1, 1, 3), np.uint8))
    monkeypatch.setattr(Experiment, "token_table", lambda self, phrases, **_: table)
    Path("photo.png").touch()
    # Not compiled: the cases share most operations, and compiling each case takes longer.
    monkeypatch.setattr(step, "answer_step", step.answer_step.__wrapped__)
    run("--run", "run", "--image", "photo.png", "--prompt", "a", "--output", "masks", main=predict.main)
    mask = cv2.imread("masks/photo_mask.png", cv2.IMREAD_GRAYSCALE)
    assert mask is not None
    return mask > 0


def test_upsampler_that_the_published_code_never_reaches(run, tmp_path):
    row = NAMES["clipseg_simple/coop_depth3_upsampler"]
    write_checkpoint(tmp_path / "epoch.ckpt", state_dict(row))
    output = run("--checkpoint", "epoch.ckpt", "--output", "run", "--model", model_folder(row["model"]))
    assert "left out: additive_decoder_layer" in output and "--upsampling none" in output
    config, learnt, card = load_learnt(tmp_path / "run")
    assert config.upsampling == "none" and learnt.keys() == {"learner/context"}
    assert config.data.truncate and card["source"]["checkpoint"] == "epoch.ckpt"


def test_a_run_that_the_published_code_would_not_repeat(run, tmp_path):
    row = NAMES["clipseg_simple/coop_depth3_upsampler"]
    write_checkpoint(tmp_path / "epoch.ckpt", state_dict(row))
    run("--checkpoint", "epoch.ckpt", "--output", "run", "--model", model_folder(row["model"]), *options_of(row))
    output = run("--checkpoint", "run", "--export", "--output", "back.ckpt")
    assert "it never reaches the upsampler of CoOp and CoCoOp on CLIPSeg" in output


def with_linear_cocoop(rng: np.random.Generator) -> tuple[Tensors, np.ndarray, np.ndarray]:
    """A CoCoOp as published with plain linear projectors; its context and its biases."""
    tensors = {name: x for name, x in state_dict(NAMES[MAPLE]).items() if "context_learner" not in name}
    width, image_width = BASE.text.width, BASE.embedding_width
    context, biases = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 4, width), (3, width)))
    learnt = {"context_vectors": context}
    for depth in range(3):
        learnt[f"projection_layers.{depth}.weight"] = rng.normal(size=(width, image_width)).astype(np.float32)
        learnt[f"projection_layers.{depth}.bias"] = biases[depth]
    tensors |= {f"net.context_learner.{name}": torch.tensor(x) for name, x in learnt.items()}
    return tensors, context, biases


def test_linear_cocoops_bias_is_part_of_the_context(run, tmp_path):
    tensors, context, biases = with_linear_cocoop(np.random.default_rng(0))
    write_checkpoint(tmp_path / "epoch.ckpt", tensors)
    run("--checkpoint", "epoch.ckpt", "--output", "run", "--model", model_folder("clipseg_simple"))
    config, learnt, _ = load_learnt(tmp_path / "run")
    assert isinstance(config.learner, CoCoOp) and config.learner.projector.kind == "linear"
    assert_array_equal(learnt["learner/context"], context + biases[:, None])
    run("--checkpoint", "run", "--export", "--output", "back.ckpt")
    back = torch.load(tmp_path / "back.ckpt", weights_only=True)["state_dict"]
    assert back.keys() == tensors.keys()
    assert not back["net.context_learner.projection_layers.2.bias"].any()
    run("--checkpoint", "back.ckpt", "--output", "again", "--model", model_folder("clipseg_simple"))
    assert_equal(load_learnt(tmp_path / "again")[1], learnt)


def test_projectors_that_differ_at_one_depth_are_not_shared(run, tmp_path):
    tensors = state_dict(NAMES["clipseg_simple/maple_lora_unified_depth3"])
    tensors["net.context_learner.projection_layers.2.0.weight"] += 1
    write_checkpoint(tmp_path / "epoch.ckpt", tensors)
    run("--checkpoint", "epoch.ckpt", "--output", "run", "--model", model_folder("clipseg_simple"))
    config, learnt, _ = load_learnt(tmp_path / "run")
    assert isinstance(config.learner, MaPLe) and not config.learner.projector.shared
    assert len(learnt["learner/projector/layer0/kernel"]) == 3


def test_a_trained_decoder_under_a_compiled_network_and_an_earlier_import(run, tmp_path):
    tensors = {name: x for name, x in state_dict(NAMES[MAPLE]).items() if name.startswith("net.model.")}
    tensors["net.model.decoder.film_mul.bias"] += 1
    tensors = {name.replace("net.", "net._orig_mod.", 1): x for name, x in tensors.items()}
    write_checkpoint(tmp_path / "epoch.ckpt", tensors | {"loss_fn.class_weight": torch.ones(1)})
    for _ in range(2):  # the second in the place of the first
        run("--checkpoint", "epoch.ckpt", "--output", "run", "--model", model_folder("clipseg_simple"))
    experiment, learnt = restore(tmp_path / "run")
    assert experiment.config.learner == ZeroShot() and experiment.config.train.tune == "decoder"
    before = load_pretrained(experiment.config.model.checkpoint).weights
    for path, tensor in learnt.items():
        weight = before[path.removeprefix("model/")]
        assert_array_equal(tensor, weight + 1 if path == "model/decoder/film_scale/bias" else weight)


# What can be wrong: what a checkpoint of MaPLe is changed to, options, and what the line says.


def without(name: str):
    return lambda tensors: tensors.pop(name)


def put(name: str, tensor: torch.Tensor):
    return lambda tensors: tensors.update({name: tensor})


def bare(tensors: Tensors) -> None:
    for name in list(tensors):
        tensors[name.removeprefix("net.")] = tensors.pop(name)


def of_width(width: int):
    """Context vectors alone."""

    def change(tensors: Tensors) -> None:
        for name in [name for name in tensors if "context_learner" in name]:
            del tensors[name]
        tensors["net.context_learner.context_vectors"] = torch.zeros(2, 4, width)

    return change


def single_low_rank_layer(tensors: Tensors) -> None:
    for depth in range(3):
        prefix = f"net.context_learner.projection_layers.{depth}"
        for name in [name for name in tensors if name.startswith(prefix)]:
            del tensors[name]
        tensors[f"{prefix}.0.weight"] = torch.zeros(BASE.vision.width, BASE.text.width)
        tensors[f"{prefix}.1.weight"] = torch.zeros(BASE.vision.width)


def nothing(tensors: Tensors) -> None:
    pass


CLIP = "net.model.clip"
WIDTH = BASE.text.width
PROJECTION = "net.context_learner.projection_layers"
MISTAKES = {
    "frozen": (
        put(f"{CLIP}.logit_scale", torch.tensor(9.0)),
        [],
        "model-changed: model/logit_scale",
    ),
    "lacking of the model": (without(f"{CLIP}.logit_scale"), [], r"wrong-weights: lacks model\.clip\.logit_scale"),
    "lacking of the learner": (
        without(f"{PROJECTION}.1.0.bias"),
        [],
        r"wrong-weights: lacks context_learner.*\.1\.0\.bias",
    ),
    "no contexts": (without("net.context_learner.context_vectors"), [], "wrong-learner: context_vectors"),
    "left over in the model": (put(f"{CLIP}.more", torch.ones(2)), [], r"wrong-weights: model\.clip\.more"),
    "left over in the learner": (put(f"{PROJECTION}.3.0.bias", torch.ones(8)), [], r"wrong-weights: \.3\.0\.bias"),
    "shape": (put(f"{PROJECTION}.1.0.bias", torch.ones(9)), [], "wrong-weights: shape of"),
    "no net": (bare, [], r"wrong-model: net\..* context_learner"),
    "integers": (put("net.more", torch.ones(2, dtype=torch.int64)), [], r"wrong-weights: net\.more \(int64\)"),
    "low rank": (single_low_rank_layer, [], "wrong-learner: single layer"),
    "another width": (of_width(WIDTH + 1), [], f"wrong-learner: width {WIDTH + 1} .*text .*{WIDTH}"),
    "another kind": (of_width(WIDTH), ["--learner.kind", "VPT"], f"wrong-learner: width {WIDTH} .*VPT"),
    "no model": (nothing, ["--model", None], "missing-option: --model"),
    "image size": (nothing, ["--image-size", "50", "48"], "image-size: 50"),
    "misspelt kind": (nothing, ["--learner.kind", "Coop"], "invalid-option: Coop"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line(mistake, run, tmp_path):
    change, options, says = MISTAKES[mistake]
    tensors = state_dict(NAMES[MAPLE])
    change(tensors)
    write_checkpoint(tmp_path / "epoch.ckpt", tensors)
    model = [] if "--model" in options else ["--model", model_folder("clipseg_simple")]
    options = [] if "--model" in options else options
    with mistakes.raises(says):
        run("--checkpoint", "epoch.ckpt", "--output", "run", *model, *options)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch.ckpt"]


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("cris", "wrong-model: CLIPSeg, .*--model .*CRIS"),
        (small.model_folder, "wrong-weights"),
        ("other", "model-changed: by up to 1 .*model/vision_tower/pre_norm/scale"),
    ],
)
def test_another_model(model, says, run, tmp_path):
    write_checkpoint(tmp_path / "epoch.ckpt", state_dict(NAMES[MAPLE]))
    if model == "other":
        base = load_pretrained(str(model_folder("clipseg_simple")))
        name = "vision_tower/pre_norm/scale"
        weights = {**base.weights, name: base.weights[name] + np.eye(1, BASE.vision.width, dtype=np.float32)[0]}
        save_pretrained(tmp_path / "other", dataclasses.replace(base, weights=weights), {"made by": "tests"})
    folder = tmp_path / "other" if model == "other" else model() if callable(model) else model_folder(model)
    with mistakes.raises(says):
        run("--checkpoint", "epoch.ckpt", "--output", "run", "--model", folder)
    assert not (tmp_path / "run").exists()


def test_towers_of_equal_widths_leave_the_learner_open(run, tmp_path):
    folder = small.model_folder()
    base = load_pretrained(str(folder))
    theirs = checkpoint.model_to_published(
        {f"model/{path}": weight for path, weight in base.weights.items()}, base.config
    )
    tensors = {f"net.{name}": torch.tensor(x) for name, x in theirs.items()}
    tensors["net.context_learner.context_vectors"] = torch.ones(2, 3, 32)
    write_checkpoint(tmp_path / "epoch.ckpt", tensors)
    arguments = ("--checkpoint", "epoch.ckpt", "--model", folder, "--output", "run")
    with mistakes.raises(r"ambiguous-learner: CoOp or VPT .*--learner\.kind"):
        run(*arguments)
    assert "VPT, depth 2, 3 context tokens" in run(*arguments, "--learner.kind", "VPT")


def test_files_that_are_no_checkpoints(run, tmp_path, monkeypatch):
    path = write_checkpoint(tmp_path / "epoch.ckpt", state_dict(NAMES[MAPLE]), datamodule_hyper_parameters=Code())
    arguments = ("--checkpoint", "epoch.ckpt", "--output", "run", "--model", model_folder("clipseg_simple"))
    with mistakes.raises(r"unreadable: pickled code .*mkdir.*torch\.save"):
        run(*arguments)
    assert not (tmp_path / "ran").exists()
    whole = write_checkpoint(path, state_dict(NAMES[MAPLE])).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with mistakes.raises(r"unreadable: epoch\.ckpt: cut off"):
        run(*arguments)
    path.unlink()
    with mistakes.raises(r"no-such-file: epoch\.ckpt"):
        run(*arguments)
    assert not any(tmp_path.iterdir())


def test_what_is_there_already_is_kept(run, tmp_path):
    write_checkpoint(tmp_path / "epoch.ckpt", state_dict(NAMES[MAPLE]))
    importing = ("--checkpoint", "epoch.ckpt", "--model", model_folder("clipseg_simple"), "--output")
    run(*importing, "run")
    for name, says in (("epoch.ckpt", "not-a-folder: epoch.ckpt"), (".", "other-folder: run")):
        with mistakes.raises(says):
            run(*importing, name)
    with mistakes.raises(r"other-folder: --output epoch\.ckpt"):
        run("--checkpoint", "run", "--export", "--output", "epoch.ckpt")
    shutil.rmtree(tmp_path / "run")
    with mistakes.raises("run-unfinished: card.json"):
        run("--checkpoint", "run", "--export", "--output", "back.ckpt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch.ckpt"]
