"""Tests of bad inputs to every command: each is answered with one line that says what is wrong and what to do."""

import importlib
import io
import shlex
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small
from safetensors.numpy import load_file, save
from test_mistakes import one_line

quick_compilation = small.quick_compilation

EARLIER = small.ROOT / "tests" / "fixtures" / "v0.1.0"
"""Small runs, a data set and a study to spoil."""
Content = str | bytes | Callable[[str], str] | None
"""Of a file: text, bytes, a change of what is there, or None where it is deleted."""

CONFIG = "from tunevlseg_jax.config import *\nfrom tunevlseg_jax.learners import *\n"
STUDY = (
    f"{CONFIG}from tunevlseg_jax.studies.grid import *\n"
    "study = Study(folder='s', data=('scenes/photo',), combinations=(Combination(config=Config()),))\n"
)
RECORDS = "data/sevens/1.0.0/sevens-train.array_record-00000-of-00001"
PROMPTS = "runs/coop/prompts.safetensors"
EMPTY = b"\x02\0\0\0\0\0\0\0{}"
"""A safetensors file without tensors."""
CARD, CLEAN = "runs/coop/card.json", "data/sevens/1.0.0/clean.json"


def replaced(before: str, after: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert before in text
        return text.replace(before, after)

    return change


def encrypted() -> bytes:
    """A zip file of an image and a mask, whose headers say that they are encrypted."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name in ("images/a.png", "masks/a.png"):
            file.writestr(name, b"x")
    data = bytearray(content.getvalue())
    for sign, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = -1
        while (start := data.find(sign, start + 1)) >= 0:
            data[start + offset] |= 1
    return bytes(data)


def whole_numbers() -> bytes:
    """Learnt tensors that have lost their fractions."""
    return save({name: np.array(array, np.int32) for name, array in load_file(EARLIER / PROMPTS).items()})


FOLDER = "folder --name a --source photos --output out"
RUN = "--run runs/coop"
SEVENS = "--config quickstart --data.name sevens"
SEARCH = "--config quickstart --study s"
CASES: dict[str, list[tuple[str, dict[str, Content], str]]] = {
    "train": [
        ("--config c.py", {"c.py": f"{CONFIG}import sys\nsys.exit(3)"}, "config-fails: c.py:4 SystemExit"),
        ("--config c.py", {"c.py": b"\x89PNG\0\0\xff"}, "config-fails: c.py.*null bytes"),
        ("--config c.json", {"c.json": "[" * 100_000}, "unreadable: c.json.*deep"),
        ("--config c.json", {"c.json": '{"class": "Config", "train": 7}'}, "missing-field: c.json.*lacks model"),
        ("--config runs/coop/config.json", {"runs/coop/config.json": b"\xff\xfe"}, "unreadable: config.json.*restore"),
        (f"--config quickstart --workdir w/{'x' * 300}", {}, "unwritable: File name too long"),
        ("--config quickstart --workdir ''", {}, "other-folder: neither empty.*--workdir"),
        ("--config quickstart --data.shots 0", {}, "out-of-range: data.shots .*1.*0"),
        ("--config quickstart --data.workers -1", {}, "out-of-range: data.workers .*0.*-1"),
        ("--config quickstart --train.seed 4294967296", {}, "out-of-range: train.seed .*4294967296"),
        ("--config quickstart --processes 2 --coordinator x", {}, "missing-option: --process too"),
        ("--config quickstart --model.checkpoint ''", {}, "no-such-model: clipseg-tiny"),
        (SEVENS, {"data/sevens/1.0.0/dataset_info.json": "{}"}, "unreadable: data/sevens.*; prepare it again"),
        (SEVENS, {"data/sevens/1.0.0/aliases.json": "[]"}, "wrong-json: aliases.json"),
        (SEVENS, {"data/sevens/1.0.0/aliases.json": '{"test": 5}'}, "wrong-json: aliases.json.*5.*prepare"),
        (f"{SEVENS} --data.protocol clean", {}, "no-clean-file: prepare check sevens --protocol clean"),
        (f"{SEVENS} --data.protocol clean", {CLEAN: '{"train": 5}'}, "missing-field: clean.json.*'train'.*prepare"),
        (
            f"{SEVENS} --data.protocol clean",
            {CLEAN: '{"train": [{"split": "train", "index": 999, "records": []}]}'},
            "out-of-range: clean.json.*999.*prepare check sevens",
        ),
        (
            f"{SEVENS} --data.protocol clean",
            {CLEAN: '{"train": [{"split": "train", "index": "0", "records": []}]}'},
            "missing-field: clean.json.*'train'.*prepare check sevens",
        ),
        ("--config stopped/config.json --workdir stopped", {"stopped/config.json": "[]"}, "wrong-json: config.json"),
    ],
    "evaluate": [
        ("--run image.png", {}, "run-unfinished: card.json in image.png.*no run folder"),
        (f"{RUN} --checkpoint image.png", {}, "no-such-model: 'image.png'.*clipseg-tiny"),
        (RUN, {CARD: '{"config": 5, "model_sha256": "a"}'}, "missing-field: card.json"),
        (RUN, {CARD: "[" * 100_000}, "unreadable: card.json.*deep"),
        (RUN, {CARD: replaced('"batch_size": 4', '"batch_size": 0')}, "out-of-range: train.batch_size .*0"),
        (RUN, {CARD: replaced('"depth": 2', '"depth": 2000')}, "learner-unfit: learner.depth .*2000"),
        (RUN, {CARD: replaced('"scores": {', '"scores": 5, "x": {')}, "bad-card: card.json: scores .*5"),
        (RUN, {PROMPTS: b"\xff" * 40}, "unreadable: prompts.safetensors"),
        (RUN, {PROMPTS: EMPTY}, "bad-learnt: learner/context .*missing"),
        (RUN, {PROMPTS: whole_numbers()}, "bad-learnt: learner/context must be of floats, got int32"),
        ("--run models/small", {}, "run-unfinished: models/small: it is the folder of a model; give .*run"),
        ("--run stopped", {}, "run-unfinished: stopped: .*the same train command"),
        ("--run runs", {}, "run-unfinished: in runs: .*give one in it, such as runs/cocoop"),
        ("--run runs/studies/coop", {}, "run-unfinished: .*such as runs/studies/coop/seeds/001-1"),
        (f"{RUN} --checkpoint models/small", {}, "model-changed: models/small .*runs/coop .*sha256.*--checkpoint"),
        (f"{RUN} --checkpoint runs/vpt", {}, "not-a-model: runs/vpt is a run"),
        (f"{RUN} --output image.png", {}, "not-a-folder: --output image.png is a file; .*folder"),
        (f"{RUN} --phrases p.json", {"p.json": '"x"'}, "bad-phrases: p.json must hold a JSON list of templates"),
        (f"{RUN} --phrases p.json", {"p.json": '{"zebra": ["a", "b"]}'}, "bad-phrases: no class 'zebra'.*'zero'"),
        (f"{RUN} --phrases p.json", {"p.json": b"\xff\xfe"}, "unreadable: p.json.*write it again"),
    ],
    "predict": [
        ("--run nowhere --image image.png --prompt seven --output o", {}, "run-unfinished: card.json in nowhere"),
        (f"{RUN} --image image.png --prompt seven --threshold nan --output o", {}, "out-of-range: --threshold .*nan"),
    ],
    "prepare": [
        ("folder --name a --source e.zip --prompt x", {"e.zip": b""}, "unreadable: e.zip"),
        ("folder --name a --source e.zip --prompt x", {"e.zip": encrypted()}, "unreadable: e.zip.*password"),
        ("folder --name a --source e.tar.gz --prompt x", {"e.tar.gz": b"\x1f\x8b\x08\0\0\0"}, "unreadable: e.tar.gz"),
        ("folder --name a --source e.rar --prompt x", {"e.rar": b"Rar!"}, "no-such-file: e.rar.*zip or tar"),
        (f"{FOLDER} --prompt x --fractions nan 0 0", {}, "out-of-range: --fractions .*nan"),
        (f"{FOLDER} --prompt x --threshold -1", {}, "out-of-range: --threshold .*-1"),
        (f"{FOLDER} --prompt x --threshold 300", {}, "out-of-range: mask .*255.*--threshold is 300"),
        (f"{FOLDER} --prompt x --seed -1", {}, "out-of-range: --seed .*-1"),
        (f"{FOLDER} --prompt x --images 'images/{{naem}}'", {}, "unknown-field: naem.*'name'"),
        (f"{FOLDER} --manifest m.json", {"m.json": "5"}, "wrong-json: m.json"),
        ("check ../data/sevens", {}, "no-such-data-set: 'sevens'"),
        ("check sevens", {"data/sevens/1.0.0/dataset_info.json": "{"}, "unreadable: data/sevens"),
        ("check sevens", {RECORDS: b""}, "unreadable: image 0 of train in data/sevens.*64KB.*prepare"),
        ("check sevens", {RECORDS: None}, "unreadable: image 0 of train in data/sevens.*No such file.*prepare"),
        ("check sevens", {RECORDS: bytes(99_999)}, "unreadable: image 0 of train in data/sevens.*prepare"),
        ("check sevens --findings photos", {}, "unwritable: photos: Is a directory; .*file in it"),
        (f"{FOLDER} --prompt x --images ''", {}, "missing-field: --images is empty.*{name}"),
        (f"{FOLDER} --prompt x", {"photos/images/0.png": "<html>"}, "undecodable: images/0.png.*save it again"),
        (
            "folder --name a --source photos/images --output out --prompt x",
            {},
            "no-images: 8 .png in .*give the folder that holds images and masks",
        ),
        (
            f"{FOLDER} --encoding palette --classes c.csv",
            {"c.csv": "class,value\na,1\n"},
            "unknown-class: value 255.*give it a class in --classes, or void",
        ),
        ("kvasir --source photos --seed -1", {}, "out-of-range: --seed .*-1"),
    ],
    "sweep": [
        ("--config quickstart --study ../s", {}, r"invalid-name: study .*'\.\./s'"),
        (f"{SEARCH} --scratch nan", {}, "out-of-range: scratch .*nan"),
        (f"{SEARCH} --workdir runs/mine", {}, "options-conflict: --workdir runs/mine.*--folder"),
        ("replay coop nine --folder runs/studies", {}, "invalid-option: nine"),
        ("replay coop 9 --folder runs/studies", {}, "no-such-trial: 9; there are 0, 1"),
        ("replay nowhere 0 --folder runs/studies", {}, "no-such-trial: nowhere"),
        (
            "replay coop 0 --folder runs/studies",
            {"runs/studies/coop/trials/000/card.json": "[]"},
            "bad-card: card.json",
        ),
    ],
    "study": [
        ("--config s.py", {"s.py": f"{CONFIG}config = Config()"}, "variable-missing: study = Study"),
        ("--config s.py --rates r.json", {"s.py": STUDY}, "options-conflict: --plan"),
        (
            "--config s.py --plan --rates r.json",
            {"s.py": STUDY},
            "not-rates: there is no r.json",
        ),
        (
            "--config s.py --plan --rates r.json",
            {"s.py": STUDY, "r.json": '{"a": [1]}'},
            "not-rates: r.json",
        ),
        ("--config s.py --folder image.png", {"s.py": STUDY}, "other-folder: --folder"),
    ],
    "report": [
        ("--runs nowhere", {}, "not-a-folder: nowhere"),
        ("--runs image.png", {}, "not-a-folder: image.png is a file"),
        ("--runs photos", {}, "no-runs: photos"),
    ],
    "benchmark": [
        ("--config quickstart --repeats 0", {}, "out-of-range: --repeats .*1.*0"),
        ("--config quickstart --sizes clipseg", {}, "invalid-option: 'clipseg'.*'clipseg-rd64'"),
        *(
            (f"--config quickstart --topology v5e:2x2 {option}", {}, f"options-conflict: --topology .*{name}, or")
            for name, option in {
                "--repeats": "--repeats 3",
                "--trials": "--trials 3",
                "--scaling": "--scaling",
                "--profile": "--profile o",
                "--peer": "--peer transformers",
                "--distributed": "--distributed auto",
                "--processes": "--processes 2 --process 0 --coordinator localhost:1234",
            }.items()
        ),
        ("--config quickstart --no-compile", {}, "options-conflict: --no-compile .*give --topology"),
        ("--config quickstart --topology v5e:0x2 --no-compile", {}, "unknown-topology: 'v5e:0x2'"),
        ("--config quickstart --topology v5e:4x4x4 --no-compile", {}, "unknown-topology: v5e:4x4, got 'v5e:4x4x4'"),
        ("--config quickstart --topology v5p:4x4 --no-compile", {}, "unknown-topology: v5p:4x4x4, got 'v5p:4x4'"),
        ("compare", {}, "invalid-option: PLAN .*MEASURED"),
        ("--config quickstart --output image.png/o.json", {}, "unwritable: image.png/o.json: .*choose another place"),
        ("--config quickstart --profile image.png/o", {}, "unwritable: image.png/o.*: .*choose another place"),
        ("--config quickstart --output photos", {}, "unwritable: --output photos is a folder; .*file in it"),
        ("--config quickstart --profile image.png", {}, "not-a-folder: --profile image.png is a file; .*folder"),
        ("--config quickstart --sizes sam3 --peer transformers", {}, "wrong-model: --peer .*CLIPSeg, got .*sam3"),
    ],
    "conversion.clipseg": [
        ("--checkpoint photos --output o", {}, "no-such-model: 'photos'"),
        ("--checkpoint m --output o", {"m/config.json": '{"model_type": "bert"}'}, "unknown-model-type: bert"),
        ("--checkpoint m --output o", {"m/config.json": "[]"}, "wrong-json: m/config.json .*got a list; restore"),
        ("--checkpoint m --output o", {"m/config.json": "["}, "unreadable: m/config.json.*restore it"),
        ("--checkpoint m --output o", {"m/config.json": "{}"}, "not-a-model: m/config.json .*'model_type'"),
        ("--checkpoint runs/vpt --output o", {}, "not-a-model: runs/vpt is a run.*conversion.run"),
        ("--checkpoint models/small --output photos", {}, "other-folder: --output photos .*choose another"),
        ("--checkpoint models/small --output image.png", {}, "not-a-folder: image.png is a file; .*folder"),
    ],
    "conversion.sam3": [
        ("--checkpoint photos --output o", {}, "no-such-model: 'photos'"),
        ("--checkpoint models/small --output o", {}, "wrong-model: SAM 3, got CLIPSegConfig"),
    ],
    "conversion.cris": [
        ("--checkpoint x.pth --output o", {"x.pth": b""}, "unreadable: x.pth"),
        ("--checkpoint x.pth --output o", {"x.pth": b"<!DOCTYPE html>"}, "unreadable: x.pth: .*download"),
        ("--checkpoint x.pth --output o", {"x.pth": b"PK\3\4" + bytes(50)}, "unreadable: x.pth: cut off.*download"),
        ("--checkpoint x.pth --output o", {"x.pth": b"version https://git-lfs"}, "unreadable: x.pth: .*download"),
        ("--checkpoint photos --output o", {}, "not-a-file: photos is a folder; give a file"),
        ("--checkpoint nowhere.pth --output o", {}, "no-such-file: nowhere.pth; give the file"),
    ],
    "conversion.tunevlseg": [
        ("--checkpoint x.ckpt --output o --model models/small", {"x.ckpt": b"x"}, "unreadable: x.ckpt")
    ],
    "conversion.run": [
        ("--run nowhere --output o", {}, "run-unfinished: card.json in nowhere"),
        ("--run models/small --output o", {}, "run-unfinished: models/small: it is the folder of a model"),
        ("--run runs/vpt --output o", {}, "not-convertible: runs/vpt trained no weights"),
    ],
}


def write(folder: Path, name: str, content: Content) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else content(path.read_text("utf-8")), "utf-8")


@pytest.mark.parametrize(
    ("command", "options", "files", "says"),
    [
        pytest.param(command, *case, id=f"{command} {case[0]} {list(case[1])}"[:100])
        for command, cases in CASES.items()
        for case in cases
    ],
)
def test_one_line(tmp_path, monkeypatch, capsys, command, options, files, says):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copytree(EARLIER, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    for name, content in files.items():
        write(tmp_path / "here", name, content)
    main = importlib.import_module(command if "." in command else f"tunevlseg_jax.{command}").main
    with pytest.raises(SystemExit) as stop:
        small.run(monkeypatch, main, *shlex.split(options))
    assert stop.value.code == 2
    one_line(capsys.readouterr().err, says, (tmp_path / "here" / "o", tmp_path / "here" / "out" / "a"))
