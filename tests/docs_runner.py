"""Runs the commands of a page one after the other, with small substitutes for models and data.

The substitutes are models of the public formats with five narrow blocks and random weights, under the names in the
pages and for the embedded CLIPSeg; tiny downloads from `fake_downloads.py`, with medvlsm annotations; and noise for
photographs. Runs have one epoch of two small batches and at most the model's depth. Studies have two trials, and number
1 replaces number 7 of the pages. Benchmarks have one repetition, of two learners. Reports use no image.
"""

import contextlib
import dataclasses
import importlib
import importlib.util
import io
import json
import shutil
import time
from functools import cache, singledispatch
from pathlib import Path
from typing import Any

import cv2
import dicoms
import fake_downloads
import numpy as np
import pages
import phantoms
import pytest
import small
import small_cris
import small_sam3
import test_builders
import torch
from fake_downloads import blob, photo, save
from pages import Command

from conversion.cris_tensors import cris_rules
from conversion.tiny import __main__
from tunevlseg_jax import benchmark, cli, evaluate, sweep
from tunevlseg_jax import report as report
from tunevlseg_jax.benchmarks import experiments, loading, programs
from tunevlseg_jax.config import Config
from tunevlseg_jax.data.settings import Scenes
from tunevlseg_jax.learners import VPT, CoOp
from tunevlseg_jax.learners.base import DeepLearner
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.models.cris import CRISConfig
from tunevlseg_jax.pretrained import clipseg_folder, rules, sam3_folder
from tunevlseg_jax.pretrained.load import load_pretrained, save_pretrained
from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.reporting.output import write

BLOCKS = 5
"""The number of blocks of the embedded model, which the pages mention."""

BEFORE = {
    "docs/configuration.md": ("python -m tunevlseg_jax.train --config configs/clipseg_finetune.py",),
    "docs/evaluate.md": ("python -m tunevlseg_jax.train --config configs/quickstart.py",),
    "docs/report.md": ("python -m tunevlseg_jax.train --config configs/quickstart.py",),
    "docs/differences.md": (
        "python -m tunevlseg_jax.prepare kvasir --source kvasir-seg.zip",
        "python -m tunevlseg_jax.train --config configs/clipseg_vpt.py --data.name kvasir --workdir runs/kvasir_vpt",
        "python -m conversion.tunevlseg --checkpoint runs/kvasir_vpt --export --output epoch_012.ckpt",
    ),
    "docs/from_other_tools.md": ("python -c \"import pages; exec(pages.python('docs/from_other_tools.md')[0])\"",),
    "docs/sweeps.md": (
        "python -m tunevlseg_jax.prepare kvasir --source kvasir-seg.zip",
        "python -m tunevlseg_jax.prepare busi --source Dataset_BUSI_with_GT.zip",
    ),
}
"""Commands that run before those of a page, because the page uses their output."""

OTHERS = {
    "python -m venv .venv": "a command of Python",
    ". .venv/bin/activate": "a command of the shell",
    "git clone https://github.com/naamiinepal/medvlsm": "a command of git; the test writes annotations instead",
    "hf auth login": "a command of huggingface_hub",
    "python -m sphinx -W --keep-going -c docs . build/site": "a command of another project, in tests/test_site.py",
    "python -m sphinx -b linkcheck -D nb_execution_mode=off -c docs . build/links": "needs a network",
    "pre-commit install": "a command of another project, from its manual",
    "pytest": "runs this test, in .ci/run",
    "optuna-dashboard runs/studies/kvasir_coop/journal.log": "a command of another project, not among the extras",
}
"""Commands of other projects, which aren't parsed, and their origin."""

