"""Tests of what earlier versions wrote: it loads, scores, predicts, goes on and is reported as it was then.

`fixtures/v0.1.0/README.md` has the commands that made it.
"""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import chex
import cv2
import mistakes
import pytest
import small
from numpy.testing import assert_allclose
from safetensors.numpy import load_file

from conversion import run as conversion
from tunevlseg_jax import evaluate, predict, prepare, report, study, sweep, train

quick_compilation = small.quick_compilation

FIXTURES = Path(__file__).parent / "fixtures" / "v0.1.0"
CONFIGS = small.ROOT / "configs"
ROUNDING = 1e-4
"""How far scores may be apart: other processors round in another order."""
TRAINED = 1e-2
"""How far scores may be apart after another epoch of training, whose steps enlarge those differences."""
PIXELS = 0.002
"""The share of a mask's pixels that may differ for the same reason."""
CLOCK = ("seconds", "images_per_second")

SCENES = ["--data.name", "scenes/xray", "--data.scenes.train", 16, "--data.scenes.val", 8, "--data.scenes.test", 8]
FEW = ["--train.batch-size", 4, "--train.epochs", 2, "--train.no-augment", "--optim.learning-rate", 1e-2]
CONTEXT = ["--learner.depth", 2, "--learner.max-depth", 2, "--learner.num-context", 2]
WORDS = ["--learner.depth", 2, "--learner.max-depth", 2, "--learner.num-context", 4]
WORDS += ["--learner.words=a photo of a"]  # the option's name in version 0.1.0
COOP = ["--config", CONFIGS / "clipseg_coop.py", "--model.checkpoint"]
SEARCH = [*SCENES, *FEW[4:], "--learner.num-context", 4, "--train.epochs", 1, "--train.batch-size", 16, "--parallel", 2]
SEARCH += ["--space", "depth=1..3", "learning_rate=1e-3..1e-1"]


@pytest.fixture(autouse=True)
def earlier(tmp_path, monkeypatch) -> None:
    """A copy of all that an earlier version wrote, in which commands are given."""
    shutil.copytree(FIXTURES, tmp_path / "earlier")
    monkeypatch.chdir(tmp_path / "earlier")


def assert_same(now: Any, before: Any, where: str = "", rounding: float = ROUNDING) -> None:
    """What a file said is there: numbers up to rounding, the rest as it was; there may be more."""
    if isinstance(before, dict):
        assert before.keys() <= now.keys(), where
        for name in before:
            assert_same(now[name], before[name], f"{where} {name}", rounding)
    elif isinstance(before, list):
        assert len(now) == len(before), where
        for number, item in enumerate(before):
            assert_same(now[number], item, f"{where} {number}", rounding)
    elif isinstance(before, float):
        assert now == pytest.approx(before, rel=0, abs=rounding), where
    else:
        assert now == before, where


