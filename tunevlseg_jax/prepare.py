"""Prepares and audits data sets: `python -m tunevlseg_jax.prepare kvasir --source kvasir-seg.zip --output data`."""

import dataclasses
import inspect
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import tyro
from rich.console import Console

from tunevlseg_jax import cli
from tunevlseg_jax.data import prepared, seen_encodings, windows
from tunevlseg_jax.data.audit import clean, coverage, report
from tunevlseg_jax.data.audit import findings as audit
from tunevlseg_jax.data.audit.coverage import Survey
from tunevlseg_jax.data.audit.image_stats import ImageStats, image_stats
from tunevlseg_jax.data.builders.annotations import formats
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.catalogue import PUBLIC
from tunevlseg_jax.data.builders.seeded_splits import assign_splits
from tunevlseg_jax.data.builders.writer import Contents, build
from tunevlseg_jax.data.examples import SPLITS
from tunevlseg_jax.data.medical import dicom_sets, volume_sets
from tunevlseg_jax.data.medical.dicom_sets import Dicom
from tunevlseg_jax.data.medical.volume_sets import Volumes
from tunevlseg_jax.data.prepared import CLEAN_FILE, Prepared
from tunevlseg_jax.data.preprocessing import Preprocessing
from tunevlseg_jax.data.seen_encodings import SeenEncodings
from tunevlseg_jax.data.settings import Protocol
from tunevlseg_jax.preparation import folder_layout, folder_options, summary
from tunevlseg_jax.preparation.folder_options import Folder
from tunevlseg_jax.runtime import progress_bar
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import write_json

FAULTY = 1
"""Exit status of `check` if it finds errors."""
PROGRAM = "python -m tunevlseg_jax.prepare"
FOLDER = """Your own images and masks.

images/a.jpg and masks/a.png, one class: folder --name wounds --source DIR --prompt wound

wound_1.jpg and wound_1_mask.png: ... --images "{name}" --masks "{name}_mask"

one folder per class, masks/polyp/a.png: ... --masks "masks/{class}/{name}"

colour-coded masks: ... --encoding colour --classes classes.csv

a list of images, masks and prompts: ... --manifest list.csv

exports of COCO, LabelMe, CVAT, Label Studio, YOLO, Pascal VOC, Supervisely: recognised, without options"""
VOLUMES = """Slices of NIfTI, NRRD and MetaImage volumes.

imagesTr/a_0000.nii.gz and labelsTr/a.nii.gz: volumes --name livers --source DIR --classes classes.csv

one value in the label volumes: volumes --name livers --source DIR --prompt liver"""
DICOM = """Slices of DICOM series with the masks of SEG and RT-STRUCT files, or of label volumes.

series and mask files in any folders: dicom --name livers --source DIR --classes classes.csv"""
CHECK = f"""Audits a prepared set; exits with 1 if there are errors.

{inspect.cleandoc(audit.__doc__ or "").partition(chr(10))[2].strip()}"""


@dataclass(frozen=True)
class Public:
    """One of the paper's ten sets.

    Attributes:
      set: name of the set.
      source: the download: folders, zip or tar files; a folder's zip and tar files count as if unpacked.
      annotations: the folder data/ of github.com/naamiinepal/medvlsm, which gives the paper's splits and prompts,
        record for record. Without it splits are random, in the paper's proportions.
      output: the data folder; the set is written to OUTPUT/NAME.
      seed: seed of the random splits.
    """

    set: tyro.conf.Suppress[str]
    source: tuple[Path, ...]
    annotations: Path | None = None
    output: Path = Path("data")
    seed: int = 0


@dataclass(frozen=True)
class Check:
    """An audit.

    Attributes:
      name: name of the prepared set.
      root: the data folder.
      protocol: "paper" audits the set as prepared; "clean" writes splits without its errors, which --data.protocol
        clean uses, and audits those.
      findings: CSV file for all findings; the table shows only the first of each kind.
    """

    name: tyro.conf.Positional[str]
    root: Path = Path("data")
    protocol: Protocol = "paper"
    findings: Path | None = None


T = TypeVar("T", bound=Folder | Volumes | Dicom)


def main() -> None:
    """Prepares a set, or audits one."""
    defaults = {name: Public(name, tyro.MISSING) for name in PUBLIC} | {
        "folder": Folder(tyro.MISSING, tyro.MISSING),
        "volumes": Volumes(tyro.MISSING, tyro.MISSING),
        "dicom": Dicom(tyro.MISSING, tyro.MISSING),
        "check": Check(tyro.MISSING),
    }
    descriptions = {name: public.about for name, public in PUBLIC.items()} | {
        "folder": FOLDER,
        "volumes": VOLUMES,
        "dicom": DICOM,
        "check": CHECK,
    }
    if (asked := next(iter(sys.argv[1:]), "")) in formats.TITLES:
        message = f"{PROGRAM} folder reads {asked} annotations: folder --name NAME --source DIR [--format {asked}]"
        raise UserError(message, "unknown-subcommand")
    options = cli.subcommand(defaults, descriptions, PROGRAM, __doc__ or "")
    match options:
        case Folder():
            prepare_folder(_with_phrasings(options), Console())
        case Volumes() | Dicom():
            prepare_slices(_with_phrasings(options), Console())
        case Public():
            prepare_public(options, Console())
        case Check():
            check(options, Console())


def _with_phrasings(options: T) -> T:
    """The options with the phrasings of --prompt apart, which "|" separates as in tables."""
    return dataclasses.replace(options, prompt=folder_options.phrasings(options.prompt))