SEVERAL = "needs other hosts; tests/runtime/test_multihost.py starts several processes"
OTHER_COMMANDS = "needs other hosts; tests/runtime/test_multihost_commands.py starts several processes"
TOPOLOGY = "compiles for minutes; tests/benchmarks/test_benchmark.py plans one slice"
DEMO = "serves until it is interrupted; tests/demonstration/ starts it"
HUB = "needs the hub; tests/sharing/ has one on this machine"
TRAIN = "python -m tunevlseg_jax.train --config configs/clipseg_vpt.py"
BENCHMARK = "python -m tunevlseg_jax.benchmark --config configs/clipseg_vpt.py --sizes clipseg-rd64"
ELSEWHERE = {
    f"{TRAIN} --distributed auto": SEVERAL,
    f"{TRAIN} --processes 2 --process 0 --coordinator 10.0.0.1:8476": SEVERAL,
    f"{TRAIN} --processes 2 --process 1 --coordinator 10.0.0.1:8476": SEVERAL,
    "python -m tunevlseg_jax.evaluate --run /mnt/shared/runs/vpt --distributed auto": OTHER_COMMANDS,
    "python -m tunevlseg_jax.predict --run /mnt/shared/runs/vpt --image /mnt/shared/photos --prompt polyp "
    "--output /mnt/shared/masks --distributed auto": OTHER_COMMANDS,
    "python -m tunevlseg_jax.sweep --config configs/clipseg_vpt.py --study vpt --folder /mnt/shared/studies "
    "--distributed auto": OTHER_COMMANDS,
    f"{BENCHMARK} --train.batch-size 128 --scaling --output measured.json --distributed auto": OTHER_COMMANDS,
    "python -m tunevlseg_jax.benchmark compare plan.json "
    "measured.json": "needs a plan and a measurement of the same chips; see tests/benchmarks/test_benchmark.py",
    f"{BENCHMARK} --topology v5e:4x4 v5p:4x4x4": TOPOLOGY,
    f"{BENCHMARK} --train.batch-size 8 --topology v5e:4x4 v5p:4x4x4": TOPOLOGY,
    "python -m tunevlseg_jax.benchmark --config configs/sam3_lora.py --sizes sam3 --upsampling none "
    "--train.batch-size 1 --topology v5e:4x4 v5p:4x4x4": TOPOLOGY,
    "python -m tunevlseg_jax.sweep --config configs/clipseg_coop.py --data.name kvasir --study shared "
    "--storage postgresql+psycopg://user@host/name": "needs a server; tests/search/test_storage.py starts one",
    "python -m tunevlseg_jax.benchmark --config configs/clipseg_vpt.py --sizes clipseg-rd64 "
    "--train.batch-size 8 --learners all --topology v5e:4x4 v5e:16x16 --no-compile "
    "--output clipseg.json": "minutes; see tests/benchmarks/test_benchmark.py",
    "python -m tunevlseg_jax.benchmark --config configs/cris_coop.py --sizes cris-rn50 --train.batch-size 8 "
    "--learners all --topology v5e:4x4 v5e:16x16 --no-compile --output "
    "cris.json": "minutes; see tests/benchmarks/test_benchmark.py",
    "python -m tunevlseg_jax.benchmark --config configs/clipseg_coop.py --sizes clipseg-rd64 --learners all --output "
    "clipseg.json": "minutes; see tests/benchmarks/test_benchmark.py",
    "python -m tunevlseg_jax.benchmark --config configs/cris_coop.py --sizes cris-rn50 --learners all --output "
    "cris.json": "minutes; see tests/benchmarks/test_benchmark.py",
    "python -m tunevlseg_jax.study --config configs/study_paper.py --plan --rates "
    "clipseg.json cris.json": "minutes; see tests/benchmarks/test_benchmark.py",
    "python -m tunevlseg_jax.train --config configs/sam3_coop.py --upsampling none --workdir "
    "runs/words": "see tests/runs/test_sam3_run.py",
    "python -m tunevlseg_jax.predict --run runs/words --image photo.jpg --prompt seven --masks instances "
    "--output found": "see tests/runs/test_sam3_run.py",
    "python -m tunevlseg_jax.evaluate --run runs/words --ask-absent --masks "
    "instances": "see tests/runs/test_sam3_run.py",
    "python -m tunevlseg_jax.demo": DEMO,
    "python -m tunevlseg_jax.demo --run runs/quickstart": DEMO,
    "python -m tunevlseg_jax.demo --run runs/wounds": DEMO,
    "python -m tunevlseg_jax.demo --run runs/polyps_vpt runs/polyps_coop": DEMO,
    "python -m tunevlseg_jax.share --run runs/quickstart --to user/digits --license apache-2.0 --upload": HUB,
    "python -m tunevlseg_jax.predict --run user/digits --image photo.jpg --prompt seven": HUB,
    "python -m tunevlseg_jax.evaluate --run user/digits --data.name scenes/endoscopy": HUB,
    "python -m tunevlseg_jax.demo --run user/digits runs/mine": HUB,
    "python -m tunevlseg_jax.train --config configs/quickstart.py --train.start-from user/digits "
    "--workdir runs/more": HUB,
    "python -m tunevlseg_jax.study --config configs/study_scenes.py": "an hour; see tests/studies/test_study.py",
    "python -m tunevlseg_jax.study --config configs/study_scenes_sam3.py": "half an hour; see there too",
    "python -m tunevlseg_jax.study --config configs/study_scenes.py --shots 1,2,4,8,16,32,all": "hours; see there too",
}
"""Commands that are parsed but not run here, with the reason and the test that runs them."""

