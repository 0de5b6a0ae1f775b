"""Tests of `share`: what a shared folder holds, and that a run on the hub predicts as here, on another machine."""

import json
import pickle
import shutil
from pathlib import Path

import local_hub
import mistakes
import numpy as np
import pytest
import small
import yaml

from tunevlseg_jax import evaluate, share
from tunevlseg_jax.config import Config
from tunevlseg_jax.data import registry
from tunevlseg_jax.data.scene_domains import SIZE
from tunevlseg_jax.data.settings import Data, Scenes
from tunevlseg_jax.pretrained.load import EMBEDDED
from tunevlseg_jax.reporting import evaluations
from tunevlseg_jax.reporting.statistics import intervals
from tunevlseg_jax.run import load_run
from tunevlseg_jax.runs.card import CARD_FILE, LEARNT_FILE
from tunevlseg_jax.runs.locate import find_run
from tunevlseg_jax.runtime import hub
from tunevlseg_jax.runtime.files import read_object, write_json
from tunevlseg_jax.sharing import page
from tunevlseg_jax.sharing.public_card import check_private, public_card

quick_compilation = small.quick_compilation

RUN = small.ROOT / "tests" / "fixtures" / "v0.1.0" / "runs" / "vpt"
NAME = "tester/vpt"
THEIRS = ("-W", "ignore:Use 'content=:DeprecationWarning")
"""A warning of huggingface_hub's own upload."""
OTHER_MACHINE = """
import sys
import numpy as np
from tunevlseg_jax.run import load_run

run = load_run(sys.argv[1])
assert run.computed.kernels.name == "float32" and str(run) == f"<Run: VPT in {sys.argv[1]}>"
np.save(sys.argv[3], run.probabilities(list(np.load(sys.argv[2])), "seven"))
"""
FINDS = """
import sys
from tunevlseg_jax.runs.locate import find_run
from tunevlseg_jax.runtime.errors import UserError

for name in sys.argv[1:]:
    try:
        find_run(name)
    except UserError as error:
        print(error.line)
"""
SHARES = """
import sys
from pathlib import Path
from tunevlseg_jax.runs.locate import find_run
from tunevlseg_jax.runtime import hub
from tunevlseg_jax.runtime.errors import UserError

try:
    hub.upload(Path(sys.argv[1]), "tester/vpt", "a run", private=True)
except UserError as error:
    print(error.line)
"""


def machine(folder: Path, endpoint: str, token: str | None = local_hub.TOKEN, **environment: str) -> dict[str, str]:
    """The environment of a machine without caches that talks to this hub."""
    settings = {"HF_HOME": str(folder / "hf"), "TUNEVLSEG_CACHE": str(folder / "cache"), "HF_ENDPOINT": endpoint}
    settings |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return settings | ({} if token is None else {"HF_TOKEN": token}) | environment


def finish(*arguments: object, **environment: str) -> str:
    """The output of a process that ends without an error."""
    status, out, err = small.finish(small.start(*arguments, **environment))
    assert (status, err) == (0, ""), err
    return out