def read(path: Path) -> Any:
    """A JSON, lines of JSON, or a CSV, whose numbers become floats."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return json.loads(text)
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    rows = csv.DictReader(text.splitlines(), strict=True)
    return [{name: number(cell) for name, cell in row.items()} for row in rows]


def number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_evaluates(monkeypatch, run: str, *options: object) -> None:
    """`evaluate` writes what it wrote then."""
    small.run(monkeypatch, evaluate.main, "--run", f"runs/{run}", *options, "--output", "again")
    written = sorted(Path("again").iterdir())
    assert len(written) == 3
    for path in written:
        now, before = read(path), read(FIXTURES / "runs" / run / "evaluations" / path.name)
        assert before
        if "endoscopy" in path.name and isinstance(now, dict):  # a pixel of these scenes depends on the processor
            assert now.pop("data_sha256") and before.pop("data_sha256")
        assert_same(now, before, path.name)


@pytest.mark.parametrize(
    ("run", "options"),
    [
        ("vpt", ()),
        pytest.param("vpt", ("--data.name", "scenes/endoscopy"), marks=pytest.mark.slow),
        ("vpt", ("--data.name", "sevens", "--resolution", "original")),
        ("coop", ()),  # its card has a model.prompt_offset, of 1
        pytest.param("cocoop", (), marks=pytest.mark.slow),  # of 0
        ("decoder", ()),  # on a converted model
        ("shared", ("--ask-absent",)),  # on a converted run, in float16
        pytest.param("studies/coop/trials/001", (), marks=pytest.mark.slow),
    ],
)
def test_a_run_has_the_same_scores(run, options, monkeypatch):
    assert_evaluates(monkeypatch, run, *options)


@pytest.mark.parametrize("run", ["vpt", "coop"])
def test_a_run_predicts_the_same_mask(run, monkeypatch):
    asked = "--image", "image.png", "--prompt", "seven", "--output", "again"
    small.run(monkeypatch, predict.main, "--run", f"runs/{run}", *asked)
    now, before = (
        cv2.imread(str(folder / "image_mask.png"), cv2.IMREAD_UNCHANGED)
        for folder in (Path("again"), FIXTURES / "expected" / run)
    )
    assert now is not None and before is not None and now.shape == before.shape and now.dtype == before.dtype
    assert 0.02 < (before > 0).mean() < 0.5  # it isn't empty
    assert (now != before).mean() <= PIXELS


@pytest.mark.slow
def test_an_interrupted_run_goes_on(monkeypatch, capsys):
    first = Path("stopped/metrics.jsonl").read_text(encoding="utf-8")
    asked = [*SCENES, *FEW, *CONTEXT, "--workdir", "stopped"]
    small.run(monkeypatch, train.main, "--config", CONFIGS / "quickstart.py", *asked)
    assert "going on after epoch 1" in capsys.readouterr().out
    assert Path("stopped/metrics.jsonl").read_text(encoding="utf-8").startswith(first)  # the clock's numbers as well
    now, before = Path("stopped"), FIXTURES / "runs" / "vpt"
    assert_same(read(now / "results.json"), read(before / "results.json"), rounding=TRAINED)
    untimed = [{name: row[name] for name in row if name not in CLOCK} for row in read(before / "metrics.jsonl")]
    assert_same(read(now / "metrics.jsonl"), untimed, rounding=TRAINED)
    for name in ("best_epoch", "data", "model_sha256", "protocol"):
        assert_same(read(now / "card.json")[name], read(before / "card.json")[name], name)
    learnt, expected = load_file(now / "prompts.safetensors"), load_file(before / "prompts.safetensors")
    assert learnt.keys() == expected.keys()
    for name in expected:
        assert_allclose(learnt[name], expected[name], rtol=0, atol=TRAINED, err_msg=name)


def prompt_kind(*paths: Path, number: int = 3) -> None:
    """Gives stored configurations another kind of prompts, which earlier versions ignored for `scenes`."""
    for path in paths:
        stored = path.read_text(encoding="utf-8")
        assert stored.count('"prompt_index": 1') == 1
        path.write_text(stored.replace('"prompt_index": 1', f'"prompt_index": {number}'), encoding="utf-8")


@pytest.mark.slow
def test_a_run_of_scenes_with_another_kind_of_prompts_still_scores(monkeypatch, capsys):
    run = Path("runs/vpt")
    prompt_kind(run / "config.json", run / "card.json")
    small.run(monkeypatch, evaluate.main, "--run", run, "--output", "again")
    name = "scenes_xray_test_model"
    assert_same(read(Path(f"again/{name}.csv")), read(run / "evaluations" / f"{name}.csv"))
    assert read(Path(f"again/{name}.json"))["prompt_index"] == 3
    with pytest.raises(SystemExit):  # a new choice is refused
        small.run(monkeypatch, evaluate.main, "--run", run, "--data.prompt-index", 2)
    mistakes.check_line(capsys.readouterr().err, "prompt-index: scenes/xray .*must be 1, got 2")


@pytest.mark.slow
def test_a_run_of_scenes_with_another_kind_of_prompts_goes_on(monkeypatch, capsys):
    prompt_kind(Path("stopped/config.json"))
    asked = [*SCENES, *FEW, *CONTEXT, "--data.prompt-index", 3, "--workdir", "stopped"]
    small.run(monkeypatch, train.main, "--config", CONFIGS / "quickstart.py", *asked)
    assert "going on after epoch 1" in capsys.readouterr().out
    assert_same(read(Path("stopped/results.json")), read(FIXTURES / "runs/vpt/results.json"), rounding=TRAINED)


@pytest.mark.parametrize("number", [2, 3])
def test_a_study_of_scenes_with_another_kind_of_prompts_goes_on(number, monkeypatch, capsys):
    """The one that an earlier version began with kind 3; a new one, with kind 2, is refused."""
    journal, trials = Path("runs/studies/coop/journal.log"), Path("runs/studies/coop/trials")
    identity = r"\"data.prompt_index\": 1"
    stored = journal.read_text(encoding="utf-8")
    assert stored.count(identity) == 1
    journal.write_text(stored.replace(identity, r"\"data.prompt_index\": 3"), encoding="utf-8")
    before = contents(trials)
    study = "coop" if number == 3 else "new"
    asked = ["--study", study, "--folder", "runs/studies", "--trials", 2, "--data.prompt-index", number]
    if number == 3:
        small.run(monkeypatch, sweep.main, *COOP, "clipseg-tiny", *SEARCH, *asked)
        assert before and contents(trials) == before and asked_for(trials.parent) == 2
    else:
        with pytest.raises(SystemExit):
            small.run(monkeypatch, sweep.main, *COOP, "clipseg-tiny", *SEARCH, *asked)
        mistakes.check_line(capsys.readouterr().err, "prompt-index: scenes/xray .*must be 1, got 2")
        assert not Path("runs/studies/new").exists()


def test_what_differs_from_an_earlier_run_is_said(monkeypatch, capsys):
    """And nothing else, such as fields that have come and gone since."""
    asked = [*SCENES, *FEW[:-1], 1e-3, *CONTEXT, "--workdir", "stopped"]
    with pytest.raises(SystemExit):
        small.run(monkeypatch, train.main, "--config", CONFIGS / "quickstart.py", *asked)
    mistakes.check_line(capsys.readouterr().err, r"other-config: \(optim.learning_rate was 0.01 and is now 0.001\);")


def test_a_finished_study_asks_for_nothing_new(monkeypatch):
    folder = Path("runs/studies/coop")
    before = [contents(folder / part) for part in ("trials", "seeds")]
    asked = "--study", "coop", "--folder", "runs/studies", "--trials", 2, "--seeds", 2
    small.run(monkeypatch, sweep.main, *COOP, "clipseg-tiny", *SEARCH, *asked)
    assert all(before) and [contents(folder / part) for part in ("trials", "seeds")] == before
    assert asked_for(folder) == 2
    for name in ("trials.csv", "summary.json"):
        assert_same(read(folder / name), read(FIXTURES / folder / name), name)


def asked_for(folder: Path) -> int:
    """How many trials a journal has; optuna calls making one operation 4."""
    lines = (folder / "journal.log").read_text(encoding="utf-8").splitlines()
    return sum(json.loads(line)["op_code"] == 4 for line in lines)


@pytest.mark.slow
def test_a_study_goes_on_with_one_trial_more(monkeypatch):
    folder, expected = Path("runs/studies/coop"), FIXTURES / "expected" / "more"
    before = contents(folder / "trials")
    asked = "--study", "coop", "--folder", "runs/studies", "--trials", 3
    small.run(monkeypatch, sweep.main, *COOP, "clipseg-tiny", *SEARCH, *asked)
    now = contents(folder / "trials")
    assert {path: now[path] for path in before} == before
    assert {path.name for path in (folder / "trials").iterdir()} == {"000", "001", "002"}
    assert asked_for(folder) == 3
    assert_same(read(folder / "trials.csv"), read(expected / "trials.csv"))
    assert_same(read(folder / "summary.json"), read(expected / "summary.json"))


STUDY = """
from tunevlseg_jax.config import Config, Data, Model, Optim, Scenes, Train
from tunevlseg_jax.learners import CoOp, ZeroShot
from tunevlseg_jax.search.options import Search
from tunevlseg_jax.studies.grid import Ablation, Combination, Study

