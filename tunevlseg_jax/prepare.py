"""Prepares and audits data sets: `python -m tunevlseg_jax.prepare kvasir --source kvasir-seg.zip --output data`."""

import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from tunevlseg_jax import cli
from tunevlseg_jax.data import prepared, preprocessing, windows
from tunevlseg_jax.data.audit import clean, coverage, report
from tunevlseg_jax.data.audit import findings as audit
from tunevlseg_jax.data.audit.coverage import Survey
from tunevlseg_jax.data.audit.image_stats import ImageStats, image_stats
from tunevlseg_jax.data.builders import layouts, manifest, matching, medvlsm, tables, user_files
from tunevlseg_jax.data.builders.annotations import formats
from tunevlseg_jax.data.builders.annotations.formats import Format
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.catalogue import PUBLIC
from tunevlseg_jax.data.builders.items import Item
from tunevlseg_jax.data.builders.seeded_splits import assign_splits
from tunevlseg_jax.data.builders.user_files import (
    Encoding,
    ImageFiles,
    Instances,
    Negatives,
    SplitChoice,
    binary,
    coded,
)
from tunevlseg_jax.data.builders.writer import Contents, Written, build
from tunevlseg_jax.data.mask_values import BinaryRule, SeenEncodings
from tunevlseg_jax.data.medical import dicom_sets, volume_sets
from tunevlseg_jax.data.medical.dicom_sets import Dicom
from tunevlseg_jax.data.medical.volume_sets import Volumes
from tunevlseg_jax.data.prepared import CLEAN_FILE, SPLITS, Prepared
from tunevlseg_jax.data.preprocessing import Preprocessing
from tunevlseg_jax.data.settings import Protocol
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
PAPER = "the paper's Table 1"


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
class Folder:
    """Your own images and masks.

    Attributes:
      name: name of the set: letters, digits and underscores, a letter first.
      source: folders, zip or tar files; a folder's zip and tar files count as if unpacked. Files with the same path in
        several sources must be equal.
      output: the data folder; the set is written to OUTPUT/NAME.
      format: the annotation format to read, if the source has several; by default it is recognised. "dsb" is a folder
        for each image with the masks of its objects, a/images/a.png and a/masks/*.png.
      images: pattern of the image files, starting at any folder. {name} is common to an image and its masks, {group} is
        the patient or video, {split} a folder such as train, * matches anything. Without a suffix it matches BMP, JPEG,
        PNG, TIFF and WebP files.
      masks: pattern of the mask files; {class} is the class if each class has its own masks. If neither pattern is
        given, the layout is detected: medvlsm's (anns/*.json), an annotation format (see --format), a class tree
        (annotations/{split}/{class}/{name}), images/ and masks/, or the folders and names by which most images have a
        mask.
      encoding: "binary" masks have two values, "palette" masks a value or palette index per class, "colour" masks a
        colour per class.
      prompt: prompt for binary masks without {class}; several are phrasings of the same prompt.
      classes: CSV or JSON with the columns class, value or colour (#ff8000), and optionally prompt (phrasings separated
        by "|"; by default the class's name). "background" has no records and "void" is ignored; 0 and black are
        background.
      manifest: CSV or JSON with the columns image, mask, prompt, and optionally split, class and group; paths are
        relative to the source, masks are binary.
      splits: "source" takes the splits that a manifest's column, {split}, annotation files or the names of folders
        tell, such as train/images, images/valid and imagesTr; "random" draws them all.
      fractions: fractions of train, val and test, if the images have no splits; groups stay together. With
        --test-is-val the fraction of test goes to train and val.
      seed: seed of the random split.
      folds: number of folds of the images of train and val, for cross-validation with data.fold; 0 for none. The test
        split stays apart.
      threshold: grey value above which a binary mask's pixel belongs to the object. None: the larger of two values, the
        brighter of a palette's two colours, or in lossy files such as JPEG and in medvlsm's layout, the upper half.
      test_is_val: make no test split and evaluate on val.
      window: for images of more than 8 bits, LOW HIGH (the values that become black and white), or "percentile" (of
        each image the percentiles 0.5 and 99.5). None: one window for the whole set, the range of the fewest of 8, 10,
        12, 14 and 16 bits that hold all values; of floating-point images 0 to 1 or else the range of all values. The
        set keeps the window, and `predict` uses it. Images of 8 bits stay as they are.
      instances: several masks of one class in an image: "join" makes one mask of them, "refuse" is an error.
      invert: whether the object is the smaller, darker or lower of a binary mask's values, such as black on white.
      ignore_value: values of binary and palette masks whose pixels belong neither to an object nor to the background.
      negatives: images that show none of the classes of palette or colour masks, or that are annotated without an
        object: "drop" gives them no record, "keep" an empty mask of every class.
    """

    name: str
    source: tuple[Path, ...]
    output: Path = Path("data")
    format: Format | None = None
    images: str | None = None
    masks: str | None = None
    encoding: Encoding = "binary"
    prompt: tuple[str, ...] = ()
    classes: Path | None = None
    manifest: Path | None = None
    splits: SplitChoice = "source"
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 0
    folds: int = 0
    threshold: int | None = None
    test_is_val: bool = False
    window: tuple[str, ...] = ()
    instances: Instances = "join"
    invert: bool = False
    ignore_value: tuple[int, ...] = ()
    negatives: Negatives = "drop"


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
            prepare_folder(options, Console())
        case Volumes() | Dicom():
            prepare_slices(options, Console())
        case Public():
            prepare_public(options, Console())
        case Check():
            check(options, Console())