HELP = (
    *(
        ("tunevlseg_jax.train", "--config", f"configs/clipseg_{name}.py")
        for name in ("cocoop", "maple", "lora", "vlsm_adapter", "bitfit", "vpt_lora", "kgcoop", "promptsrc")
    ),
    *(("tunevlseg_jax.train", "--config", f"configs/clipseg_shared_{name}.py") for name in ("attention", "separate")),
    ("tunevlseg_jax.sweep", "--config", "configs/clipseg_vpt.py"),
    ("tunevlseg_jax.sweep", "replay"),
    ("tunevlseg_jax.benchmark", "--config", "configs/clipseg_vpt.py"),
    ("tunevlseg_jax.study",),
    *(("tunevlseg_jax.prepare", what) for what in ("kvasir", "folder", "volumes", "dicom", "check")),
    *(
        (f"tunevlseg_jax.{name}",)
        for name in ("demo", "doctor", "export", "share", "evaluate", "predict", "report", "study")
    ),
    ("tunevlseg_jax.benchmarks.loading",),
    *((f"conversion.{name}",) for name in ("clipseg", "cris", "peft", "run", "tunevlseg")),
)
"""The commands whose --help lists every option."""


def main(module: str):
    """The function that `python -m MODULE` runs."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"there is no module {module}"
    name = f"{module}.__main__" if spec.submodule_search_locations is not None else module
    return importlib.import_module(name).main


def printed(monkeypatch: pytest.MonkeyPatch, run, *arguments: str) -> str:
    """The output of a command that exits with status 0."""
    monkeypatch.chdir(small.ROOT)
    output = io.StringIO()
    with contextlib.redirect_stdout(output), pytest.raises(SystemExit, match="0"):
        small.run(monkeypatch, run, *arguments)
    return output.getvalue()


def runs(page: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Runs a page's commands in order, in an empty folder with substitutes; each must succeed."""
    shutil.copytree(provided(), folder, symlinks=True, dirs_exist_ok=True)
    for name, content in pages.written(page).items():
        (folder / name).write_text(content, encoding="utf-8")
    reduce_commands(monkeypatch)
    monkeypatch.chdir(folder)
    before = (one for line in BEFORE.get(page, ()) for one in pages.split(f"before {page}", line))
    for one in (*before, *runnable(page)):
        print(f"\n{one.where}: {one}")
        started = time.perf_counter()
        run_command(one, monkeypatch)
        print(f"({time.perf_counter() - started:.1f} s)")


def runnable(page: str) -> list[Command]:
    """The commands of a page that are run here; pip has run already."""
    return [one for one in pages.commands(page) if str(one) not in {*OTHERS, *ELSEWHERE} and one.words[0] != "pip"]


def reduce_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the commands of this process take less time."""
    parse = cli._parse
    monkeypatch.setattr(cli, "_parse", lambda *arguments: less(parse(*arguments)))
    monkeypatch.setitem(experiments.SIZES, "clipseg-rd64", lambda: clipseg().config)
    monkeypatch.setitem(experiments.SIZES, "cris-rn50", cris_sizes)
    monkeypatch.setattr(experiments, "LEARNERS", (CoOp, VPT))
    monkeypatch.setattr(programs, "CEILING_SIDE", 256)


def run_command(one: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a command, in this process unless it sets environment variables."""
    match one.words:
        case ("python", *rest) if one.environment:
            status, out, err = small.finish(small.start(*rest, **dict(one.environment)))
            print(out)
            assert status == 0, f"{one.where}: {one}\n{err}"
        case ("python", "-c", code):
            exec(compile(code, one.where, "exec", dont_inherit=True), {})
        case ("python", "-m", module, *rest):
            try:
                small.run(monkeypatch, main(module), *rest)
            except SystemExit as stop:
                raise AssertionError(f"{one.where}: {one} ended with status {stop.code}") from stop
        case _:
            raise AssertionError(f"{one.where}: no rule runs {one}")


