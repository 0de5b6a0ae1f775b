"""Tests of the entry points: `tunevlseg COMMAND`, its completion, and what `doctor` finds."""

import ast
import importlib
import importlib.metadata
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import mistakes
import numpy as np
import pytest
import small
import yaml
from test_imports import COMMANDS

from tunevlseg_jax import __main__, __version__, cli, doctor
from tunevlseg_jax.diagnosis import checks, extras
from tunevlseg_jax.run import Run
from tunevlseg_jax.runtime import huge_pages

quick_compilation = small.quick_compilation

SCRIPT = "import sys\nfrom tunevlseg_jax.__main__ import main\nsys.exit(main())\n"
"""What pip writes as the script of an entry point."""
COMPLETE = """
source "$1"
COMP_WORDS=("${@:2}")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_tyro_tunevlseg
echo "${COMPREPLY[@]}"
"""


def test_the_entry_point_has_every_command():
    project = tomllib.loads((small.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = project["scripts"]["tunevlseg"].partition(":")
    assert getattr(importlib.import_module(module), function) is __main__.main
    assert {*__main__.COMMANDS} == COMMANDS - {"__main__"}


def test_a_command_sees_its_own_arguments_alone(monkeypatch):
    """As under `python -m`, so that the command lines of cards stay as they are."""
    seen = []
    monkeypatch.setattr(huge_pages, "restart_command", lambda: seen.append("restarted"))
    monkeypatch.setattr(cli, "run", lambda command: command())
    monkeypatch.setattr(__main__, "_command", lambda name: lambda: seen.append((name, sys.argv[1:])))
    monkeypatch.setattr(sys, "argv", ["tunevlseg", "train", "--config", "quickstart"])
    __main__.main()
    assert seen == ["restarted", ("train", ["--config", "quickstart"])]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("trian",), "unknown-subcommand: 'trian'; did you mean 'train'"),
        (("--completion", "fish"), "invalid-option: --completion must be bash, zsh or tcsh, got fish"),
        (("--completion",), "invalid-option: --completion .*got none"),
    ],
)
def test_mistakes(arguments, says, monkeypatch, capsys):
    monkeypatch.setattr(huge_pages, "restart_command", lambda: None)
    monkeypatch.setattr(sys, "argv", ["tunevlseg", *arguments])
    with pytest.raises(SystemExit, match="2"):
        __main__.main()
    mistakes.check_line(capsys.readouterr().err, says)


def test_the_script_restarts_with_huge_pages_and_keeps_its_arguments(tmp_path):
    (tmp_path / "tunevlseg").write_text(SCRIPT, encoding="utf-8")
    status, out, err = small.finish(small.start(tmp_path / "tunevlseg", "--version"))
    assert (status, out, err) == (0, f"tunevlseg_jax {__version__}\n", "")
    restarts = (
        "import os, sys, tunevlseg_jax.runtime.huge_pages as pages\n"
        "pages.with_huge_pages = lambda environment: {**environment, 'RESTARTED': '1'} "
        "if 'RESTARTED' not in environment else None\n"
    )
    (tmp_path / "restarts").write_text(restarts + SCRIPT, encoding="utf-8")
    status, out, err = small.finish(small.start(tmp_path / "restarts", "evaluate", "--run", "x", "--nothing"))
    assert (status, out) == (2, "") and "invalid-option" in err and "--nothing" in err


def test_bash_completes_commands_options_and_choices(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["tunevlseg", "--completion", "bash"])
    with pytest.raises(SystemExit):
        __main__._print_completion("bash")
    (tmp_path / "completion").write_text(capsys.readouterr().out, encoding="utf-8")

    def completed(*words: str) -> set[str]:
        command = ["bash", "-c", COMPLETE, "bash", tmp_path / "completion", "tunevlseg", *words]
        return {*subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()}

    assert completed("ev") == {"evaluate"}
    assert completed("evaluate", "--resol") == {"--resolution"}
    assert {"model", "original"} <= completed("evaluate", "--resolution", "")
    assert completed("train", "--conf") == {"--config"}
    assert completed("train", "--optim.learn") == {"--optim.learning-rate"}
    assert "kvasir" in completed("prepare", "kv")


@pytest.fixture
def quick(monkeypatch):
    """Without the checks that compute."""
    monkeypatch.setattr(checks, "_self_test", lambda: checks.Check("self-test", "ok", "left out"))


def test_the_embedded_model_passes_the_self_test_and_a_changed_one_fails_it(monkeypatch):
    assert checks._self_test().state == "ok"
    predict = Run.predict
    monkeypatch.setattr(Run, "predict", lambda *given: np.roll(predict(*given), 4, 0))
    changed = checks._self_test()
    assert changed.state == "failed" and "instead of 0.905" in changed.found and changed.remedy


@pytest.mark.usefixtures("quick")
def test_doctor_says_what_is_missing_and_how_to_get_it(monkeypatch, capsys):
    installed = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("uvicorn", "jax-cuda12-plugin"):
            raise importlib.metadata.PackageNotFoundError
        return installed(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    small.run(monkeypatch, doctor.main, "--json")
    found = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert found["extra demo"]["remedy"] == 'pip install "tunevlseg_jax[demo]"'
    assert found["extra demo"]["state"] == "note" and "missing uvicorn" in found["extra demo"]["found"]
    assert "jax-cuda12-plugin" in found["extra cuda"]["found"]
    assert "auto is float32" in found["precision"]["found"] and "1 cpu" in found["devices"]["found"]
    small.run(monkeypatch, doctor.main)
    assert 'tunevlseg_jax[demo]"' in capsys.readouterr().out.replace("\n", "")


@pytest.mark.usefixtures("quick")
def test_doctor_exits_with_one_if_nothing_can_compute(monkeypatch, capsys):
    def broken() -> list:
        raise RuntimeError("Unable to initialize backend 'cuda'\nmore")

    monkeypatch.setattr(checks.jax, "devices", broken)
    with pytest.raises(SystemExit, match="1"):
        small.run(monkeypatch, doctor.main, "--json")
    found = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert found["devices"]["state"] == "failed" and "Unable to initialize backend 'cuda'" in found["devices"]["found"]


def test_every_extra_has_a_purpose():
    project = tomllib.loads((small.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {*extras.PURPOSES} == {*project["optional-dependencies"]} - {*extras.DEVELOPMENT}


def test_the_containers_commands_are_the_readmes():
    """The container runs what the README's quickstart does; it isn't built here."""
    lines = (small.ROOT / "Containerfile").read_text(encoding="utf-8").splitlines()
    (command,) = [ast.literal_eval(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD ")]
    (install,) = [line for line in lines if line.startswith("RUN ")]
    readme = (small.ROOT / "README.md").read_text(encoding="utf-8")
    assert f"pip install -e . && {' '.join(command)}" in readme
    assert install == 'RUN pip install --no-cache-dir -e ".${EXTRAS}"'
    assert Path(small.ROOT, command[-1]).exists()


def test_the_citation_has_the_packages_version_and_the_papers_authors():
    found = yaml.safe_load((small.ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (found["cff-version"], found["version"], found["license"]) == ("1.2.0", __version__, "Apache-2.0")
    authors = [author["family-names"] for author in found["preferred-citation"]["authors"]]
    assert authors == ["Adhikari", "Thapaliya", "Dhakal", "Khanal"]
    for form in (small.ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        fields = yaml.safe_load(form.read_text(encoding="utf-8"))
        assert form.name == "config.yml" or {"name", "description", "body"} <= fields.keys()
