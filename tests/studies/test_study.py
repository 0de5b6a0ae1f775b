"""Tests of studies: what they make, that they go on after a crash, and what they refuse."""

import csv
import dataclasses
import json
import os
import signal
import time
from pathlib import Path

import mistakes
import optuna
import pytest
import small
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from rich.console import Console
from safetensors.numpy import load_file

from tunevlseg_jax import evaluate, study
from tunevlseg_jax.benchmarks import rates
from tunevlseg_jax.config import Config, Train
from tunevlseg_jax.data.settings import Data, Scenes
from tunevlseg_jax.learners import CoOp, ZeroShot
from tunevlseg_jax.reporting.output import write as report_writer
from tunevlseg_jax.runs.card import load_learnt
from tunevlseg_jax.search.options import Search
from tunevlseg_jax.search.storage import JOURNAL
from tunevlseg_jax.studies import grid, runner
from tunevlseg_jax.studies.grid import Ablation, Combination, Study

pytestmark = pytest.mark.xdist_group("study")  # they share a finished one
quick_compilation = small.quick_compilation

QUIET = Console(quiet=True)
ZERO, DECODER, COOP = "zero-shot-on-model", "fine-tuned-decoder-on-model", "coop-on-model"


def config(learner=None, **changes) -> Config:
    usual = {"upsampling": "none", "train": Train(epochs=2, batch_size=4, augment=False)}
    base = small.config(learner=learner or ZeroShot(), **(usual | changes))
    return dataclasses.replace(base, data=Data(scenes=Scenes(train=6, val=3, test=4)))


def tiny(folder: Path, **changes) -> Study:
    """The model as it is, its decoder fine-tuned, and two trials of CoOp with their ablation."""
    usual = Study(
        folder=str(folder),
        data=("scenes/photo", "scenes/xray"),
        combinations=(
            Combination(config=config()),
            Combination(config=config(train=Train(tune="decoder", epochs=1, batch_size=4, augment=False))),
            Combination(
                config=config(CoOp(num_context=2, init_phrase=None), upsampling="blend"), space=("depth=1..2",)
            ),
        ),
        ablations=(Ablation(name="no upsampler", field="upsampling", value="none"),),
        search=Search(trials=2, parallel=2),
        across=(("scenes/photo", "scenes/xray"),),
    )
    return dataclasses.replace(usual, **changes)


def write(path: Path, definition: Study) -> Path:
    """A Python file that defines `study`."""
    path.write_text(
        "from tunevlseg_jax.config import *\nfrom tunevlseg_jax.learners import *\n"
        "from tunevlseg_jax.studies.grid import *\nfrom tunevlseg_jax.search.options import *\n"
        f"study = {definition!r}\n",
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="module")
def finished_study(quick_compilation, tmp_path_factory) -> Path:
    """The folder of a study that has ended."""
    folder = tmp_path_factory.mktemp("study") / "runs"
    study.run(tiny(folder), QUIET)
    return folder


def card(folder: Path) -> dict:
    return json.loads((folder / "card.json").read_text("utf-8"))


@pytest.mark.slow
def test_every_cell_has_its_runs(finished_study):
    cells = json.loads((finished_study / "cells.json").read_text("utf-8"))
    assert list(cells) == [str(cell.folder) for cell in tiny(finished_study).cells()] and len(cells) == 8
    for kept in cells.values():
        assert len(kept["runs"]) == 1
        (run,) = (finished_study / name for name in kept["runs"])
        assert set(card(run)["scores"]["tuned"]) == {"val", "test"}
        data = card(run)["data"]["name"].replace("/", "_")
        names = {path.name for path in (run / "evaluations").glob("*.json")}
        assert names == {f"scenes_{domain}_test_model.json" for domain in ("photo", "xray")}
        evaluation = json.loads((run / "evaluations" / f"{data}_test_model.json").read_text("utf-8"))
        assert evaluation["scores"]["dice"] == pytest.approx(card(run)["scores"]["tuned"]["test"]["dice"], abs=1e-3)
        assert evaluation["data_sha256"] == card(run)["data"]["test"]