def prepare_public(options: Public, console: Console) -> None:
    """Writes one of the ten sets and compares its counts with the paper's.

    Raises:
      UserError: the source is incomplete or broken, or the output isn't writable.
    """
    _check_seed(options.seed)
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
    _report(written, options.output / options.set, console, sizes)
    _print_survey(survey, console, invertible=False)
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
    _check(options)
    window = windows.parse(options.window)
    shares: dict[str, float] = dict(zip(SPLITS, options.fractions, strict=True))
    if options.test_is_val:
        shares["test"] = 0
    survey, seen = Survey(), SeenEncodings()

    def contents(unpacked: Path) -> Contents:
        layout, items = folder_items(options, SourceFiles(options.source, unpacked), seen)
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
        return Contents(watched, about, None, None, options.test_is_val, folds, seed, how)

    written = build(options.output, options.name, contents)
    _report(written, options.output / options.name, console, {})
    _print_survey(survey, console, invertible=options.encoding == "binary" and not options.invert)
    _print_values(options, survey, seen, console)
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
    _check_seed(options.seed)
    _check_fractions(options.fractions)

    def contents(unpacked: Path) -> Contents:
        source = SourceFiles(options.source, unpacked)
        temporary = unpacked / "volumes"
        if isinstance(options, Dicom):
            lines, items = dicom_sets.items(options, source, temporary, window)
        else:
            lines, items = volume_sets.items(options, source, temporary, window)
        console.print(lines, soft_wrap=True, markup=False)
        how = Preprocessing(window, options.axis)
        return Contents(assign_splits(items, shares, options.seed), "the user's own data", preprocessing=how)

    written = build(options.output, options.name, contents)
    _report(written, options.output / options.name, console, {})


def folder_items(options: Folder, source: SourceFiles, seen: SeenEncodings) -> tuple[str, list[Item]]:
    """The name of the source's layout, and its images; `seen` notes the values of binary masks when they're read.

    Raises:
      UserError: as in `prepare_folder`.
    """
    rule = BinaryRule(options.threshold, options.invert, options.ignore_value)
    load = partial(binary, rule=rule, seen=seen)
    if (annotated := _annotated(options, source, load)) is not None:
        return annotated
    if options.encoding == "binary" and options.negatives != "drop":
        raise UserError(
            "--negatives keep needs --encoding palette or colour; empty binary masks stay", "options-conflict"
        )
    if options.manifest is not None:
        about, files = manifest.find(options.manifest, source)
        return _items(options, about, files, source, load)
    images, masks = options.images or layouts.PLAIN[0], options.masks or layouts.PLAIN[1]
    if options.images is None and options.masks is None:
        if (subfolder := medvlsm.folder(source)) is not None:
            _check_unset(options, f"{subfolder}anns/train.json")
            about = f"medvlsm's, {subfolder or '.'}\nsplits: as anns/*.json list them"
            return about, list(medvlsm.items(source, subfolder, rule, seen))
        if any(source.find(matching.pattern(matching.CLASS_TREE[1]))):
            images, masks = matching.CLASS_TREE
        elif not matching.names(source, images) & matching.names(source, masks):
            images, masks, _ = layouts.best(source) or (images, masks, 0)
    if options.prompt and "{class}" in masks:
        raise UserError(f"--prompt is one for all classes of {masks!r}; use --classes", "options-conflict")
    classes = None if options.classes is None else tables.classes(options.classes)
    if options.encoding != "binary":
        if classes is None or "{class}" in masks:
            raise UserError(f"{options.encoding} masks need --classes, and no {{class}} in --masks", "missing-option")
        load = partial(coded, encoding=options.encoding, classes=classes, rule=rule, negatives=options.negatives)
    elif "{class}" not in masks and not options.prompt:
        raise UserError("binary masks need --prompt, or --masks with {class}", "missing-option")
    try:
        use_splits = options.splits == "source"
        found = matching.find(source, images, masks, options.prompt, classes, use_splits=use_splits)
    except UserError as error:
        raise _with_formats(error, source) from error
    return _items(options, "\n".join([f"{images} and {masks}", *found.notes]), found.files, source, load)