@singledispatch
def less(options: Any) -> Any:
    """The options of a command, reduced to run quickly."""
    config = getattr(options, "config", None)
    return dataclasses.replace(options, config=less(config)) if isinstance(config, Config) else options


@less.register
def _(config: Config) -> Config:
    model, learner = config.model, config.learner
    if model.checkpoint == "clipseg-tiny":
        model = dataclasses.replace(model, checkpoint="checkpoints/clipseg-rd64")
    if isinstance(learner, DeepLearner):
        learner = dataclasses.replace(learner, depth=min(learner.depth, BLOCKS))
    data = dataclasses.replace(config.data, scenes=Scenes(train=6, val=3, test=3))
    train = dataclasses.replace(config.train, epochs=1, batch_size=4, augment=False)
    return dataclasses.replace(config, model=model, learner=learner, data=data, train=train)


@less.register
def _(options: sweep.Options) -> sweep.Options:
    return dataclasses.replace(options, trials=2, seeds=min(options.seeds, 2), config=less(options.config))


@less.register
def _(options: sweep.Replay) -> sweep.Replay:
    return dataclasses.replace(options, trial=1)


@less.register
def _(options: evaluate.Options) -> evaluate.Options:
    return dataclasses.replace(options, run=options.run.replace("trials/007", "trials/001"))


@less.register
def _(options: write.Options) -> write.Options:
    return dataclasses.replace(options, samples=0)


@less.register
def _(options: benchmark.Options) -> benchmark.Options:
    return dataclasses.replace(options, repeats=1, config=less(options.config))


@less.register
def _(options: loading.Options) -> loading.Options:
    return dataclasses.replace(options, images=32, size=48, epochs=1)


@less.register
def _(options: __main__.Options) -> __main__.Options:
    return dataclasses.replace(options, steps=1)


def clipseg() -> Pretrained:
    """A narrow CLIPSeg of the real format, with enough blocks for the configurations."""
    model = load_pretrained(str(small.model_folder()), weights=False)
    assert isinstance(model.config, CLIPSegConfig)
    text = dataclasses.replace(model.config.text, blocks=BLOCKS, context_length=77)
    vision = dataclasses.replace(model.config.vision, blocks=BLOCKS, width=48)  # not the text width
    config = dataclasses.replace(model.config, text=text, vision=vision, taps=(0, 2, 3))
    return Pretrained(config, small.random_weights(config), model.tokenizer, "")


def sam3() -> Pretrained:
    """A narrow SAM 3 with enough blocks for the configurations."""
    sizes = small_sam3.sizes()
    config = dataclasses.replace(
        sizes,
        text=dataclasses.replace(sizes.text, blocks=BLOCKS, context_length=32),
        vision=dataclasses.replace(sizes.vision, blocks=BLOCKS),
    )
    return Pretrained(config, small_cris.random_weights(config), small_cris.tokenizer(), "")


def cris_sizes() -> CRISConfig:
    """A narrow CRIS with enough blocks for the configurations."""
    sizes = small_cris.sizes()
    return dataclasses.replace(sizes, text=dataclasses.replace(sizes.text, blocks=BLOCKS, context_length=77))


def cris() -> dict[str, torch.Tensor]:
    """A CRIS in the format of the public checkpoint."""
    config = cris_sizes()
    theirs = rules.to_theirs(cris_rules(config), small_cris.random_weights(config))
    return {f"module.{name}": torch.tensor(tensor) for name, tensor in theirs.items()}