@pytest.mark.slow
def test_a_run_on_the_hub_predicts_as_here_bit_for_bit(tmp_path):
    """Shared by the command, loaded in a fresh process without caches; what could be executed isn't downloaded."""
    images = registry.load(
        Data(name="scenes/xray", scenes=Scenes(train=1, val=1, test=2)), "test", (SIZE, SIZE)
    ).images[:2]
    np.save(tmp_path / "images.npy", images)
    output = tmp_path / "shared"
    with local_hub.running() as there:
        here = machine(tmp_path / "here", there.address)
        options = ("--run", RUN, "--to", NAME, "--output", output, "--examples", 1, "--license", "apache-2.0")
        printed = finish(*THEIRS, "-m", "tunevlseg_jax.share", *options, "--upload", **here)
        assert f"uploaded: {there.address}/{NAME}/commit/" in printed
        files = there.repositories[NAME].files
        assert files == {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*.*")}
        assert {"README.md", CARD_FILE, LEARNT_FILE, "scores.json", "examples/1.png"} == files.keys()
        assert there.repositories[NAME].private
        files |= {"run.py": b"raise SystemExit", "prompts.pkl": pickle.dumps(print)}
        code = ("-c", OTHER_MACHINE, NAME, tmp_path / "images.npy")
        finish(*code, tmp_path / "there.npy", **machine(tmp_path / "there", there.address))
        assert {LEARNT_FILE, CARD_FILE} <= {*there.downloaded}
        assert not {"run.py", "prompts.pkl"} & {*there.downloaded}
    assert finish("-c", FINDS, NAME, **machine(tmp_path / "there", there.address, HF_HUB_OFFLINE="1")) == ""
    theirs, ours = np.load(tmp_path / "there.npy"), np.stack(load_run(RUN).probabilities(list(images), "seven"))
    assert ours.dtype == theirs.dtype == np.float32 and ours.any()
    np.testing.assert_array_equal(theirs.view(np.uint32), ours.view(np.uint32))


def test_each_failure_of_the_hub_is_one_line_that_says_what_to_do(tmp_path):
    with local_hub.running() as there:
        there.repositories["tester/private"] = local_hub.Repository()
        there.gated.add("tester/gated")
        names = ("tester/nothing", "tester/gated", "tester/private")
        alone = machine(tmp_path, there.address, token=None)
        missing, gated, private = finish("-c", FINDS, *names, **alone).splitlines()
        refused = finish(*THEIRS, "-c", SHARES, RUN, **alone)
        finish("-c", FINDS, "tester/private", **machine(tmp_path, there.address))
        offline = finish("-c", FINDS, NAME, **alone, HF_HUB_OFFLINE="1")
    unreachable = finish("-c", FINDS, NAME, **alone)
    mistakes.check_line(missing, "no-such-repository: 'tester/nothing'.*check the name")
    mistakes.check_line(
        gated, "gated-repository: accept its terms at https://huggingface.co/tester/gated.*hf auth login"
    )
    mistakes.check_line(private, "no-such-repository: hf auth login.*private")
    mistakes.check_line(refused, "hub-refuses: 'tester/vpt'.*hf auth login")
    mistakes.check_line(offline, "hub-unreachable: HF_HUB_OFFLINE")
    mistakes.check_line(unreachable, "hub-unreachable: can't be reached for 'tester/vpt'")


@pytest.fixture
def private_run(tmp_path) -> Path:
    """A run whose files hold paths of a machine and names of patients."""
    run = tmp_path / "home" / "jane" / "runs" / "vpt"
    shutil.copytree(RUN, run)
    shutil.copytree(EMBEDDED / "clipseg-tiny", tmp_path / "home" / "jane" / "model")
    card = read_object(run / CARD_FILE)
    card["config"]["model"]["checkpoint"] = str(tmp_path / "home" / "jane" / "model")
    card["config"]["data"] |= {"root": "/home/jane/smith^john", "cache": "/scratch/jane"}
    card["config"]["workdir"] = str(run)
    card["command"] = "python -m tunevlseg_jax.train --data.root /home/jane/smith^john"
    card["start_from"] = {"run": "/home/jane/runs/smith", "learner": "VPT", "epochs": 1}
    write_json(run / CARD_FILE, card)
    for path in (run / "evaluations").glob("*_test_model.csv"):
        path.write_text(path.read_text("utf-8").replace("test-00000", "smith^john"), encoding="utf-8")
    return run


def test_nothing_private_is_shared(private_run, tmp_path, monkeypatch, capsys):
    """Neither a path nor a patient's name, in no file; the run's own folder stays as it is."""
    before = (private_run / CARD_FILE).read_bytes()
    output = tmp_path / "shared"
    small.run(monkeypatch, share.main, "--run", private_run, "--to", NAME, "--output", output, "--examples", 1)
    printed = capsys.readouterr().out
    assert "nothing was uploaded" in printed and "names no licence" in printed
    for path in output.rglob("*.*"):
        content = path.read_bytes()
        for word in (b"jane", b"smith", b"/home", b"/scratch", str(tmp_path).encode()):
            assert word not in content, f"{path} has {word!r}"
    card = read_object(output / CARD_FILE)
    assert card["config"]["model"]["checkpoint"] == "model" and card["config"]["workdir"] == "runs/vpt"
    assert card["start_from"] == {"learner": "VPT", "epochs": 1}
    assert (private_run / CARD_FILE).read_bytes() == before
    with mistakes.raises("no-such-model: 'model'"):
        load_run(output)
    load_run(output, checkpoint=str(EMBEDDED / "clipseg-tiny"))
    with mistakes.raises("model-changed: sha256"):
        load_run(output, checkpoint=str(small.model_folder()))


@pytest.mark.parametrize(
    "text", ["/home/jane", "~/runs", r"C:\Users\jane", r"\\server\scans", "read /mnt/scans/a.png", "--root=/data/scans"]
)
def test_a_path_anywhere_is_refused(text):
    card = {"config": {}, "protocol": {"augmentation": ["none", text]}}
    with mistakes.raises("private: card.json, protocol, augmentation"):
        public_card(card, Config(), NAME)


def test_other_texts_are_no_paths():
    check_private(
        ["https://arxiv.org/abs/1", "scenes/xray", "CC-0 / CC BY 4.0", "[one](examples/1.png)", "a/b"], "page"
    )


def test_the_page_has_metadata_and_scores_with_their_intervals(tmp_path, monkeypatch):
    output = tmp_path / "shared"
    small.run(
        monkeypatch, share.main, "--run", RUN, "--to", NAME, "--output", output, "--examples", 0, "--license", "mit"
    )
    _, metadata, text = (output / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    found = yaml.safe_load(metadata)
    (index,) = found.pop("model-index")
    assert found == {
        "library_name": "tunevlseg_jax",
        "license": "mit",
        "pipeline_tag": "image-segmentation",
        "datasets": ["scenes/xray"],
        "tags": ["prompt-tuning", "vision-language-segmentation", "vpt", "arxiv:2410.05239"],
    }
    own, other = index["results"]
    assert (own["dataset"]["name"], other["dataset"]["name"]) == ("scenes/xray", "scenes/endoscopy")
    dice = np.array([*evaluations.read_dice(RUN / "evaluations" / "scenes_xray_test_model.csv").values()])
    low, high = intervals.bca(dice)
    assert own["metrics"][0] == {"type": "dice", "name": "Dice", "value": round(dice.mean(), 4)}
    assert f"| {dice.mean():.4f} | {low:.4f} to {high:.4f} |" in text and low < dice.mean() < high
    assert not (output / "examples").exists()
    scores = json.loads((output / "scores.json").read_text(encoding="utf-8"))
    assert scores[0]["interval"] == pytest.approx([low, high]) and scores[0]["own"] and not scores[1]["own"]


def test_the_base_model_is_named_as_others_can_get_it(tmp_path):
    """An embedded one, one of the hub, and a folder by the command that makes it; a folder's place isn't shown."""
    assert page.base_model("clipseg-tiny", "clipseg-tiny").hub_id is None
    assert page.base_model("CIDAS/clipseg-rd64", "CIDAS/clipseg-rd64").hub_id == "CIDAS/clipseg-rd64"
    for origin, published in (("CIDAS/clipseg-rd64", True), ("private scans/model", False)):
        source = {"made by": "conversion.clipseg", "checkpoint": origin}
        write_json(tmp_path / "model" / "config.json", {"model": {}, "source": source})
        base = page.base_model(str(tmp_path / "model"), "model")
        assert base.hub_id == (origin if published else None) and "--checkpoint FOLDER" in base.origin
        assert (f"python -m conversion.clipseg --checkpoint {origin} " in base.origin) == published
        assert str(tmp_path) not in base.origin


def test_an_earlier_folder_is_replaced_and_no_other(tmp_path, monkeypatch, capsys):
    output = tmp_path / "shared"
    output.mkdir()
    (output / "thesis.tex").touch()
    with pytest.raises(SystemExit, match="2"):
        small.run(monkeypatch, share.main, "--run", RUN, "--to", NAME, "--output", output)
    mistakes.check_line(capsys.readouterr().err, "other-folder: neither empty nor tester/vpt")
    assert [path.name for path in output.iterdir()] == ["thesis.tex"]
    write_json(output / CARD_FILE, {"shared_as": NAME})
    small.run(monkeypatch, share.main, "--run", RUN, "--to", NAME, "--output", output, "--examples", 0)
    assert not (output / "thesis.tex").exists() and (output / LEARNT_FILE).exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--to", "vpt"), "invalid-name: --to.*owner/name.*'vpt'"),
        (("--to", NAME, "--examples", -1), "out-of-range: --examples.*-1"),
    ],
)
def test_mistakes(options, says, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        small.run(monkeypatch, share.main, "--run", RUN, *options)
    mistakes.check_line(capsys.readouterr().err, says)


def test_a_folder_comes_before_the_hub(tmp_path, monkeypatch):
    """A name below an existing folder is never looked for on the hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "download", lambda name: Path("downloaded"))
    assert find_run("owner/name") == Path("downloaded")
    Path("owner").mkdir()
    assert find_run("owner/name") == Path("owner/name")
    Path("owner/name").mkdir()
    assert find_run("owner/name") == Path("owner/name")


def test_scores_of_a_run_on_the_hub_are_written_here(tmp_path, monkeypatch):
    """And the hub's cache stays as it is: calibration, which writes into the run's folder, is refused."""
    monkeypatch.chdir(tmp_path)
    cached = tmp_path / "cached"
    shutil.copytree(RUN, cached, ignore=shutil.ignore_patterns("evaluations"))
    card = read_object(cached / CARD_FILE)
    card["config"]["data"]["scenes"] |= {"train": 1, "val": 1, "test": 2}
    write_json(cached / CARD_FILE, card)
    monkeypatch.setattr(hub, "download", lambda name: cached)
    before = sorted(cached.rglob("*"))
    small.run(monkeypatch, evaluate.main, "--run", NAME)
    (written,) = Path("evaluations/tester_vpt").glob("*.json")
    assert read_object(written)["run"] == NAME and sorted(cached.rglob("*")) == before
    with mistakes.raises("on-hub: calibration.*tester/vpt"):
        load_run(NAME).calibrate()