def run(learner):
    return Config(
        model=Model(checkpoint="clipseg-tiny"),
        learner=learner,
        data=Data(scenes=Scenes(train=16, val=8, test=8)),
        optim=Optim(learning_rate=1e-2),
        train=Train(epochs=1, batch_size=8, augment=False),
    )

study = Study(
    folder="study",
    data=("scenes/xray",),
    combinations=(
        Combination(config=run(ZeroShot())),
        Combination(config=run(CoOp(depth=2)), space=("depth=1..2", "words=None,a photo of a")),
    ),
    ablations=(Ablation(name="words", field="learner.words", value="a photo of a"),),
    search=Search(trials=3, parallel=3, sampler_seed=1, space=("learning_rate=1e-3..1e-1",)),
)
"""
"""The file of the study, in which two names of a field are those of version 0.1.0."""


@pytest.mark.slow
def test_a_study_of_many_searches_has_nothing_left_to_run(monkeypatch, capsys):
    """It is the same study though a field that it searches and changes has another name, and its report is the same."""
    Path("study.py").write_text(STUDY, encoding="utf-8")
    before = contents(Path("study"))
    small.run(monkeypatch, study.main, "--config", "study.py")
    assert "3 cells: zero-shot" in capsys.readouterr().out
    after = contents(Path("study"))
    reported = {path for path in before if path.parent.name == "report"}
    assert len(reported) == 5 and {path: after[path] for path in before.keys() - reported} == {
        path: content for path, content in before.items() if path not in reported
    }
    assert {path for path in after.keys() - before.keys() if path.suffix != ".lock"} == {
        path for path in after if path.parts[:2] == ("study", "report") and path not in reported
    }
    for path in reported:
        assert_same(read(path), read(FIXTURES / path), path.name)


@pytest.mark.slow
def test_an_unfinished_study_goes_on(monkeypatch):
    """A cell that is missing is run again on the trials that are there, whose parameters have the earlier names."""
    Path("study.py").write_text(STUDY, encoding="utf-8")
    cells = read(Path("study/cells.json"))
    zero_shot, search, ablation = cells
    Path("study/cells.json").write_text(json.dumps({zero_shot: cells[zero_shot]}), encoding="utf-8")
    shutil.rmtree(Path("study") / ablation)
    before = contents(Path("study") / search / "trials")
    small.run(monkeypatch, study.main, "--config", "study.py")
    trials = contents(Path("study") / search / "trials")
    assert {path: trials[path] for path in before if "evaluations" not in path.parts} == {
        path: content for path, content in before.items() if "evaluations" not in path.parts
    }
    assert asked_for(Path("study") / search) == 3
    for name in ("trials.csv", "summary.json"):
        expected = (FIXTURES / "study" / search / name).read_text(encoding="utf-8")
        Path(name).write_text(expected.replace("learner.words", "learner.init_phrase"), encoding="utf-8")
        assert_same(read(Path("study") / search / name), read(Path(name)), name)
    scores = f"{ablation}/0/results.json"
    assert_same(read(Path("study") / scores), read(FIXTURES / "study" / scores))
    assert {name: cell["runs"] for name, cell in read(Path("study/cells.json")).items()} == {
        name: cell["runs"] for name, cell in cells.items()
    }


@pytest.mark.slow
def test_a_prepared_set_trains(monkeypatch):
    asked = ["--data.name", "sevens", *FEW[:2], *FEW[4:], *WORDS, "--train.epochs", 1, "--workdir", "again"]
    small.run(monkeypatch, train.main, *COOP, "models/small", *asked)
    before = FIXTURES / "runs" / "sevens"
    assert_same(read(Path("again/results.json")), read(before / "results.json"))
    assert read(Path("again/card.json"))["data"] == read(before / "card.json")["data"]


def test_a_set_is_prepared_the_same(monkeypatch):
    asked = "--name", "sevens", "--source", "photos", "--prompt", "seven", "--fractions", 0.5, 0.25, 0.25
    small.run(monkeypatch, prepare.main, "folder", *asked, "--output", "prepared")
    assert_evaluates(monkeypatch, "sevens", "--data.root", "prepared")


def test_a_run_becomes_the_same_model(monkeypatch):
    asked = "--run", "runs/decoder", "--output", "again", "--dtype", "float16"
    small.run(monkeypatch, conversion.main, *asked)
    before = FIXTURES / "models" / "tuned"
    for name in ("config.json", "tokenizer.json"):
        assert_same(read(Path("again") / name), read(before / name), name)
    weights, expected = load_file("again/model.safetensors"), load_file(before / "model.safetensors")
    chex.assert_trees_all_equal(weights, expected, strict=True)


def test_runs_are_reported_the_same(monkeypatch):
    asked = "--runs", "runs", "--output", "again", "--samples", 0, "--words", 0, "--no-page"
    small.run(monkeypatch, report.main, *asked)
    tables = {path.name for path in (FIXTURES / "expected" / "report").glob("*.csv")}
    later = {
        "differences.csv",
        "pairs.csv",
        "pairs_over_sets.csv",
        "outline_distances.csv",
        "outline_shares.csv",
        "rank_frequencies.csv",
    }
    assert {"cells.csv", "table3_dice.csv"} < tables == {path.name for path in Path("again").glob("*.csv")} - later
    for name in sorted(tables):
        before = read(FIXTURES / "expected" / "report" / name)
        assert before
        assert_same(read(Path("again") / name), before, name)
