"""The options of `prepare folder`, and their checks."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunevlseg_jax.data.builders.annotations.formats import Format
from tunevlseg_jax.data.builders.user_files import Encoding, Instances, Negatives, SplitChoice
from tunevlseg_jax.runtime.errors import UserError


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
        the patient or video, {split} a folder such as train, * matches anything. Without a suffix it matches BMP, HEIC
        (with the extra `heic`), JPEG, PNG, TIFF and WebP files.
      masks: pattern of the mask files; {class} is the class if each class has its own masks. If neither pattern is
        given, the layout is detected: medvlsm's (anns/*.json), an annotation format (see --format), a class tree
        (annotations/{split}/{class}/{name}), images/ and masks/, or the folders and names by which most images have a
        mask.
      encoding: "binary" masks have two values, "palette" masks a value or palette index per class, "colour" masks a
        colour per class.
      prompt: prompt for binary masks without {class}; several, or texts between "|", are phrasings of the same prompt.
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
      negatives: "keep" gives an empty mask of every class to images that show none of the classes of palette or
        colour masks, that are annotated without an object, or that have no mask file. With "drop" the first have no
        record, the second are left out, and the third are an error. Empty binary masks stay either way.
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


def check(options: Folder) -> None:
    """Raises a UserError for an option that is out of range, or that contradicts another."""
    check_seed(options.seed)
    check_fractions(options.fractions)
    _check_folds(options)
    for name, pattern in (("--images", options.images), ("--masks", options.masks)):
        if pattern is not None and not pattern.strip():
            raise UserError(f"{name} is empty; give a pattern with {{name}}, or leave it out", "missing-field")
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


def phrasings(prompts: Sequence[str]) -> tuple[str, ...]:
    """The phrasings of a prompt: several texts, or texts between "|" as in tables."""
    apart = ([part.strip() for part in text.split("|") if part.strip()] or [text] for text in prompts)
    return tuple(itertools.chain.from_iterable(apart))


def check_seed(seed: int) -> None:
    """Raises a UserError for a negative seed."""
    if seed < 0:
        raise UserError(f"--seed must be at least 0, got {seed}", "out-of-range")


def check_fractions(fractions: tuple[float, float, float]) -> None:
    """Raises a UserError for shares of train, val and test that aren't a division with a train split."""
    if not (min(fractions) >= 0 and abs(sum(fractions) - 1) <= 1e-6 and fractions[0]):
        raise UserError(
            f"--fractions must be at least 0, train's above 0, and sum to 1, got {fractions}", "out-of-range"
        )


def _check_folds(options: Folder) -> None:
    if options.folds < 0 or options.folds == 1:
        raise UserError(f"--folds must be 0, or at least 2, got {options.folds}", "out-of-range")
    if options.folds and options.test_is_val:
        raise UserError("--folds keeps the test split apart; leave --test-is-val out", "options-conflict")
