"""Tests of what a user does wrong: one clear line, status 2, no traceback, and nothing half-written."""

import contextlib
import csv
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import cv2
import mistakes
import numpy as np
import pytest
import small
from safetensors.numpy import load_file, save_file

from tunevlseg_jax import evaluate, train
from tunevlseg_jax import predict as prediction
from tunevlseg_jax.config import Optim
from tunevlseg_jax.data.settings import Data, Scenes
from tunevlseg_jax.learners import CoOp, MaPLe, Projector, SharedAttention
from tunevlseg_jax.prediction.table import LIST_FILE
from tunevlseg_jax.pretrained.model import WEIGHTS_FILE
from tunevlseg_jax.runs import checkpoint, trainer
from tunevlseg_jax.runs.checkpoint import Checkpoints
from tunevlseg_jax.runs.run_folder import RunFolder
from tunevlseg_jax.runs.tensorboard import TensorBoardWriter
from tunevlseg_jax.training import loop

quick_compilation = small.quick_compilation


@pytest.fixture
def fails(monkeypatch, capsys):
    """Runs a command that must end in one line on stderr with a code and facts, and leave nothing at these places."""

    def run(main, *arguments: object, says: str, leaves: tuple[Path, ...] = ()) -> str:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(SystemExit) as stop:
            small.run(monkeypatch, main, *arguments)
        assert stop.value.code == 2
        return one_line(capsys.readouterr().err, says, leaves)

    return run


def one_line(err: str, says: str, leaves: tuple[Path, ...] = ()) -> str:
    """Checks what a command that failed wrote to stderr, and that nothing is at these places."""
    assert err.startswith("error: ") and err.endswith("\n") and err.count("\n") == 1, err
    mistakes.check_line(err, says)
    for path in leaves:
        assert not path.exists(), path
    return err


@pytest.fixture
def config_file(tmp_path) -> Path:
    """The small configuration, for a folder that doesn't exist."""
    return small.write_config(tmp_path / "config.py", small.config(tmp_path / "run"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--optim.lerning-rate 1", "invalid-option: --optim.lerning-rate.*--optim.learning-rate"),
        ("--tarin.epochs 1", "invalid-option: --tarin.epochs.*--train.epochs"),
        ("--learner.depht=1", "invalid-option: --learner.depht.*--learner.depth"),
        ("everything", "invalid-option: everything"),
        ("--optim.learning-rate high", "invalid-option: --optim.learning-rate.*'high'"),
        ("--optim.learning-rate", "invalid-option: --optim.learning-rate"),
        ("--train.epochs 2.5", "invalid-option: --train.epochs.*2.5"),
        ("--upsampling blnd", "invalid-option: 'blnd'.*--upsampling.*'blend'"),
        ("--train.tune everything", "invalid-option: 'everything'.*--train.tune.*'decoder'"),
        ("--optim.learning-rate -1", "out-of-range: optim.learning_rate .*-1"),
        ("--optim.learning-rate nan", "out-of-range: optim.learning_rate .*nan"),
        ("--optim.weight-decay -1", "out-of-range: optim.weight_decay .*-1"),
        ("--optim.plateau-factor 0", "out-of-range: optim.plateau_factor .*0"),
        ("--train.epochs 0", "out-of-range: train.epochs .*0"),
        ("--train.batch-size 0", "out-of-range: train.batch_size .*0"),
        ("--train.min-delta nan", "out-of-range: train.min_delta .*nan"),
        ("--train.seed -1", "out-of-range: train.seed .*-1"),
        ("--data.scenes.seed -1", "out-of-range: data.scenes.seed .*-1"),
        ("--data.scenes.absent-fraction 2", "out-of-range: data.scenes.absent_fraction .*2"),
        ("--model.image-size 50 50", r"image-size: model.image_size .*12.*\(50, 50\)"),
        ("--learner.depth 0", "learner-unfit: learner.depth .*1, .*0"),
        ("--learner.max-depth 9", "learner-unfit: learner.max_depth .*3, .*vision.*9"),
        ("--learner.max-depth None --learner.depth 4", "learner-unfit: learner.depth .*3, .*vision.*4"),
        ("--learner.depth 4", "learner-unfit: learner.depth .*learner.max_depth, 3, .*4"),
        ("--learner.num-context 0", "learner-unfit: learner.num_context .*0"),
        ("--data.scenes.train 0", "out-of-range: data.scenes.train .*1.*0"),
        ("--data.scenes.val 0", "out-of-range: data.scenes.val .*1.*0"),
        ("--data.prompt-index 2", "prompt-index: scenes/photo .*data.prompt_index .*1, .*2"),
        ("--data.prompt-index -1", "prompt-index: data.prompt_index .*-1"),
        ("--data.scenes.test -1", "out-of-range: data.scenes.test .*1.*-1"),
        ("--data.name scenes/xry", "no-such-data-set: 'scenes/xry'.*'scenes/xray'"),
        ("--data.name kvasir", "no-such-data-set: 'kvasir'.*scenes/photo"),
        ("--model.checkpoint nowhere", "no-such-model: 'nowhere'.*clipseg-tiny"),
        ("--model.checkpoint no/where", "no-such-model: 'no/where'"),
    ],
)
def test_options(fails, tmp_path, config_file, options, says):
    fails(train.main, "--config", config_file, *options.split(), says=says, leaves=(tmp_path / "run",))


