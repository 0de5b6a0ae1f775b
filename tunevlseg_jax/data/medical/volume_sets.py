"""Data sets of the slices of NIfTI, NRRD and MetaImage volumes with label volumes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tunevlseg_jax.data.builders import matching, tables, user_files
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.items import Item
from tunevlseg_jax.data.builders.tables import Classes
from tunevlseg_jax.data.builders.user_files import ImageFiles, SplitChoice
from tunevlseg_jax.data.examples import SPLITS
from tunevlseg_jax.data.mask_files import distinct
from tunevlseg_jax.data.medical import labels, volume_files
from tunevlseg_jax.data.medical.labels import Labels, SliceChoice, Structure, Volume
from tunevlseg_jax.data.medical.scan import DEFAULT_AXIS
from tunevlseg_jax.data.preprocessing import Axis
from tunevlseg_jax.data.windows import Window
from tunevlseg_jax.runtime import progress_bar
from tunevlseg_jax.runtime.errors import UserError

SUFFIX = rf"(?:{'|'.join(map(re.escape, volume_files.SUFFIXES))})"
LAYOUTS = (
    ("images*/{name}_0000", "labels*/{name}"),
    ("images*/{name}", "labels*/{name}"),
    ("images*/{name}", "masks*/{name}"),
)
"""nnU-Net's, the Medical Segmentation Decathlon's, and the usual one."""


@dataclass(frozen=True)
class Volumes:
    """Slices of volumes with label volumes: NIfTI, NRRD and MetaImage.

    Attributes:
      name: name of the set: letters, digits and underscores, a letter first.
      source: folders, zip or tar files.
      prompt: prompt for label volumes of 0 and one other value; several are phrasings of the same prompt.
      classes: CSV or JSON with the columns class, value and optionally prompt, for label volumes with several values.
      images: pattern of the volumes, as in `prepare folder`: {name}, {group} (the patient), {split}. Without patterns
        imagesTr/ with labelsTr/ (also with nnU-Net's _0000), images/ with labels/ and images/ with masks/ are known.
      masks: pattern of the label volumes; {class} is the class if each class has a file of its own.
      axis: slices of the body, whatever the order in which a file stores its axes.
      slices: "object" for slices that show any class, "all", or a number n for every n-th slice. A slice without any
        class has a record with an empty mask for each.
      window: LOW HIGH, the values that become black and white, or "percentile" (the default): of each volume the
        percentiles 0.5 and 99.5. The set keeps it, and `predict` uses it. Volumes of 8 bits stay as they are.
      splits: "source" takes the splits that {split} or folders tell, "random" draws all by --fractions.
      fractions: fractions of train, val and test, if the source tells no splits; the slices of a group, or else of a
        volume, stay together.
      seed: seed of the random split.
      output: the data folder; the set is written to OUTPUT/NAME.
    """

    name: str
    source: tuple[Path, ...]
    prompt: tuple[str, ...] = ()
    classes: Path | None = None
    images: str | None = None
    masks: str | None = None
    axis: Axis = DEFAULT_AXIS
    slices: SliceChoice = "object"
    window: tuple[str, ...] = ()
    splits: SplitChoice = "source"
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 0
    output: Path = Path("data")


def items(options: Volumes, source: SourceFiles, folder: Path, window: Window) -> tuple[str, list[Item]]:
    """Lines on the layout, the splits and what was left out, and the slices; `folder` is for temporary files.

    Raises:
      UserError: options contradict each other, or a file is missing, broken, or has another geometry than its image.
    """
    images, masks = _patterns(options, source)
    classes = None if options.classes is None else tables.classes(options.classes)
    matched = _matched(source, images, masks, options.prompt, classes)
    line, files = user_files.with_splits(matched, options.splits, source)
    train = ("train",) if any(one.split == "val" for one in files) else ("train", "val")
    allowed = {"": SPLITS, "train": train, "val": ("val",), "test": ("test",)}
    found: list[Item] = []
    for one in progress_bar.track(files, "reading"):
        load = partial(volume_files.read_source, source, one.image, folder)
        scan = load()
        marked = _labels(one, source, folder, classes, scan.image)
        volume = Volume(one.id, one.group or one.id, allowed[one.split], scan, marked, load)
        found += labels.items(volume, options.axis, options.slices, window)
    if not found:
        raise UserError(f"no slice of {source} shows an object; --slices all takes all", "no-images")
    by_pattern = {name for text in (images, masks) for name, _ in _find(source, text)}
    lines = [f"layout: {images} and {masks}, {len(files)} volumes", f"splits: {line}"]
    lines += matching.left_out(source, by_pattern, "volumes", volume_files.SUFFIXES)
    if unlabelled := by_pattern - {name for one in files for name in (one.image, *(mask.file for mask in one.masks))}:
        lines.append(f"left out: {len(unlabelled)} volumes without labels, such as {min(unlabelled)}")
    return "\n".join(lines), found


def _patterns(options: Volumes, source: SourceFiles) -> tuple[str, str]:
    """The patterns of the volumes and the label volumes; raises a UserError if options contradict each other."""
    labels.check_options(options.prompt, options.classes, options.slices)
    if (options.images is None) != (options.masks is None):
        raise UserError("--images and --masks go together: give both or none", "options-conflict")
    fitting = (pair for pair in LAYOUTS if all(any(_find(source, text)) for text in pair))
    images, masks = next(fitting, LAYOUTS[-1])
    if options.images is not None and options.masks is not None:
        images, masks = options.images, options.masks
    if "{class}" in masks and options.prompt:
        raise UserError(f"--prompt is one for all classes of {masks!r}; use --classes", "options-conflict")
    if not options.classes and not options.prompt and "{class}" not in masks:
        raise UserError("label volumes need --prompt, --classes, or --masks with {class}", "missing-option")
    return images, masks


def _find(source: SourceFiles, text: str) -> Iterator[tuple[str, re.Match[str]]]:
    return source.find(matching.pattern(text, SUFFIX))


def _matched(
    source: SourceFiles, images: str, masks: str, prompt: tuple[str, ...], classes: Classes | None
) -> list[ImageFiles]:
    """The volumes with their label volumes; volumes without any in folders of a test split are left out.

    Raises:
      UserError: there is no volume, or one without labels, or labels without a volume.
    """
    by_mask = {name: match.groupdict() for name, match in _find(source, masks)}
    by_image = {name: match.groupdict() for name, match in _find(source, images) if name not in by_mask}
    if not by_image:
        suffixes = ", ".join(volume_files.SUFFIXES)
        message = f"{source} has no volume that fits the pattern {images!r} ({suffixes})"
        raise UserError(f"{message}; give --images and --masks, patterns with {{name}}", "no-images")
    shared = [field for field in ("name", "group", "split") if f"{{{field}}}" in images and f"{{{field}}}" in masks]
    of_key: dict[tuple[str, ...], list[str]] = {}
    for mask, fields in by_mask.items():
        of_key.setdefault(tuple(fields[field] for field in shared), []).append(mask)
    found: dict[tuple[str, ...], ImageFiles] = {}
    for image, fields in by_image.items():
        key = tuple(fields[field] for field in shared)
        if key in found:
            raise UserError(f"two volumes have the same name: {found[key].image} and {image}", "duplicate-image")
        if key not in of_key:
            if "imagests/" in image.lower():  # nnU-Net's test images may come without labels
                continue
            raise UserError(
                f"{image} has no label volume in {source} that fits the pattern {masks!r}; give --images and --masks, "
                "or leave the volume out",
                "mask-missing",
            )
        labelled = (matching.mask_of(one, by_mask[one].get("class") or "", prompt, classes) for one in of_key[key])
        group, split = fields.get("group") or "", fields.get("split") or ""
        name = f"{group}/{fields['name']}" if group else fields["name"]
        split = matching.split_named(split, image) if split else ""
        found[key] = ImageFiles(name, image, tuple(labelled), group, split)
    if orphans := [mask for key, several in of_key.items() if key not in found for mask in several]:
        raise UserError(f"{len(orphans)} label volumes have no volume: {orphans[0]}", "image-missing")
    return list(found.values())


def _labels(files: ImageFiles, source: SourceFiles, folder: Path, classes: Classes | None, image: Any) -> Labels:
    """The label maps of a volume on its grid: one of several classes, or a binary one for each class."""
    maps, structures = [], []
    for number, mask in enumerate(files.masks):
        stored = volume_files.read_source(source, mask.file, folder).image
        marked = volume_files.check_geometry(stored, image, mask.file, files.image)
        values = volume_files.labels(marked, mask.file)
        if classes is not None and len(files.masks) == 1 and classes.values:
            maps.append(labels.like(labels.recoded(values, classes.values, mask.file), image))
            structures += [Structure(one.label, one.prompts, 0, one.number) for one in classes.named.values()]
            continue
        if len(levels := distinct(values[values > 0])) > 1:
            shown = ", ".join(map(str, levels[:5]))
            raise UserError(f"mask {mask.file} has the values {shown}; give --classes", "mask-not-binary")
        maps.append(labels.like((values > 0).astype(np.uint8), image))
        structures.append(Structure(mask.label, mask.prompts, number, 1))
    return Labels(tuple(maps), tuple(structures))
