"""Tests of options that a command line has several times."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import mistakes
import pytest
import small
import tyro
from hypothesis import given
from hypothesis import strategies as st

from conversion import run as conversion
from tunevlseg_jax import benchmark, evaluate, predict, prepare, report, study, sweep, train
from tunevlseg_jax.runtime import repeated_options


@dataclass(frozen=True)
class Text:
    words: tuple[str, ...] = ()
    depth: int = 1


@dataclass(frozen=True)
class Image:
    size: tuple[int, int] | None = None
    augment: bool = True


@dataclass(frozen=True)
class Options:
    name: Annotated[str, tyro.conf.Positional] = ""
    source: tuple[Path, ...] | None = None
    kind: Literal["a", "b"] | tuple[int, ...] = "a"
    learner: Text | Image = field(default_factory=Text)
    learners: tuple[Text | Image, ...] = ()
    image: Annotated[Image, tyro.conf.arg(name="")] = field(default_factory=Image)


def test_lists_are_joined_where_they_are_first():
    joined = repeated_options.join(
        ["set", "--source", "a", "--kind=1", "--source", "b", "c", "--kind", "2", "--source=d"], Options
    )
    assert joined == ["set", "--source", "a", "b", "c", "d", "--kind", "1", "2"]
    joined = repeated_options.join(["--learner.words", "a", "--size", "1", "2", "--learner.words", "b"], Options)
    assert joined == ["--learner.words", "a", "b", "--size", "1", "2"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--learner.depth 1 --learner.depth=2", "--learner.depth is given twice, as .*depth 1 and --learner.depth=2"),
        ("--size 1 2 --kind a --size 3 4", "--size is given twice, as --size 1 2 and --size 3 4; give it once"),
        ("--augment --no-augment", "--augment is given twice, as --augment and --no-augment"),
        ("--learner.no-augment --learner.augment", "--learner.no-augment is given twice"),
        ("--learners.0.depth 1 --learners.1.depth 2 --learners.0.depth=3", "--learners.0.depth is given twice"),
        ("--learner.augment --learner.augment", "--learner.augment is given twice"),
    ],
)
def test_other_options_are_refused(arguments, says):
    with mistakes.raises(f"repeated-option: {says}"):
        repeated_options.join(arguments.split(), Options)


@given(
    st.lists(st.sampled_from(["a", "--size", "--source", "--other", "-1", "--name=--size", "-h", "--"]), unique=True)
)
def test_options_given_once_stay_as_they_are(arguments):
    assert repeated_options.join(arguments, Options) == arguments


def test_unknown_options_are_left_to_the_parser():
    arguments = ["--soruce", "a", "--soruce", "b"]
    assert repeated_options.join(arguments, Options) == arguments


@pytest.mark.parametrize(
    ("main", "arguments", "option"),
    [
        (train.main, "--config quickstart --train.epochs 1 --train.epochs 2", "--train.epochs"),
        (train.main, "--config quickstart --config clipseg_vpt", "--config"),
        (train.main, "--config quickstart --learner.depth 1 --learner.depth 1", "--learner.depth"),
        (sweep.main, "--config quickstart --study s --study t", "--study"),
        (sweep.main, "replay --trial 1 --trial 2", "--trial"),
        (benchmark.main, "--config quickstart --topology a --topology b --output c --output d", "--output"),
        (evaluate.main, "--run a --run b", "--run"),
        (predict.main, "--run a --image a --prompt b --run c", "--run"),
        (report.main, "--runs a --runs b", "--runs"),
        (study.main, "--config a --config b", "--config"),
        (prepare.main, "kvasir --source a --seed 1 --seed 2", "--seed"),
        (prepare.main, "folder --name a --name b --source c --prompt d", "--name"),
        (prepare.main, "folder --name a --source c --prompt d --fractions 1 0 0 --fractions 0 0 1", "--fractions"),
        (prepare.main, "check a --root b --root c", "--root"),
        (conversion.main, "--run a --run b", "--run"),
    ],
)
def test_every_command_refuses_a_second_value(monkeypatch, capsys, main, arguments, option):
    with pytest.raises(SystemExit) as stop:
        small.run(monkeypatch, main, *arguments.split())
    assert stop.value.code == 2
    mistakes.check_line(capsys.readouterr().err, f"repeated-option: {option} is given twice")