@pytest.mark.parametrize(
    ("learner", "says"),
    [
        (CoOp(depth=4, init_phrase=None), "learner-unfit: learner.depth .*3, .*text.*4"),
        (CoOp(depth=0, init_phrase=None), "learner-unfit: learner.depth .*0"),
        (CoOp(depth=1, num_context=2, init_phrase="seven"), "learner-unfit: learner.num_context, 2, .*'seven' .*1"),
        (
            CoOp(depth=1, num_context=small.CONTEXT - 3, init_phrase=None),
            "prompt-too-long: 'zero.'.* 4 .* 3 .*--data.truncate",
        ),
        (CoOp(depth=1, num_context=small.CONTEXT, init_phrase=None), "prompt-too-long: learner.num_context"),
        (
            MaPLe(depth=1, init_phrase=None, projector=Projector(hidden=(0,))),
            r"learner-unfit: projector.hidden .*\(0,\)",
        ),
        (SharedAttention(depth=1, heads=7), "learner-unfit: learner.heads .*64, .*7"),
        (SharedAttention(depth=1, heads=0), "learner-unfit: learner.heads .*0"),
        (SharedAttention(depth=1, dropout=1.0), "learner-unfit: learner.dropout .*1.0"),
    ],
    ids=repr,
)
def test_learners(fails, tmp_path, learner, says):
    config = small.write_config(tmp_path / "config.py", small.config(tmp_path / "run", learner=learner))
    fails(train.main, "--config", config, says=says, leaves=(tmp_path / "run",))


def test_cutting_prompts_needs_room_for_a_word(fails, tmp_path):
    learner = CoOp(depth=1, num_context=small.CONTEXT - 2, init_phrase=None)
    config = small.config(tmp_path / "run", learner=learner, data=Data(name="scenes/photo", truncate=True))
    path = small.write_config(tmp_path / "config.py", config)
    fails(train.main, "--config", path, says="prompt-too-long: learner.num_context", leaves=(tmp_path / "run",))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Config(train=Train(epoch=3))", "config-fails: config.py:3 Train.*'epoch'.*'epochs'"),
        ("Config(trian=Train())", "config-fails: config.py:3 Config.*'trian'.*'train'"),
        ("Config(learner=VPT(dpth=3))", "config-fails: config.py:3 VPT.*'dpth'.*'depth'"),
        ("Config(\n", "config-fails: config.py:3 SyntaxError"),
        ("Confg()", "config-fails: config.py:3 NameError.*'Confg'"),
        ("Config(train=Train(epochs='3'))", "wrong-type: train.epochs .*int.*'3'"),
        ("Config(upsampling='blnd')", "unknown-choice: upsampling .*'blnd'.*'blend'"),
        ("Config(learner='VPT')", "missing-field: learner .*VPT"),
        ("Config(train=Train)", "missing-field: train .*Train"),
        ("7", "variable-missing: config = Config"),
    ],
)
def test_configuration_files(fails, tmp_path, text, says):
    path = tmp_path / "config.py"
    path.write_text(f"from tunevlseg_jax.config import *\nfrom tunevlseg_jax.learners import *\nconfig = {text}\n")
    fails(train.main, "--config", path, "--workdir", tmp_path / "run", says=says, leaves=(tmp_path / "run",))