@pytest.mark.slow
def test_the_search_keeps_its_trials_and_its_best_trial_represents_the_cell(finished_study):
    for domain in ("photo", "xray"):
        search = finished_study / f"scenes-{domain}" / COOP
        rows = list(csv.DictReader((search / "trials.csv").read_text("utf-8").splitlines()))
        assert [row["state"] for row in rows] == ["complete"] * 2
        for number in range(2):  # for the figures of the report: every trial's score on the test split
            assert set(card(search / "trials" / f"{number:03d}")["scores"]["tuned"]) == {"val", "test"}
        best = max(range(2), key=lambda number: (float(rows[number]["objective"]), -number))
        kept = json.loads((finished_study / "cells.json").read_text("utf-8"))[f"scenes-{domain}/{COOP}"]
        assert kept["runs"] == [f"scenes-{domain}/{COOP}/trials/{best:03d}"]
    seeds = [
        json.loads((finished_study / f"scenes-{d}" / COOP / "summary.json").read_text()) for d in ("photo", "xray")
    ]
    assert seeds[0]["best"]["params"] != seeds[1]["best"]["params"]  # each data set's search has a separate seed


@pytest.mark.slow
def test_an_ablation_is_the_best_trial_but_for_one_field(finished_study):
    cells = json.loads((finished_study / "cells.json").read_text("utf-8"))
    (best,) = cells[f"scenes-photo/{COOP}"]["runs"]
    ((key, kept),) = ((key, kept) for key, kept in cells.items() if key.startswith(f"scenes-photo/{COOP}/abl"))
    assert kept["runs"] == [f"{key}/0"]
    ours, theirs = (load_learnt(finished_study / run)[0] for run in (kept["runs"][0], best))
    assert (ours.upsampling, theirs.upsampling) == ("none", "blend")
    assert dataclasses.replace(ours, upsampling="blend", workdir="") == dataclasses.replace(theirs, workdir="")
    assert not any(
        name.startswith("upsampler/") for name in load_file(finished_study / kept["runs"][0] / "prompts.safetensors")
    )


@pytest.mark.slow
def test_zero_shot_is_a_run_that_evaluate_takes(finished_study, monkeypatch, capsys):
    folder = finished_study / "scenes-photo" / ZERO
    assert load_file(folder / "prompts.safetensors") == {} and (folder / "metrics.jsonl").read_text() == ""
    before = (folder / "evaluations" / "scenes_photo_test_model.csv").read_text("utf-8")
    small.run(monkeypatch, evaluate.main, "--run", folder, "--output", folder / "again")
    assert f"{card(folder)['scores']['tuned']['test']['dice']:.4f}" in capsys.readouterr().out
    assert (folder / "again" / "scenes_photo_test_model.csv").read_text("utf-8") == before


TWO_DEVICES = """
import sys
import test_study as tests
from tunevlseg_jax import study
asked = tests.Combination(config=tests.config()), tests.Combination(config=tests.config(upsampling="blend"))
definition = tests.tiny(sys.argv[1], data=("scenes/photo",), combinations=asked, ablations=(), across=())
study.run(definition, tests.QUIET)
"""


@pytest.mark.slow
def test_on_two_devices_the_model_is_scored_as_it_is_and_with_an_upsampler(finished_study, tmp_path):
    script = TWO_DEVICES
    process = small.start("-c", script, tmp_path, XLA_FLAGS="--xla_force_host_platform_device_count=2")
    status, _, err = small.finish(process)
    assert (status, err) == (0, ""), err
    scores = [card(folder / "scenes-photo" / ZERO)["scores"]["tuned"] for folder in (tmp_path, finished_study)]
    for part in ("val", "test"):
        assert scores[0][part] == pytest.approx(scores[1][part], rel=1e-4)
    names = load_file(tmp_path / "scenes-photo" / "upsampler-on-model" / "prompts.safetensors")
    assert names and all(name.startswith("upsampler/") for name in names)
    rows = csv.DictReader((tmp_path / "report" / "cells.csv").read_text("utf-8").splitlines())
    assert {row["combination"] for row in rows} == {"zero-shot", "upsampler"}