def medical(folder: Path) -> None:
    """Volumes and DICOM series with their masks."""
    for number in range(4):
        values, labels = phantoms.phantom(number)
        for place, stored in (("livers", labels), ("knees", (labels > 0).astype(np.uint8))):
            phantoms.write_nifti(folder / place / "images" / f"{number}.nii.gz", values)
            phantoms.write_nifti(folder / place / "labels" / f"{number}.nii.gz", stored)
        for place, kinds in (("Dataset003_Liver", ("imagesTr", "labelsTr")), ("FLARE22Train", ("images", "labels"))):
            phantoms.write_nifti(folder / place / kinds[0] / f"{number}_0000.nii.gz", values)
            phantoms.write_nifti(folder / place / kinds[1] / f"{number}.nii.gz", labels)
        at, stored = folder / "lungs" / f"{number}", (values.transpose(2, 1, 0) + 1024).astype(np.uint16)
        series = dicoms.write_series(at, stored)
        for file, path in zip(series, sorted(at.iterdir(), reverse=True), strict=True):
            file.PatientID = f"{number}"
            file.save_as(path, enforce_file_format=True)
        dicoms.write_seg(at / "seg", series, {"tumour": labels.transpose(2, 1, 0) > 0})
    phantoms.write_nifti(folder / "Dataset003_Liver" / "imagesTs" / "9_0000.nii.gz", phantoms.phantom(9)[0])
    (folder / "series").symlink_to(folder / "lungs" / "0")
    (folder / "scan.nii.gz").symlink_to(folder / "livers" / "images" / "0.nii.gz")


def other_tools(folder: Path, rng: np.random.Generator) -> None:
    """Data as nnU-Net, MedSAM, Hugging Face and the published code have them."""
    (folder / "npz").mkdir()
    rows, listed = [], []
    for number in range(10):
        values = blob(rng)
        labels = (values + np.roll(values, 8, axis=0) * (1 - values) * 2).astype(np.uint8)
        save(folder / "Dataset120_Cells" / "imagesTr" / f"{number}_0000.png", photo(rng))
        save(folder / "Dataset120_Cells" / "labelsTr" / f"{number}.png", labels)
        slices = np.stack([photo(rng)[..., 0], photo(rng)[..., 0]])
        np.savez(folder / "npz" / f"{number}.npz", imgs=slices, gts=np.stack([labels, labels]), spacing=(1, 1, 5))
        for place in ("polyps", "kvasir_polyp"):
            save(folder / place / "images" / f"{number}.png", photo(rng))
            save(folder / place / "masks" / f"{number}.png", values * np.uint8(255))
        rows.append({"image": f"images/{number}.png", "mask": f"masks/{number}.png", "prompt": "polyp"})
        listed.append(
            {"img_name": f"{number}.png", "mask_name": f"{number}.png", "prompts": {"p0": "", "p1": ["polyp"]}}
        )
    (folder / "polyps" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "kvasir_polyp" / "anns").mkdir()
    for split, of_split in (("train", listed[:8]), ("val", listed[8:9]), ("test", listed[9:])):
        (folder / "kvasir_polyp" / "anns" / f"{split}.json").write_text(json.dumps(of_split), encoding="utf-8")