def test_no_configuration(fails, tmp_path):
    fails(train.main, says="missing-option: --config.*configs/quickstart.py")
    fails(train.main, "--config", says="missing-option: --config")
    fails(train.main, "--config", tmp_path / "nowhere.py", says="no-such-file: nowhere.py")
    fails(train.main, "--config", tmp_path, says="no-such-file")


def drop(tensors: dict) -> None:
    del tensors["decoder/film_scale/kernel"]


def add(tensors: dict) -> None:
    tensors["decoder/extra"] = np.zeros(1, np.float32)


def cut(tensors: dict) -> None:
    tensors["decoder/film_scale/kernel"] = tensors["decoder/film_scale/kernel"][1:]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (drop, r"wrong-weights: model.safetensors lacks decoder/film_scale/kernel \["),
        (add, r"wrong-weights: model.safetensors .*unknown decoder/extra \["),
        (cut, r"wrong-weights: model.safetensors .*shape of decoder/film_scale/kernel \["),
    ],
)
def test_checkpoints_with_other_tensors(fails, tmp_path, config_file, change, says):
    shutil.copytree(small.model_folder(), tmp_path / "model")
    path = tmp_path / "model" / WEIGHTS_FILE
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    options = "--config", config_file, "--model.checkpoint", tmp_path / "model"
    fails(train.main, *options, says=says, leaves=(tmp_path / "run",))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("model.safetensors", None, "no-such-file: model.safetensors"),
        ("model.safetensors", b"broken", "unreadable: model.safetensors"),
        ("config.json", b"{", "unreadable: config.json"),
        ("config.json", b"[]", "wrong-json: config.json"),
        ("config.json", b'{"model": {"class": "CLIPSegConfg"}}', "unknown-type: 'CLIPSegConfg'.*'CLIPSegConfig'"),
        ("tokenizer.json", None, "no-tokenizer"),
        ("tokenizer.json", b"{}", "unreadable: tokenizer"),
    ],
)
def test_broken_checkpoints(fails, tmp_path, config_file, name, content, says):
    shutil.copytree(small.model_folder(), tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    if content is not None:
        (tmp_path / "model" / name).write_bytes(content)
    options = "--config", config_file, "--model.checkpoint", tmp_path / "model"
    fails(train.main, *options, says=says, leaves=(tmp_path / "run",))


def test_a_workdir_that_is_something_else(fails, tmp_path, config_file):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("mine")
    for workdir, says in (
        (tmp_path / "file", "not-a-folder: file "),
        (tmp_path / "folder", "other-folder: folder "),
        (tmp_path / "file" / "run", "unwritable: Not a directory"),
    ):
        fails(train.main, "--config", config_file, "--workdir", workdir, says=says)
    assert (tmp_path / "file").read_text() == "mine"
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_a_run_of_another_configuration(fails, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(small.finished(), folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    config = small.write_config(tmp_path / "config.py", small.config(folder))
    err = fails(
        train.main,
        *("--config", config, "--learner.depth", "1", "--optim.learning-rate", "0.5"),
        says="other-config: learner.depth .*2.*1, optim.learning_rate .*0.01.*0.5.*--workdir",
    )
    assert "train." not in err and "workdir was" not in err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.fixture
def copy(tmp_path) -> Path:
    """A finished run that may be spoilt."""
    return shutil.copytree(small.finished(), tmp_path / "finished")


def test_evaluating_what_is_no_run(fails, tmp_path, copy):
    fails(evaluate.main, says="invalid-option: --run")
    fails(evaluate.main, "--run", tmp_path / "nowhere", says="run-unfinished: card.json in .*nowhere.*no run folder")
    fails(evaluate.main, "--run", copy, "--split", "tset", says="unknown-split: 'tset'.*'test'")
    fails(evaluate.main, "--run", copy, "--data.name", "scenes/foto", says="no-such-data-set: 'scenes/photo'")
    fails(evaluate.main, "--run", copy, "--resolution", "orignal", says="invalid-option: 'orignal'.*'original'")
    fails(evaluate.main, "--run", copy, "--splt", "test", says="invalid-option: --splt.*--split")
    assert not (copy / "evaluations").exists()
    for name in ("card.json", "prompts.safetensors", "results.json"):
        (copy / name).unlink()
    fails(evaluate.main, "--run", copy, says="run-unfinished: card.json.*training")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("prompts.safetensors", None, "no-such-file: prompts.safetensors"),
        ("prompts.safetensors", b"", "unreadable: prompts.safetensors"),
        ("card.json", b"{}", "bad-card: card.json"),
        ("card.json", b"{", "unreadable: card.json"),
    ],
)
def test_broken_runs(fails, copy, name, content, says):
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_bytes(content)
    fails(evaluate.main, "--run", copy, says=says, leaves=(copy / "evaluations",))


def test_learnt_tensors_that_do_not_fit_their_card(fails, copy):
    tensors = load_file(copy / "prompts.safetensors")
    save_file({"learner/context": tensors["learner/context"]}, copy / "prompts.safetensors")
    fails(evaluate.main, "--run", copy, says="bad-learnt: prompts.safetensors .*upsampler/bias")


def test_another_base_model_than_the_cards(fails, tmp_path, copy):
    shutil.copytree(small.model_folder(), tmp_path / "model")
    path = tmp_path / "model" / WEIGHTS_FILE
    tensors = load_file(path)
    tensors["decoder/film_scale/kernel"][0, 0] += 1
    save_file(tensors, path)
    for main, options in ((evaluate.main, ()), (prediction.main, ("--image", picture(tmp_path), "--prompt", "seven"))):
        says = "model-changed: sha256 [0-9a-f]{12}, not [0-9a-f]{12}"
        fails(main, "--run", copy, "--checkpoint", tmp_path / "model", *options, says=says)


def picture(folder: Path, name: str = "picture.png") -> Path:
    """A readable image."""
    folder.mkdir(exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    (folder / name).write_bytes(cv2.imencode(Path(name).suffix, noise)[1].tobytes())
    return folder / name


def test_predicting_from_nothing(fails, tmp_path):
    output, image = tmp_path / "masks", picture(tmp_path / "images")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "._a.jpg").write_bytes(b"what macOS adds")
    run = "--run", small.finished(), "--output", output
    for options, says in (
        (("--image", tmp_path / "nowhere.png", "--prompt", "seven"), "no-such-file: nowhere.png"),
        (("--image", tmp_path / "empty", "--prompt", "seven"), "no-images: empty"),
        (("--image", "--prompt", "seven"), "missing-option: --image"),
        (("--image", image, "--prompt", " "), "empty-prompt: --prompt"),
        (("--image", image), "invalid-option: --prompt"),
        (("--image", image, "--prompt", "seven", "--threshold", "2"), "out-of-range: --threshold .*0 .*1, .*2.0"),
        (("--image", image, "--prompt", "seven " * 30), "prompt-too-long: 'seven seven .* 33 .* 24 "),
        (("--image", image, "--prompt", "seven", "--imag", image), "invalid-option: --imag.*--image"),
    ):
        fails(prediction.main, *run, *options, says=says, leaves=(output,))


def test_a_name_that_is_not_utf8(fails, tmp_path):
    image, output = picture(tmp_path / "images", os.fsdecode(b"K\xf6ln.png")), tmp_path / "masks"
    for given in (image, image.parent):
        options = "--run", small.finished(), "--image", given, "--prompt", "seven", "--output", output
        fails(prediction.main, *options, says=r"invalid-name: K\\udcf6ln\.png' .*UTF-8", leaves=(output,))


@pytest.mark.parametrize("part", ["mask", "overlay"])
@pytest.mark.parametrize("listed", [False, True])
def test_a_mask_that_was_not_predicted_stays(fails, tmp_path, part, listed):
    """Also in a folder that has predictions of other images."""
    image = picture(tmp_path / "images")
    theirs = picture(tmp_path / "masks", f"{image.stem}_{part}.png")
    if listed:
        (theirs.parent / LIST_FILE).write_text("image,prompt,mask,marked\na.png,seven,a_mask.png,0.5\n")
    before = {path: path.read_bytes() for path in theirs.parent.iterdir()}
    options = "--run", small.finished(), "--image", image, "--prompt", "seven", "--output", theirs.parent
    fails(prediction.main, *options, says=f"other-folder: {theirs.name}")
    assert {path: path.read_bytes() for path in theirs.parent.iterdir()} == before


def test_a_mask_of_another_image_stays(monkeypatch, tmp_path):
    image, other = picture(tmp_path / "images"), picture(tmp_path / "others")
    assert image.name == other.name
    theirs = picture(tmp_path / "masks", f"{other.stem}_mask.png")
    row = f"image,prompt,mask,marked\n{other},seven,{theirs.name},0.5\n"
    (theirs.parent / LIST_FILE).write_text(row)
    before = theirs.read_bytes()
    options = "--run", small.finished(), "--image", image, "--prompt", "seven", "--output", theirs.parent
    small.run(monkeypatch, prediction.main, *options)
    assert theirs.read_bytes() == before and (theirs.parent / "picture.png_mask.png").is_file()
    with (theirs.parent / LIST_FILE).open(newline="", encoding="utf-8") as file:
        rows = [(row["image"], row["mask"], row["marked"]) for row in csv.DictReader(file)]
    assert rows[0] == (str(other), theirs.name, "0.5") and rows[1][:2] == (str(image), "picture.png_mask.png")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "other-folder"),
        (b"patient,finding\n1,none\n", "other-folder"),
        (b"image,prompt,mask,marked\na.png,seven,a_mask.png,0.5,checked\n", "other-folder"),
        (b"\xff\xfe", "unreadable"),
    ],
)
def test_a_list_that_is_not_of_predictions_stays(fails, tmp_path, text, says):
    image, output = picture(tmp_path / "images"), tmp_path / "masks"
    output.mkdir()
    theirs = output / LIST_FILE
    theirs.write_bytes(text)
    options = "--run", small.finished(), "--image", image, "--prompt", "seven", "--output", output
    fails(prediction.main, *options, says=rf"{says}: masks/predictions\.csv")
    assert theirs.read_bytes() == text and list(output.iterdir()) == [theirs]


