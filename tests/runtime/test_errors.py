"""Tests of a user's errors: docs/errors.md lists their codes, and important messages are as here, word for word."""

import ast
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pages
import pytest
import small

from tunevlseg_jax import config as configuration
from tunevlseg_jax.config import Config, Optim, Train
from tunevlseg_jax.data import registry
from tunevlseg_jax.data.builders import arrays
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.evaluation.settings import check_threshold
from tunevlseg_jax.predict import main as predict
from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.runs import run_folder
from tunevlseg_jax.runtime import files, multihost, schema
from tunevlseg_jax.runtime.errors import EverywhereError, UserError
from tunevlseg_jax.search.options import Search
from tunevlseg_jax.train import main

ERRORS = {"UserError", "EverywhereError", "ConversionError"}
KEPT = {"error.code", "code"}
"""The code of an error that is raised again, in another message or in all processes."""
IMAGE = np.zeros((4, 4), np.uint8)


def codes() -> Iterator[tuple[str, str]]:
    """Where each error of the source is raised, and its code."""
    for folder in ("tunevlseg_jax", "conversion"):
        for path in sorted((small.ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS:
                    where = f"{path.relative_to(small.ROOT)}:{node.lineno}"
                    assert len(node.args) == 2, f"{where} needs a message and a code"
                    code = node.args[1]
                    if ast.unparse(code) not in KEPT:
                        assert isinstance(code, ast.Constant) and isinstance(code.value, str), where
                        yield where, code.value


def test_the_page_lists_every_code_and_no_other():
    listed = re.findall(r"^\| `(.*?)` \| \S", pages.text("docs/errors.md"), re.MULTILINE)
    assert sorted(listed) == sorted(set(listed))
    assert set(listed) == {code for _, code in codes()}


def test_a_code_is_a_few_short_words():
    wrong = [f"{where}: {code}" for where, code in codes() if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+){0,3}", code)]
    assert not wrong


def test_an_error_is_its_message_and_has_a_code():
    error = UserError("a message\nof two lines", "a-code")
    assert (str(error), error.code, error.line) == (
        "a message\nof two lines",
        "a-code",
        "a message of two lines [a-code]",
    )
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is UserError and again.line == error.line


@pytest.mark.parametrize("number", [0, 1])
def test_all_processes_raise_the_same_code(monkeypatch, number):
    """Whichever process has the error; `process_allgather` is of two processes, the other without an error."""

    def gather(buffer: np.ndarray) -> np.ndarray:
        return np.stack([buffer if row == number else np.zeros_like(buffer) for row in range(2)])

    monkeypatch.setattr(multihost, "is_multiprocess", lambda: True)
    monkeypatch.setattr(multihost.multihost_utils, "process_allgather", gather)
    with pytest.raises(EverywhereError) as error, multihost.sync_errors():
        raise UserError("there is no ä.json", "no-such-file")
    assert error.value.line == f"{'process 1: ' * number}there is no ä.json [no-such-file]"


def test_a_command_prints_the_message_and_the_code(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        small.run(monkeypatch, main)
    needs = "error: python -m tunevlseg_jax.train needs --config FILE, such as configs/quickstart.py [missing-option]\n"
    assert stop.value.code == 2 and capsys.readouterr().err == needs


@pytest.mark.parametrize(
    ("command", "given", "says"),
    [
        (main, "--config quickstart --model.image-size 96", "--model.image-size takes None or INT INT, got '96'"),
        (main, "--config quickstart --data.shots many", "--data.shots takes None or INT, got 'many'"),
        (main, "--config quickstart --train.epochs 1.5", "--train.epochs takes INT, got '1.5'"),
        (main, "--config quickstart --train.epochs=a:b", "--train.epochs takes INT, got 'a:b'"),
        (main, "--config quickstart --optim.learning-rate x", "--optim.learning-rate takes FLOAT, got 'x'"),
        (predict, "--run r --image i --prompt p --spacing x", "--spacing can't take 'x'; --help says what it takes"),
    ],
)
def test_a_value_of_another_type_is_answered_with_what_the_option_takes(monkeypatch, capsys, command, given, says):
    with pytest.raises(SystemExit) as stop:
        small.run(monkeypatch, command, *given.split())
    assert stop.value.code == 2 and capsys.readouterr().err == f"error: {says} [invalid-option]\n"


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "status", "code"), [("--help", 1, ""), ("--nothing", 2, "[invalid-option]\n")])
def test_a_command_whose_output_nobody_reads_ends_without_a_traceback(asked, status, code):
    """As before `| head`, which has ended by then; an error's line is still printed."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-W", "error", "-m", "tunevlseg_jax.report", asked]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, cwd=small.ROOT, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr.count("\n")) == (status, bool(code)) and ended.stderr.endswith(code)


def config(**changes) -> Callable[[Path], object]:
    return lambda folder: configuration.check(replace(Config(), **changes))


def records(masks: list[np.ndarray], prompt: str = "a disc") -> Callable[[Path], object]:
    return lambda folder: arrays.records([IMAGE, IMAGE], masks, prompt, split="train")


def occupied(folder: Path) -> None:
    (folder / "thesis.tex").touch()
    run_folder.open_folder(replace(Config(), workdir="."))


MESSAGES: dict[str, Callable[[Path], object]] = {
    "train.epochs must be at least 1, got 0 [out-of-range]": config(train=Train(epochs=0)),
    "optim.learning_rate must be above 0 and finite, got nan [out-of-range]": config(
        optim=Optim(learning_rate=float("nan"))
    ),
    "train.seed must be from 0 to 2^32 - 1, got -1 [out-of-range]": config(train=Train(seed=-1)),
    "train.augmented_views needs train.augment, got False [options-conflict]": config(
        train=Train(augment=False, augmented_views=2)
    ),
    "trials must be at least 1, got 0 [out-of-range]": lambda folder: Search(trials=0).check(),
    "threshold must be above 0 and below 1, got 2 [out-of-range]": lambda folder: check_threshold(2),
    "there is no configuration quikstart; did you mean 'quickstart'? [no-such-file]": lambda folder: configuration.load(
        "quikstart"
    ),
    "card.json: workdir must be str, got 3 [wrong-type]": lambda folder: schema.from_json(
        Config, schema.to_json(Config()) | {"workdir": 3}, "card.json"
    ),
    "there is no none.json [no-such-file]": lambda folder: files.read_json(Path("none.json")),
    "got 2 images but 1 masks [counts-differ]": records([IMAGE]),
    "mask 1 has shape (4, 5), but its image has height and width (4, 4) [mask-size]": records(
        [IMAGE, np.zeros((4, 5), np.uint8)]
    ),
    "mask 0 must hold 0 and 1 or 0 and 255, got 7 [mask-not-binary]": records([IMAGE + 7, IMAGE]),
    "no data set 'scenes/foto'; did you mean 'scenes/photo'? (prepared in data: nothing; python -m "
    "tunevlseg_jax.prepare writes sets) [no-such-data-set]": lambda folder: registry.splits(Data(name="scenes/foto")),
    ". is neither empty nor a run folder; choose another --workdir [other-folder]": occupied,
    "no model at 'nowhere': it is no folder with a config.json, no hub id (owner/name), and not one of the embedded "
    "models (clipseg-tiny, cris-tiny, sam3-tiny) [no-such-model]": lambda folder: load_pretrained("nowhere"),
}


@pytest.mark.parametrize("message", MESSAGES)
def test_messages(message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        MESSAGES[message](tmp_path)
    assert error.value.line == message