def annotations(folder: Path) -> None:
    """A COCO export of the photographs, with two classes, as a file, a folder and an archive."""
    names = sorted(path.name for path in (folder / "photos" / "images").iterdir())
    height, width = cv2.imread(str(folder / "photos" / "images" / names[0])).shape[:2]
    corners = [[1, 1, width // 2, 1, width // 2, height // 2, 1, height // 2]]
    coco = {
        "images": [{"id": n, "file_name": name, "height": height, "width": width} for n, name in enumerate(names)],
        "categories": [{"id": 1, "name": "wound"}, {"id": 2, "name": "vein"}],
        "annotations": [
            {"id": 2 * n + kind, "image_id": n, "category_id": kind, "segmentation": corners, "iscrowd": 0}
            for n in range(len(names))
            for kind in (1, 2)
        ],
    }
    (folder / "instances.json").write_text(json.dumps(coco), encoding="utf-8")
    shutil.copytree(folder / "photos" / "images", folder / "export" / "images")
    shutil.copy(folder / "instances.json", folder / "export" / "instances.json")
    shutil.make_archive(str(folder / "export"), "zip", folder / "export")


@cache
def provided() -> Path:
    """A folder of the substitutes, once for all pages."""
    folder = small.FOLDER / "pages"
    folder.mkdir()
    provide(folder)
    return folder


def provide(folder: Path) -> None:
    """Creates the models and data that the pages name and don't create."""
    medical(folder)
    (folder / "configs").symlink_to(small.ROOT / "configs")
    model, source = clipseg(), {"made by": "tests"}
    clipseg_folder.save(folder / "CIDAS" / "clipseg-rd64", model, source)
    save_pretrained(folder / "checkpoints" / "clipseg-rd64", model, source)
    sam3_folder.save(folder / "facebook" / "sam3", sam3(), source)
    torch.save({"epoch": 1, "state_dict": cris()}, folder / "cris_best.pth")
    rng = np.random.default_rng(0)
    downloads(folder, rng)
    save(folder / "photo.jpg", photo(rng, (300, 400)))
    for name in "abcdefghij":
        save(folder / "photos" / "images" / f"{name}.jpg", photo(rng))
        save(folder / "photos" / "masks" / f"{name}.png", blob(rng) * np.uint8(255))
        save(folder / "scans" / f"{name}.png", photo(rng))
        save(folder / "scans" / f"{name}_mask.png", blob(rng))
        save(folder / "organs" / "images" / f"{name}.png", photo(rng))
        for organ in ("liver", "spleen"):
            save(folder / "organs" / "masks" / organ / f"{name}.png", blob(rng))
        patient = "patient 1" if name < "d" else f"patient {name}"
        save(folder / "hearts" / "images" / patient / f"{name}.png", photo(rng))
        save(folder / "hearts" / "masks" / patient / f"{name}.png", blob(rng))
        colours = np.zeros((24, 32, 3), np.uint8)
        colours[:8], colours[8:16] = (0x80, 0x40, 0x80), (0x00, 0x00, 0x8E)
        save(folder / "streets" / "images" / f"{name}.png", photo(rng))
        save(folder / "streets" / "masks" / f"{name}.png", colours)
        save(folder / "kidneys" / f"{name}.png", photo(rng))
        for side in ("left", "right"):
            save(folder / "kidneys" / f"{name}_{side}.png", blob(rng))
    annotations(folder)
    other_tools(folder, rng)


DOWNLOADS = {
    "kvasir": ("kvasir-seg.zip", "kvasir_polyp"),
    "clinicdb": ("CVC-ClinicDB.zip", "clinicdb_polyp"),
    "bkai": ("bkai-igh-neopolyp.zip", "bkai_polyp"),
    "isic2016": ("isic2016", "isic"),
    "dfu2022": ("DFUC2022_train_release.zip", "dfu"),
    "camus": ("CAMUS_public.zip", "camus"),
    "busi": ("Dataset_BUSI_with_GT.zip", "busi"),
    "chexlocalize": ("chexlocalize", "chexlocalize"),
    "cityscapes": ("cityscapes", ""),
    "voc2012": ("VOCtrainval_11-May-2012.tar", ""),
}
"""The name of each set's download in the pages, and of its annotations in medvlsm's data/."""


def downloads(folder: Path, rng: np.random.Generator) -> None:
    """Creates the ten sets under the pages' names, and annotations with a tenth of the images each in val and test."""
    for name, (file, annotated) in DOWNLOADS.items():
        kind = Path(file).suffix.removeprefix(".")
        source = folder / (f"unpacked {name}" if kind else file)
        source.mkdir()
        _, write = fake_downloads.COPIES[name]
        meant = write(source, rng)
        if kind:
            shutil.make_archive(str(folder / Path(file).stem), kind, source)
            shutil.rmtree(source)
        if annotated:
            test_builders.annotate(folder / "medvlsm" / "data" / annotated, rows_of(name, meant))


def rows_of(name: str, meant: fake_downloads.Meant) -> dict[str, list[tuple[str, str, dict]]]:
    """The rows of medvlsm's annotation files, by split."""
    rows: dict[str, list[tuple[str, str, dict]]] = {"train": [], "val": [], "test": []}
    for number, (image, masks) in enumerate(meant.masks.items()):
        split = ("val", "test")[number % 10 - 8] if number % 10 > 7 else "train"
        if name == "camus":  # in the old release the test patients' numbers restart at 1
            split = {"patient0007": "val", "patient0451": "test"}.get(meant.groups[image], "train")
        for record in masks:
            file = [f"{each.replace('patient0451', 'patient0001')}.png" for each in (image, record)]
            rows[split].append((file[0], file[1], {"p1": list(meant.prompts[record]), "p6": "a long description"}))
    return rows