def broken(name: str) -> bytes:
    """The bytes of an image file that doesn't decode."""
    whole = picture(small.FOLDER, "whole.png").read_bytes()
    header = b"\x00\x00\x00\x0dIHDR" + (100_000).to_bytes(4) * 2 + b"\x08\x02\x00\x00\x00"
    return {"empty": b"", "text": b"no image", "half": whole[: len(whole) // 2], "huge": whole[:8] + header}[name]


@pytest.mark.parametrize("name", ["empty", "text", "half", "huge"])
def test_an_image_that_does_not_decode(fails, tmp_path, name):
    folder, output = picture(tmp_path / "images").parent, tmp_path / "masks"
    (folder / f"zz {name}.png").write_bytes(broken(name))
    options = "--run", small.finished(), "--image", folder, "--prompt", "seven", "--output", output
    fails(prediction.main, *options, says=f"undecodable: zz {name}.png")
    assert {path.name for path in output.iterdir()} == {"picture_mask.png", "picture_overlay.png", LIST_FILE}


@pytest.mark.slow
def test_in_processes_of_their_own(tmp_path, config_file):
    """As a user meets them: nothing but the line, whatever the libraries below would like to add."""
    (tmp_path / "broken.png").write_bytes(broken("half"))
    image = "--image", tmp_path / "broken.png", "--prompt", "seven", "--output", tmp_path / "masks"
    commands = {
        "invalid-option: --train.epochs": ("train", "--config", config_file, "--train.epoch", "1"),
        "undecodable: broken.png": ("predict", "--run", small.finished(), *image),
        "out-of-range: data.scenes.train .*1.*0": ("train", "--config", config_file, "--data.scenes.train", "0"),
    }
    processes = {
        says: small.start("-m", f"tunevlseg_jax.{name}", *options) for says, (name, *options) in commands.items()
    }
    for says, (status, out, err) in {says: small.finish(process) for says, process in processes.items()}.items():
        assert status == 2 and not re.sub(r"computed in float32 .*", "", out).strip()
        one_line(err, says, (tmp_path / "run", tmp_path / "masks"))


def test_a_loss_that_is_not_finite(fails, tmp_path, config_file):
    err = fails(
        train.main,
        *("--config", config_file, "--optim.learning-rate", "1e30"),
        says=r"not-finite: the loss is (nan|inf) at step \d of epoch 1, with learning rate 1e\+30; .*no checkpoint",
    )
    assert "--optim.learning-rate" in err and "prompts.safetensors" not in [
        p.name for p in (tmp_path / "run").iterdir()
    ]


def test_a_validation_loss_that_is_not_finite(fails, tmp_path):
    """One step an epoch: the loss of the step is still finite, and what it leaves is not worth a checkpoint."""
    data = Data(name="scenes/photo", scenes=Scenes(train=4, val=5, test=6))
    config = small.config(tmp_path / "run", data=data, optim=Optim(learning_rate=1e30))
    path = small.write_config(tmp_path / "config.py", config)
    says = (
        r"not-finite: the validation loss is (nan|inf) at step 1 of epoch 1, with learning rate 1e\+30; .*no checkpoint"
    )
    fails(train.main, "--config", path, says=says)
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_the_last_good_checkpoint_is_kept(fails, tmp_path, config_file, monkeypatch):
    steps, train_step = [], loop.step.train_step

    def spoilt(*arguments, **settings):
        state, sums = train_step(*arguments, **settings)
        steps.append(None)
        return state, sums._replace(loss=sums.loss * np.nan) if len(steps) == 5 else sums

    with monkeypatch.context() as patch:
        patch.setattr(loop.step, "train_step", spoilt)
        says = "not-finite: the loss is nan at step 2 of epoch 2, with learning rate 0.01; .*step 3 is kept"
        fails(train.main, "--config", config_file, says=says)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["3"]
    small.check_that_it_continues(tmp_path / "run")


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of sixteen megabytes."""
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], capture_output=True)
    if mount.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path, left: int) -> None:
    """Writes to a file system until so many bytes are left."""
    with (folder / "filling").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    with (folder / "filling").open("r+b") as file:
        file.truncate((folder / "filling").stat().st_size - left)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of TensorStore, met unprepared
@pytest.mark.parametrize(("left", "foreseen"), [(0, True), (16384, True), (16384, False)])
def test_a_full_disk_while_saving(fails, tmp_path, monkeypatch, left, foreseen):
    """Orbax finds the disk full before it starts or, as under a quota, in the middle."""
    with small_disk(tmp_path / "disk") as disk:
        save = Checkpoints.save

        def late(self, steps, tree):
            if steps == 6:
                fill(disk, left)
            save(self, steps, tree)

        config = small.write_config(tmp_path / "config.py", small.config(disk / "run"))
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "save", late)
            if not foreseen:
                patch.setattr(checkpoint, "_check_room", lambda folder, size: None)
            fails(
                train.main,
                "--config",
                config,
                says="unwritable: checkpoint.*step 3 is kept",
            )
        (disk / "filling").unlink()
        small.check_that_it_continues(disk / "run")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # as above
def test_a_quota_while_saving(fails, tmp_path, config_file, monkeypatch):
    """As above where no disk can be mounted: no file may grow."""
    save, (soft, hard) = Checkpoints.save, resource.getrlimit(resource.RLIMIT_FSIZE)

    def late(self, steps, tree):
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 if steps == 6 else soft, hard))
        try:
            save(self, steps, tree)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", late)
        says = "unwritable: checkpoint.*step 3 is kept"
        fails(train.main, "--config", config_file, says=says)
    small.check_that_it_continues(tmp_path / "run")


def test_a_full_disk_in_the_end(fails, tmp_path, monkeypatch):
    with small_disk(tmp_path / "disk") as disk:
        save = trainer._save

        def late(*arguments):
            fill(disk, 0)
            save(*arguments)

        config = small.write_config(tmp_path / "config.py", small.config(disk / "run"))
        with monkeypatch.context() as patch:
            patch.setattr(trainer, "_save", late)
            fails(train.main, "--config", config, says="unwritable: prompts.safetensors: .*[Nn]o space left")
        assert not {"prompts.safetensors", "card.json", "results.json"} & {p.name for p in (disk / "run").iterdir()}
        (disk / "filling").unlink()
        small.check_that_it_continues(disk / "run")


@pytest.mark.parametrize("owner", [RunFolder, TensorBoardWriter])
def test_a_log_that_can_not_be_written(fails, tmp_path, config_file, monkeypatch, owner):
    folder, name = tmp_path / "run", "add_metrics" if owner is RunFolder else "add"
    add, full = getattr(owner, name), Path("/dev/full").open("wb")  # noqa: SIM115

    def late(self, epoch):
        if epoch.number == [2] and owner is RunFolder:
            (folder / "metrics.jsonl").rename(folder / "kept")
            (folder / "metrics.jsonl").symlink_to("/dev/full")
        elif epoch.number == [2]:
            self.writer.close()
            self.writer._py_recordio_writer._writer = full
        add(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, late)
        says = "unwritable: (metrics.jsonl|tensorboard): No space left on device"
        fails(train.main, "--config", config_file, says=says)
    with contextlib.suppress(OSError):
        full.close()
    if owner is RunFolder:
        (folder / "kept").replace(folder / "metrics.jsonl")
    small.check_that_it_continues(folder)
