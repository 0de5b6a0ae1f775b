"""Tests of exports: files that other processes read without this package give the masks of `predict`."""

from pathlib import Path

import exported
import mistakes
import numpy as np
import pytest
import small

from tunevlseg_jax import export
from tunevlseg_jax.config import Train
from tunevlseg_jax.exporting import program, write
from tunevlseg_jax.learners import CoOp, LoRA
from tunevlseg_jax.learners.contract import ZeroShot
from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.run import load_run
from tunevlseg_jax.runs.card import load_learnt
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_json

quick_compilation = small.quick_compilation
SIZE = (small.IMAGE, small.IMAGE)
WITHOUT_US = ("tunevlseg_jax", "flax", "tokenizers")
WITHOUT_JAX = ("tunevlseg_jax", "jax", "jaxlib", "flax")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """Two runs of one model and learner; their learnt tensors, depths and temperatures differ."""
    folder = tmp_path_factory.mktemp("runs")
    checkpoint = str(small.model_folder())
    return [
        exported.make_run(folder / name, checkpoint, CoOp(depth=depth, max_depth=2), seed)
        for seed, (name, depth) in enumerate({"polyps": 2, "wounds": 1}.items())
    ]


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command; gives what it prints, or raises a UserError with its line of error."""

    def run(*arguments: object) -> str:
        try:
            small.run(monkeypatch, export.main, *arguments)
        except SystemExit as stop:
            captured = capsys.readouterr()
            if stop.code:
                raise mistakes.printed(captured.err) from None
            return captured.out
        return capsys.readouterr().out

    return run


@pytest.mark.slow
def test_stablehlo_needs_jax_and_numpy_alone(runs, command, tmp_path):
    """Its phrases are in the card, so it needs no tokenizer either."""
    output = tmp_path / "out"
    line = command("--run", runs[0], "--format", "stablehlo", "--output", output, "--prompt", *exported.PHRASES)
    assert line.startswith(f"wrote {output}: a program of ")
    pixels = exported.images(SIZE, 7)
    exported.check_masks(exported.read(output, WITHOUT_US, pixels), load_run(runs[0]), pixels)
    card = read_json(output / "card.json")
    assert (card["format"], card["runs"], card["threshold"]) == ("stablehlo", ["polyps"], 0.5)
    assert card["image"]["size"] == [*SIZE] and card["prompts"].keys() == {*exported.PHRASES}


def test_onnx_needs_no_jax(runs, tmp_path):
    pixels = exported.images(SIZE, 7)
    output = exported.onnx(tmp_path / "out", runs[0])
    exported.check_masks(exported.read(output, WITHOUT_JAX, pixels), load_run(runs[0]), pixels)


@pytest.mark.slow
def test_one_program_serves_requests_of_several_tasks(runs, tmp_path):
    pixels, order = exported.images(SIZE, 4), ("wounds", "polyps", "polyps", "wounds")
    output = exported.stablehlo(tmp_path / "both", *runs, inputs=True)
    together = exported.read(output, ("tunevlseg_jax", "flax"), pixels, order)
    for run in runs:
        rows = [number for number, task in enumerate(order) if task == run.name]
        (task,) = write.load([run])
        alone = np.asarray(program.folded(task)(pixels[rows], task.tokens([exported.asked(4)[row] for row in rows])))
        np.testing.assert_allclose(together[rows], alone, atol=1e-5)
    assert np.abs(together[0] - together[3]).max() > 1e-3


def test_a_folder_is_never_replaced(runs, command, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(UserError, match="isn't empty; choose another folder"):
        command("--run", runs[0], "--format", "onnx", "--output", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--format", "onnx", "--prompts-as-inputs"), "is for stablehlo, got onnx"),
        (("--format", "huggingface"), r"learnt learner/\w+ \(CoOp\), which a Hugging Face folder can't hold"),
    ],
)
def test_what_a_format_cannot_say_is_refused(runs, command, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        command("--run", runs[0], *options, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_runs_that_share_no_program_are_refused(runs, command, tmp_path):
    both = ("--run", *runs, "--format", "stablehlo", "--output", tmp_path / "out")
    with pytest.raises(UserError, match="several runs need --prompts-as-inputs"):
        command(*both)
    other = exported.make_run(
        tmp_path / "other", str(small.model_folder()), CoOp(depth=2, num_context=3, init_phrase=None)
    )
    with pytest.raises(UserError, match="have another learner; one program serves runs that differ"):
        command("--run", runs[0], other, *both[3:], "--prompts-as-inputs")


def test_a_trained_model_becomes_a_hugging_face_folder(command, tmp_path):
    checkpoint = str(small.model_folder())
    run = exported.make_run(tmp_path / "run", checkpoint, ZeroShot(), train=Train(tune="decoder", precision="float32"))
    assert "for transformers" in command("--run", run, "--format", "huggingface", "--output", tmp_path / "out")
    found, (_, learnt, _) = load_pretrained(str(tmp_path / "out")), load_learnt(run)
    base = load_pretrained(checkpoint)
    assert read_json(tmp_path / "out" / "config.json")["model_type"] == "clipseg"
    for path, weight in found.weights.items():
        np.testing.assert_array_equal(weight, learnt.get(f"model/{path}", base.weights[path]), err_msg=path)


def test_a_lora_names_the_command_that_merges_it(command, tmp_path):
    run = exported.make_run(tmp_path / "run", str(small.model_folder()), LoRA(depth=2))
    with pytest.raises(UserError, match=r"merge it: python -m conversion.peft --run .* --merge"):
        command("--run", run, "--format", "huggingface", "--output", tmp_path / "out")