@pytest.mark.slow
def test_its_report_has_every_cell(finished_study):
    rows = list(csv.DictReader((finished_study / "report" / "cells.csv").read_text("utf-8").splitlines()))
    assert len(rows) == 8 and {row["from"] for row in rows} == {"evaluations"}
    runs = {str(Path(row["runs"]).relative_to(finished_study)) for row in rows}
    cells = json.loads((finished_study / "cells.json").read_text("utf-8"))
    assert runs == {run for kept in cells.values() for run in kept["runs"]}


@pytest.mark.slow
def test_again_it_trains_nothing(finished_study, monkeypatch):
    kept = [path for path in finished_study.glob("scenes-*/**/*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in kept}
    for name in ("_zero_shot", "_fine_tuned", "_searched"):
        monkeypatch.setattr(runner._Work, name, None)
    study.run(tiny(finished_study), QUIET)
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_another_study_in_its_folder_is_refused(finished_study, monkeypatch, capsys, tmp_path):
    other = tiny(
        finished_study, search=Search(trials=3, parallel=2), data=("scenes/photo", "scenes/endoscopy"), across=()
    )
    with pytest.raises(SystemExit) as stop:
        small.run(monkeypatch, study.main, "--config", write(tmp_path / "study.py", other))
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count("\n") == 1
    mistakes.check_line(err, "other-config: search.trials was 2 and is now 3")
    assert "data.scenes/xray was scenes/xray and is now None" in err


def test_folders_may_change():
    def moved(combination: Combination) -> Combination:
        data = dataclasses.replace(combination.config.data, root="elsewhere")
        return dataclasses.replace(combination, config=dataclasses.replace(combination.config, data=data, workdir="x"))

    one, other = tiny(Path("one")), tiny(Path("other"))
    other = dataclasses.replace(other, combinations=tuple(map(moved, other.combinations)))
    assert other.identity() == one.identity()


def test_the_plan_lists_every_cell_and_missing_data(monkeypatch, capsys, tmp_path):
    shorter = Ablation(name="one epoch", field="train.epochs", value=1)
    definition = tiny(tmp_path / "runs", data=("scenes/photo", "kvasir"), across=())
    definition = dataclasses.replace(definition, ablations=(*definition.ablations, shorter))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    path = write(tmp_path / "study.py", definition)
    with pytest.raises(SystemExit) as stop:
        small.run(monkeypatch, study.main, "--config", path)
    assert stop.value.code == 2
    mistakes.check_line(capsys.readouterr().err, "no-such-data-set: 'kvasir'")
    small.run(monkeypatch, study.main, "--config", path, "--plan")
    err = " ".join(capsys.readouterr().out.split())
    assert "CoOp on model 2 x 2 x 6 24" in err and "CoOp on model 2 x 2 x 800 3,200" in err
    assert "CoOp on model, no upsampler 1 x 2 x 6 12" in err and "CoOp on model, one epoch 1 x 1 x 6 6" in err
    assert "10 cells 6,448" in err
    assert "kvasir (missing)" in err and "prepare kvasir --source" in err and not (tmp_path / "runs").exists()


def test_the_plan_counts_the_epochs_that_a_search_gives(monkeypatch, capsys, tmp_path):
    search = Search(trials=2, parallel=2, space=("epochs=1,3",))
    path = write(tmp_path / "study.py", tiny(tmp_path / "runs", data=("scenes/photo",), across=(), search=search))
    monkeypatch.setenv("COLUMNS", "100")
    small.run(monkeypatch, study.main, "--config", path, "--plan")
    out = " ".join(capsys.readouterr().out.split())
    assert "CoOp on model 2 x 3 x 6 36" in out and "CoOp on model, no upsampler 1 x 3 x 6 18" in out


def test_the_plan_estimates_hours_from_measured_rates(monkeypatch, capsys, tmp_path):
    """At the rate of a cell's model, learner and program; a question mark stands for rates that weren't measured."""
    definition = tiny(tmp_path / "runs", data=("scenes/photo",), across=())
    monkeypatch.setenv("COLUMNS", "100")
    path = write(tmp_path / "study.py", definition)

    def row(device: str, program: str, rate: float, **changes: str) -> dict[str, object]:
        usual = {"model": "model", "learner": "CoOp", "tune": "prompts", "device": device, "program": program}
        return usual | changes | {"images_per_second_per_device": rate}

    exact, cached, other = "training", "training, cached", {"model": "another"}
    one = [row("cpu", exact, 1.0), row("cpu", cached, 24 / 7200), row("cpu", cached, 1.0, **other)]
    two = [row("v5e:4x4", exact, 1e9), row("v5e:4x4", exact, 12 / 3600, learner="ZeroShot", tune="decoder")]
    for name, rows in (("one", one), ("two", two)):
        (tmp_path / name).write_text(json.dumps(rows))
    small.run(monkeypatch, study.main, "--config", path, "--plan", "--rates", tmp_path / "one", tmp_path / "two")
    out = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "cpu v5e:4x4" in out and "runs images hours hours" in out
    assert "fine-tuned decoder on model 1 x 1 x 6 6 ? 0.5" in out
    assert "CoOp on model 2 x 2 x 6 24 2 ?" in out and "CoOp on model, no upsampler 1 x 2 x 6 12 1 ?" in out
    assert "4 cells 42 3 + ? 0.5 + ?" in out


@pytest.mark.parametrize("augmented", [False, True])
def test_the_rate_of_trials_side_by_side(augmented):
    """It counts where it was measured, and where images aren't cached; it is not another number of trials'."""
    trial = config(CoOp(), train=Train(augment=augmented))
    measured = {
        ("model", "CoOp", "prompts", program): rate
        for program, rate in {"training": 1.0, "training x 4": 4.0, "training, cached": 10.0}.items()
    }
    hours = [rates.hours(measured, trial, at_once, 3600) for at_once in (1, 4, 8)]
    assert hours == ([1, 0.25, 1] if augmented else [0.1, 0.1, 0.1])
    assert rates.hours({}, trial, 1, 3600) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [("[{}]", "not-rates: rates.json.*'model'"), ("3", "not-rates: rates.json"), ("[", "not-rates: rates.json")],
)
def test_files_that_are_no_rates(monkeypatch, capsys, tmp_path, text, says):
    path = write(tmp_path / "study.py", tiny(tmp_path / "runs"))
    (tmp_path / "rates.json").write_text(text)
    with pytest.raises(SystemExit) as stop:
        small.run(monkeypatch, study.main, "--config", path, "--plan", "--rates", tmp_path / "rates.json")
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count("\n") == 1
    mistakes.check_line(err, says)


def test_rates_without_a_plan_are_refused(monkeypatch, capsys, tmp_path):
    path = write(tmp_path / "study.py", tiny(tmp_path / "runs"))
    with pytest.raises(SystemExit) as stop:
        small.run(monkeypatch, study.main, "--config", path, "--rates", tmp_path / "rates.json")
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count("\n") == 1
    mistakes.check_line(err, "options-conflict: --rates .*--plan")
    assert not (tmp_path / "runs").exists()


def test_with_shots_the_study_runs_once_for_each_number_and_reports_on_all(monkeypatch, capsys, tmp_path):
    path = write(tmp_path / "study.py", tiny(tmp_path / "runs", data=("scenes/photo",), across=()))
    done: list[object] = []
    monkeypatch.setattr(study, "run", lambda each, console: done.append(each))
    monkeypatch.setattr(report_writer, "report", lambda options, console: done.append((options.runs, options.output)))
    small.run(monkeypatch, study.main, "--config", path, "--shots", "1,8,all")
    *studies, report = done
    runs = tmp_path / "runs"
    assert [Path(each.folder) for each in studies] == [runs / f"shots-{name}" for name in ("1", "8", "all")]
    shots = [{combination.config.data.shots for combination in each.combinations} for each in studies]
    assert shots == [{1}, {8}, {None}] and report == (str(runs), str(runs / "report"))
    monkeypatch.setenv("COLUMNS", "200")
    small.run(monkeypatch, study.main, "--config", path, "--shots", "1,all", "--plan")
    out = capsys.readouterr().out
    assert "shots-1" in out and "shots-all" in out and len(done) == 4
    for wrong, says in (("0", "out-of-range: --shots .*'0'"), ("2,2", "duplicate-name: --shots .*2,2")):
        with pytest.raises(SystemExit):
            small.run(monkeypatch, study.main, "--config", path, "--shots", wrong)
        mistakes.check_line(capsys.readouterr().err, says)


@pytest.mark.parametrize(
    ("changes", "kind", "name"),
    [
        ({}, "zero-shot", "zero-shot"),
        ({"upsampling": "blend"}, "fine-tuned", "upsampler"),
        ({"train": Train(tune="decoder")}, "fine-tuned", "fine-tuned decoder"),
        ({"train": Train(tune="all"), "upsampling": "add"}, "fine-tuned", "fine-tuned model"),
        ({"learner": CoOp()}, "searched", "CoOp"),
    ],
)
def test_the_kind_and_name_of_a_combination(changes, kind, name):
    combination = Combination(config=config(**changes))
    assert (combination.kind, combination.name) == (kind, f"{name} on model")


@pytest.mark.parametrize(
    ("name", "searched", "sets", "seeds", "ablated"),
    [("study_scenes", 16, 4, 3, [1, 3]), ("study_paper", 22, 10, 1, [1, 8])],
)
def test_the_studies_that_come_with_the_project(name, searched, sets, seeds, ablated):
    definition = grid.load(str(small.ROOT / "configs" / f"{name}.py"))
    learners = [type(c.config.learner).__name__ for c in definition.combinations if c.kind == "searched"]
    assert (len(learners), len(definition.data), definition.search.seeds) == (searched, sets, seeds)
    kinds = {
        ablation.name: [c.name for c in definition.combinations if ablation.applies(c)]
        for ablation in definition.ablations
    }
    assert [len(names) for names in kinds.values()] == ablated


SHARED = {
    **{"tune": "decoder", "precision": "bfloat16", "augment": True, "augmented_views": 2, "cache_features": False},
    **{"recompute": "blocks", "shard_frozen": True, "seed": 1, "order_seed": 1, "order_skip": 1},
}
"""Fields of `train` that all runs of a study share, or that tell its repetitions apart."""


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": ()}, "empty-study"),
        ({"data": ("scenes/photo", "scenes/photo")}, "duplicate-name: scenes/photo, zero-shot on model"),
        ({"across": (("scenes/photo", "scenes/ultrasound"),)}, "no-such-data-set: across .*scenes/ultrasound"),
        *(
            ({"ablations": (Ablation(name="x", field=field, value=value, learners=learners),)}, says)
            for field, value, learners, says in (
                (
                    "learner.wrods",
                    None,
                    (),
                    "unknown-field: 'x' .*'learner.wrods' .*CoOp.*learner",
                ),
                ("data.shots", 2, (), "unknown-field: 'data.shots' .*CoOp"),
                (
                    "data.full_stop",
                    False,
                    (),
                    "unknown-field: train.epochs, train.min_delta, train.patience, upsampling",
                ),
                ("model.prompt_offset", 1, (), "unknown-field: 'model.prompt_offset'"),
                *((f"train.{name}", value, (), f"unknown-field: 'train.{name}'") for name, value in SHARED.items()),
                ("upsampling", "mix", (), "unknown-choice: 'x': upsampling .*'mix'"),
                ("learner.num_context", 2.5, (), "wrong-type: 'x': learner.num_context .*int.*2.5"),
                ("optim.learning_rate", -1.0, (), "out-of-range: 'x': optim.learning_rate .*-1.0"),
                ("learner.depth", 3, (), "learner-unfit: 'x': learner.depth .*learner.max_depth, 2, .*3"),
                ("upsampling", "none", ("VPT",), "unknown-learner: 'x'"),
            )
        ),
        ({"search": Search(trials=0)}, "out-of-range: trials .*0"),
        ({"folds": (1, 0, 1)}, "duplicate-name: a fold twice: 1, 0, 1"),
        ({"folds": (0, 1)}, "options-conflict: data.fold needs a prepared set"),
        ({"search": Search(space=("projector.kind=mlp",))}, "unknown-field: 'projector.kind'"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, changes, says):
    with pytest.raises(SystemExit) as stop:
        small.run(monkeypatch, study.main, "--config", write(tmp_path / "study.py", tiny(tmp_path / "runs", **changes)))
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count("\n") == 1, err
    mistakes.check_line(err, says)


def test_a_misspelt_field_has_its_name_suggested(tmp_path, monkeypatch, capsys):
    path = write(tmp_path / "study.py", tiny(tmp_path / "runs"))
    path.write_text(path.read_text("utf-8").replace("trials=2", "trails=2"), encoding="utf-8")
    with pytest.raises(SystemExit):
        small.run(monkeypatch, study.main, "--config", path)
    mistakes.check_line(capsys.readouterr().err, "config-fails: Search .*'trails'.*'trials'")


def trials(runs: Path) -> dict[tuple[str, int], object]:
    """When each finished trial had ended, by study and number."""
    ended = {}
    for path in runs.rglob(JOURNAL):
        storage = JournalStorage(JournalFileBackend(str(path)))
        for summary in optuna.get_all_study_summaries(storage):
            for trial in optuna.load_study(study_name=summary.study_name, storage=storage).trials:
                if trial.state.is_finished():
                    ended[summary.study_name, trial.number] = trial.datetime_complete
    return ended


def finished(runs: Path) -> dict[str, int]:
    """When the learnt tensors of the finished cells' runs were written."""
    path = runs / "cells.json"
    cells = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return {
        run: (runs / run / "prompts.safetensors").stat().st_mtime_ns for kept in cells.values() for run in kept["runs"]
    }


@pytest.mark.slow
def test_killed_and_interrupted_it_goes_on(tmp_path):
    """kill -9 within a search, Ctrl-C in the next one; it ends with its trials, and nothing is trained twice."""
    runs = tmp_path / "runs"
    coop = tiny(runs).combinations[2:]
    path = write(tmp_path / "study.py", tiny(runs, combinations=coop, search=Search(trials=4, parallel=1)))
    command = ("-m", "tunevlseg_jax.study", "--config", path)
    trained, cells = {}, {}
    for enough, kill in ((1, signal.SIGKILL), (5, signal.SIGINT)):
        process = small.start(*command)
        deadline = time.monotonic() + 300
        while len(trials(runs)) < enough:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.1)
        before = trials(runs), finished(runs)
        os.kill(process.pid, kill)
        status, _, err = small.finish(process)
        assert status == (130 if kill == signal.SIGINT else -kill)
        assert kill == signal.SIGKILL or ("this goes on" in err and err.count("\n") == 1), err
        assert trained.items() <= before[0].items() and cells.items() <= before[1].items()
        trained, cells = before
    assert len(cells) == 2
    status, _, err = small.finish(small.start(*command), 300)
    assert (status, err) == (0, ""), err
    assert trained.items() <= trials(runs).items() and cells.items() <= finished(runs).items()
    wanted = {(f"scenes-{domain}/{COOP}", number) for domain in ("photo", "xray") for number in range(4)}
    assert set(trials(runs)) == wanted
    assert len(finished(runs)) == 4 and len((runs / "report" / "cells.csv").read_text("utf-8").splitlines()) == 1 + 4
