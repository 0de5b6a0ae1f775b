"""Tests of going on: more epochs for a run, and a run that begins with the prompts of another."""

import dataclasses
import json
import shutil
from pathlib import Path

import mistakes
import numpy as np
import small
from rich.console import Console
from safetensors.numpy import load_file

from tunevlseg_jax.config import Config, Optim, Train
from tunevlseg_jax.config import check as check_config
from tunevlseg_jax.data.settings import Data, Scenes
from tunevlseg_jax.learners import VPT, CoOp
from tunevlseg_jax.runs import provenance, trainer
from tunevlseg_jax.runs.run_folder import RunFolder
from tunevlseg_jax.runs.start import first_params
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.runtime.files import sha256
from tunevlseg_jax.search.options import Options

quick_compilation = small.quick_compilation


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def epochs(config: Config, number: int) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=number))


def test_a_run_that_grows_is_the_run_that_was_longer_from_the_start(tmp_path):
    config = small.config(tmp_path / "run")
    for number in (1, 2, 3):
        trainer.train(epochs(config, number), Console(quiet=True))
    for name in ("prompts.safetensors", "results.json"):
        assert (tmp_path / "run" / name).read_bytes() == (small.finished() / name).read_bytes()
    assert small.metrics(tmp_path / "run") == small.metrics(small.finished())
    card = read(tmp_path / "run" / "card.json")
    assert card["earlier_epochs"] == [1, 2] and card["epochs"] == 3
    assert card["config"] == read(tmp_path / "run" / "config.json") and card["config"]["train"]["epochs"] == 3
    assert "earlier_epochs" not in read(small.finished() / "card.json")


def test_a_run_shrinks_never_and_grows_only_while_its_schedule_is_open(tmp_path):
    shutil.copytree(small.finished(), tmp_path / "run")
    config = small.config(tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with mistakes.raises(r"other-config: train.epochs was 3 and is now 2\); a run can only grow"):
        trainer.train(epochs(config, 2), Console(quiet=True))
    other = dataclasses.replace(epochs(config, 5), optim=Optim(learning_rate=1e-3))
    with mistakes.raises(r"other-config: optim.learning_rate was 0.01 and is now 0.001, train.epochs was 3"):
        trainer.train(other, Console(quiet=True))
    assert {path: path.read_bytes() for path in before} == before
    falling = small.config(tmp_path / "falling", optim=Optim(learning_rate=1e-2, cosine=True))
    shutil.copytree(small.finished(), tmp_path / "falling")
    stored = read(tmp_path / "falling" / "config.json")
    stored["optim"]["cosine"] = True
    (tmp_path / "falling" / "config.json").write_text(json.dumps(stored), encoding="utf-8")
    with mistakes.raises(
        r"schedule-ended: train.epochs was 3 and is now 4.*cosine.*epoch 3.*--train.start-from .*fall"
    ):
        trainer.train(epochs(falling, 4), Console(quiet=True))


def test_a_run_begins_with_the_prompts_of_another(tmp_path):
    source = small.finished()
    data = Data(name="scenes/xray", scenes=Scenes(train=8, val=4, test=4))
    settings = Train(epochs=1, batch_size=4, augment=False, start_from=str(source))
    config = small.config(tmp_path / "run", data=data, train=settings)
    experiment = small.build(config)
    splits = experiment.splits(experiment.feature_cache(sharding.mesh()))
    folder = RunFolder(config, provenance.of_splits("scenes/xray", splits))
    learnt = load_file(source / "prompts.safetensors")
    params = first_params(experiment, folder)
    assert params.keys() == learnt.keys()
    for name, array in params.items():
        np.testing.assert_array_equal(array, learnt[name])
        assert name.startswith("upsampler") or (np.asarray(experiment.trainable[name]) != learnt[name]).any()
    trainer.train(config, Console(quiet=True))
    card = read(tmp_path / "run" / "card.json")
    assert card["start_from"] == {
        "run": str(source),
        "learner": "VPT",
        "data": "scenes/photo",
        "epochs": 3,
        "prompts_sha256": sha256(source / "prompts.safetensors"),
    }
    ours, theirs = (provenance.read(each) for each in (tmp_path / "run", source))
    assert ours is not None and theirs is not None and set(theirs.images or ()) < set(ours.images or ())
    assert card["scores"]["zero-shot"]["val"] != card["scores"]["tuned"]["val"]


def test_other_shapes_models_and_unfinished_runs_are_refused_by_name(tmp_path):
    source = small.finished()

    def start(folder: str = "run", start_from: Path = source, **changes):
        settings = Train(epochs=1, batch_size=4, augment=False, start_from=str(start_from))
        config = small.config(tmp_path / folder, train=settings, **changes)
        experiment = small.build(config)
        return first_params(experiment, RunFolder(config, provenance.Provenance({"train": ""})))

    with mistakes.raises(r"start-unfit: \(VPT\) has prompts for the vision tower, and this run \(CoOp\) for the text"):
        start("coop", learner=CoOp(depth=2, num_context=2, init_phrase=None))
    with mistakes.raises(r"start-unfit: \(VPT\).*learner/context is 3x2x32 there and 3x3x32 here"):
        start("wide", learner=VPT(depth=2, max_depth=small.BLOCKS, num_context=3))
    with mistakes.raises(r"start-unfit: upsampler/.* there and missing here"):
        start("none", upsampling="none")
    with mistakes.raises("run-unfinished: there is no card.json in .*nowhere"):
        start("nowhere_", start_from=tmp_path / "nowhere")
    shutil.copytree(source, tmp_path / "other")
    card = read(tmp_path / "other" / "card.json") | {"model_sha256": "0" * 64}
    (tmp_path / "other" / "card.json").write_text(json.dumps(card), encoding="utf-8")
    with mistakes.raises("model-changed: other was trained on another model than .*000000000000 there"):
        start("run", start_from=tmp_path / "other")
    own = small.config("runs/a", train=Train(start_from="runs/a/"))
    with mistakes.raises("options-conflict: own folder, runs/a"):
        check_config(own)
    with mistakes.raises("options-conflict: for train alone, got runs/b; each trial of a sweep"):
        Options(study="s", config=small.config("runs/a", train=Train(start_from="runs/b"))).check()