def _annotated(options: Folder, source: SourceFiles, binary_load: user_files.Load) -> tuple[str, list[Item]] | None:
    """As `folder_items`, if the source or the manifest is of an annotation tool, and no pattern says otherwise."""
    if options.images or options.masks or (options.format is None and medvlsm.folder(source) is not None):
        return None
    if options.manifest is not None:
        found = formats.file(options.manifest, source)
        if found is None:
            return None
        format, content = found
    else:
        present = formats.found(source)
        plain = [text for text in (matching.CLASS_TREE[1], "masks/{name}") if any(source.find(matching.pattern(text)))]
        if options.format is None and plain and "dsb" not in present:
            if there := [name for name in present if name != formats.BROKEN]:
                raise UserError(
                    f"{source} has masks in {plain[0]} and annotations of {', '.join(there)}; give --masks "
                    f"{plain[0]!r} or --format {there[0]}",
                    "ambiguous-format",
                )
            return None
        format = formats.choose(present, options.format, source)
        if format is None:
            return None
        content = present[format]
    if options.encoding != "binary" and format != "voc":
        raise UserError(f"{format} annotations have no label maps; leave --encoding out", "options-conflict")
    classes = None if options.classes is None else tables.classes(options.classes)
    about, files, load = formats.read(format, content, source, options.prompt, classes, options.negatives)
    given = [name for name in ("invert", "ignore_value") if getattr(options, name) != getattr(Folder, name)]
    if given and (load is not None or any(mask.draw for image in files for mask in image.masks)):
        option = f"--{given[0].replace('_', '-')}"
        raise UserError(f"{format} annotations have no masks to read by {option}; leave it out", "options-conflict")
    return _items(options, about, files, source, load or binary_load)


def _with_formats(error: UserError, source: SourceFiles) -> UserError:
    """The error about patterns that don't fit, with the annotation formats that the source has."""
    there = [name for name in formats.found(source) if name != formats.BROKEN]
    if not there or error.code not in ("mask-missing", "no-images"):
        return error
    hint = f"{source} has annotations of {', '.join(there)}: leave --images and --masks out to read them"
    return UserError(f"{error}; {hint}", error.code)


def _items(
    options: Folder, about: str, files: Sequence[ImageFiles], source: SourceFiles, load: user_files.Load
) -> tuple[str, list[Item]]:
    """The layout with a line on the splits, and the items of its images."""
    if options.instances == "refuse":
        user_files.check_instances(files)
    splits, files = user_files.with_splits(files, options.splits)
    return f"{about}\nsplits: {splits}", user_files.items(files, source, load)


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise UserError(f"--seed must be at least 0, got {seed}", "out-of-range")


def _check_fractions(fractions: tuple[float, float, float]) -> None:
    if not (min(fractions) >= 0 and abs(sum(fractions) - 1) <= 1e-6 and fractions[0]):
        raise UserError(
            f"--fractions must be at least 0, train's above 0, and sum to 1, got {fractions}", "out-of-range"
        )


def _check_folds(options: Folder) -> None:
    if options.folds < 0 or options.folds == 1:
        raise UserError(f"--folds must be 0, or at least 2, got {options.folds}", "out-of-range")
    if options.folds and options.test_is_val:
        raise UserError("--folds keeps the test split apart; leave --test-is-val out", "options-conflict")