def prepare_public(options: Public, console: Console) -> None:
    """Writes one of the ten sets and compares its counts with the paper's.

    Raises:
      UserError: the source is incomplete or broken, or the output isn't writable.
    """
    folder_options.check_seed(options.seed)
    chosen = PUBLIC[options.set]
    survey = Survey()

    def contents(unpacked: Path) -> Contents:
        splits = chosen.splits(SourceFiles(options.source, unpacked), options.annotations, options.seed)
        return Contents(survey.watch(splits), chosen.about, chosen.homepage, chosen.licence, chosen.test_is_val)

    try:
        written = build(options.output, options.set, contents)
    except UserError as error:
        raise _without_folder_options(error) from error
    sizes = chosen.sizes._asdict()
    if chosen.test_is_val:
        del sizes["test"]
    summary.print_written(written, options.output / options.set, console, sizes)
    summary.print_survey(survey, console, invertible=False)
    if chosen.test_is_val:
        console.print("test is val, as in the paper: the masks of the set's own test split aren't public")


def _without_folder_options(error: UserError) -> UserError:
    """The error without advice of options that only `folder` takes; official files need none."""
    message, _, advice = str(error).rpartition("; ")
    own = {f"--{name}".replace("_", "-") for name in Folder.__annotations__.keys() - Public.__annotations__.keys()}
    if not message or not own & set(re.findall(r"--[a-z-]+", advice)):
        return error
    return UserError(f"{message}; the official files aren't so: take this one from the download again", error.code)


def prepare_folder(options: Folder, console: Console) -> None:
    """Writes the user's own set.

    Raises:
      UserError: options contradict each other, a file is missing or broken, or the output isn't writable.
    """
    folder_options.check(options)
    window = windows.parse(options.window)
    shares: dict[str, float] = dict(zip(SPLITS, options.fractions, strict=True))
    if options.test_is_val:
        shares["test"] = 0
    survey, seen = Survey(), SeenEncodings()
    ranges: list[tuple[str, windows.Range]] = []

    def contents(unpacked: Path) -> Contents:
        layout, items = folder_layout.folder_items(options, SourceFiles(options.source, unpacked), seen)
        console.print(f"layout: {layout}", soft_wrap=True)
        if options.folds:  # the same test split whatever the order of the files
            items = sorted(items, key=lambda item: item.key)
        splits = assign_splits(items, shares, options.seed)
        if options.test_is_val and ("test" in splits or "val" not in splits):
            present = ", ".join(splits) or "neither"
            raise UserError(f"--test-is-val needs a val and no test split, got {present}", "options-conflict")
        how = Preprocessing(window)
        watched = survey.watch(splits)
        about, folds, seed = "the user's own data", options.folds, options.seed
        return Contents(watched, about, None, None, options.test_is_val, folds, seed, how, seen, ranges)

    written = build(options.output, options.name, contents)
    summary.print_written(written, options.output / options.name, console, {})
    summary.print_survey(survey, console, invertible=options.encoding == "binary" and not options.invert)
    summary.print_ranges(ranges, options.output / options.name, console)
    summary.print_values(options, survey, seen, console)
    for split in ("train", "val"):
        if split not in written:
            console.print(f"note: there is no {split} split. {prepared.WAYS_OUT[split]}", soft_wrap=True)


def prepare_slices(options: Volumes | Dicom, console: Console) -> None:
    """Writes a set of the slices of medical files.

    Raises:
      UserError: as in `prepare_folder`.
    """
    is_dicom = isinstance(options, Dicom)
    window = windows.parse(options.window, dicom=is_dicom) or ("dicom" if is_dicom else "percentile")
    shares: dict[str, float] = dict(zip(SPLITS, options.fractions, strict=True))
    folder_options.check_seed(options.seed)
    folder_options.check_fractions(options.fractions)
    survey = Survey()

    def contents(unpacked: Path) -> Contents:
        source = SourceFiles(options.source, unpacked)
        temporary = unpacked / "volumes"
        if isinstance(options, Dicom):
            lines, items = dicom_sets.items(options, source, temporary, window)
        else:
            lines, items = volume_sets.items(options, source, temporary, window)
        console.print(lines, soft_wrap=True, markup=False)
        how = Preprocessing(window, options.axis)
        splits = survey.watch(assign_splits(items, shares, options.seed))
        return Contents(splits, "the user's own data", preprocessing=how)

    written = build(options.output, options.name, contents)
    summary.print_written(written, options.output / options.name, console, {})
    summary.print_survey(survey, console, invertible=False)


def check(options: Check, console: Console) -> None:
    """Audits a set and prints the findings; exits with 1 if there are errors.

    Raises:
      UserError: the set doesn't exist.
    """
    folder = prepared.find(options.root, options.name)
    stats: list[ImageStats] = []
    for split in prepared.stored_splits(folder):
        examples = Prepared(folder, split)
        tracked = progress_bar.track(examples, split, len(examples))
        stats += [image_stats(split, index, example) for index, example in enumerate(tracked)]
    if options.protocol == "clean":
        splits = clean.splits(stats)
        write_json(folder / CLEAN_FILE, splits)
        for split in (split for split, images in splits.items() if not images):
            console.print(f"warning: the clean protocol leaves no image in {split}", style="yellow", soft_wrap=True)
        stats = clean.stats_of(splits, stats)
    findings = audit.findings(stats, seen_encodings.read(folder))
    console.print(coverage.table(coverage.by_class(record for image in stats for record in image.records)))
    console.print(report.table(f"{options.name}, {options.protocol} protocol", stats, findings))
    if options.findings is not None:
        report.write(options.findings, findings)
        console.print(f"all findings: {options.findings}", soft_wrap=True)
    if any(audit.KINDS[finding.kind] == "error" for finding in findings):
        raise SystemExit(FAULTY)


if __name__ == "__main__":
    cli.run(main)