def _check(options: Folder) -> None:
    _check_seed(options.seed)
    _check_fractions(options.fractions)
    _check_folds(options)
    if options.threshold is not None and options.threshold < 0:
        raise UserError(f"--threshold must be a grey value, at least 0, got {options.threshold}", "out-of-range")
    if options.format and (options.images or options.masks or options.manifest):
        raise UserError("with --format, leave --images, --masks and --manifest out", "options-conflict")
    if options.manifest and (options.images or options.masks or options.classes or options.encoding != "binary"):
        raise UserError("with --manifest, leave --images, --masks, --classes and --encoding out", "options-conflict")
    if options.manifest and options.prompt:
        raise UserError("--manifest has a column for prompts; leave --prompt out", "options-conflict")
    if options.classes and options.prompt:
        raise UserError("--classes has the prompt of each class; leave --prompt out", "options-conflict")
    if options.encoding != "binary" and options.threshold is not None:
        raise UserError(f"--threshold needs binary masks, got --encoding {options.encoding}", "options-conflict")
    if options.encoding != "binary" and options.invert:
        raise UserError(
            f"--invert needs binary masks, got --encoding {options.encoding}; --classes says what each value is",
            "options-conflict",
        )
    if options.encoding == "colour" and options.ignore_value:
        raise UserError("--ignore-value needs values, got --encoding colour; give void a colour", "options-conflict")
    if wrong := [value for value in options.ignore_value if not 0 <= value <= 65535]:
        raise UserError(f"--ignore-value must be from 0 to 65535, got {wrong[0]}", "out-of-range")
    if not all(prompt.strip() for prompt in options.prompt):
        raise UserError("--prompt is empty; it must name the object in the masks", "empty-prompt")


def _check_unset(options: Folder, annotations: str) -> None:
    """Raises a UserError for an option that medvlsm's annotations determine."""
    determined = "encoding", "prompt", "classes", "splits", "fractions"
    if given := [f"--{name}" for name in determined if getattr(options, name) != getattr(Folder, name)]:
        raise UserError(
            f"{annotations} has the prompts and splits of binary masks; leave {', '.join(given)} out, "
            "or give --images and --masks to match by names",
            "options-conflict",
        )


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
    findings = audit.findings(stats)
    console.print(coverage.table(coverage.by_class(record for image in stats for record in image.records)))
    console.print(report.table(f"{options.name}, {options.protocol} protocol", stats, findings))
    if options.findings is not None:
        report.write(options.findings, findings)
        console.print(f"all findings: {options.findings}", soft_wrap=True)
    if any(audit.KINDS[finding.kind] == "error" for finding in findings):
        raise SystemExit(FAULTY)


def _print_survey(survey: Survey, console: Console, *, invertible: bool) -> None:
    """Prints the coverage of each class, and what looks wrong."""
    console.print(coverage.table(coverage.by_class(survey.stats)))
    for line in survey.warnings(invertible=invertible):
        console.print(f"warning: {line}", soft_wrap=True)


def _print_values(options: Folder, survey: Survey, seen: SeenEncodings, console: Console) -> None:
    """Prints whether the masks' values differ between files, and how many images have no record."""
    if (line := seen.disagreement()) is not None:
        console.print(line, soft_wrap=True)
    if healthy := survey.without_records:
        remedy = "; --negatives keep gives them empty masks" * (options.encoding != "binary")
        count = f"{len(healthy)} of {len(survey.names)} images, such as {healthy[0]!r}, show"
        console.print(f"note: {count} none of the classes and have no record{remedy}", soft_wrap=True)


def _report(written: Mapping[str, Written], folder: Path, console: Console, paper: Mapping[str, int]) -> None:
    """Prints the numbers of images and records beside the paper's."""
    table = Table(title=f"{folder.name} in {folder}")
    for column in ("split", "images", "records", *((f"records in\n{PAPER}",) if paper else ())):
        table.add_column(column, justify="left" if column == "split" else "right")
    counts = {split: written.get(split, Written(0, 0)) for split in (*written, *paper)}
    for split in counts:
        expected = (f"{paper[split]}",) if split in paper else ()
        table.add_row(split, *map(str, counts[split]), *expected)
    console.print(table)
    if (window := preprocessing.read(folder / prepared.VERSION).window) is not None:
        console.print(f"values of images of more than 8 bits: {windows.described(window)} (--window)", soft_wrap=True)
    if different := [split for split, count in paper.items() if count != counts[split].records]:
        console.print(f"note: {', '.join(different)} differ from {PAPER}", soft_wrap=True)


if __name__ == "__main__":
    cli.run(main)
