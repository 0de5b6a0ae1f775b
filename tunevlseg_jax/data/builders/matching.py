"""Images and masks matched by their names."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tunevlseg_jax.data.builders import folder_splits, layouts
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.tables import Classes
from tunevlseg_jax.data.builders.user_files import ImageFiles, Mask
from tunevlseg_jax.data.images import SUFFIXES
from tunevlseg_jax.runtime.errors import UserError, nearest

FIELDS = ("name", "group", "split", "class")
SUFFIX = rf"\.(?:{'|'.join(suffix[1:] for suffix in SUFFIXES)})"
CLASS_TREE = ("images/{split}/{name}", "annotations/{split}/{class}/{name}")
"""Patterns of a tree with a folder per class, the usual layout of ADE20K's masks in open-vocabulary segmentation."""


def pattern(text: str, suffix: str = SUFFIX) -> str:
    """The regular expression of a pattern such as "masks/{class}/{name}_mask"; "*" matches anything but "/".

    A pattern that doesn't end in one has any suffix that the regular expression `suffix` matches.

    Raises:
      UserError: the pattern has an unknown field, or no {name}.
    """
    parts = re.split(r"(\{[^}]*\}|\*)", text)
    fields = [part[1:-1] for part in parts if part.startswith("{")]
    if unknown := [field for field in fields if field not in FIELDS]:
        raise UserError(f"pattern {text!r} has {{{unknown[0]}}}{nearest(unknown[0], FIELDS)}", "unknown-field")
    if "name" not in fields:
        raise UserError(f"the pattern {text!r} lacks {{name}}, by which images and masks are matched", "missing-field")
    seen: set[str] = set()
    regex = ""
    for part in parts:
        if part == "*":
            regex += "[^/]*"
        elif part.startswith("{"):
            field = part[1:-1]
            regex += f"(?P={field})" if field in seen else f"(?P<{field}>[^/]+?)"
            seen.add(field)
        else:
            regex += re.escape(part)
    return regex if re.search(rf"{suffix}$", text, re.IGNORECASE) else regex + suffix


class Matched(NamedTuple):
    """The images with their masks, and lines on the image files that were left out."""

    files: list[ImageFiles]
    notes: list[str]


def find(
    source: SourceFiles,
    images: str,
    masks: str,
    prompt: tuple[str, ...],
    classes: Classes | None,
    *,
    use_splits: bool = True,
) -> Matched:
    """The images and their masks. Folders that tell splits count as {split}, wherever they are in the path.

    Images of a val or test split without any mask are left out.

    Args:
      source: the files.
      images: pattern of the image files, with {name} and optionally {split} and {group}.
      masks: pattern of the mask files, with {name} and optionally {class} and the others.
      prompt: phrasings for masks without {class}; the first is the class's name.
      classes: prompts by the name in {class}; None uses the name as the prompt.
      use_splits: whether splits that aren't clear are errors.

    Raises:
      UserError: an image has no mask, two masks differ only in the suffix, a mask has no image, or a split
        or class is unknown.
    """
    by_mask = dict(_matches(source, masks))
    by_image = {name: fields for name, fields in _matches(source, images) if name not in by_mask}
    if not by_image:
        raise layouts.no_images(source, images)
    mask_splits = _splits(by_mask, masks, use_splits=False)
    image_splits = _splits(by_image, images, use_splits=use_splits)
    shared = [field for field in ("name", "group", "class") if f"{{{field}}}" in images and f"{{{field}}}" in masks]

    def key(path: str, fields: Mapping[str, str], splits: Mapping[str, str]) -> tuple[str, ...]:
        return (*(fields[field] for field in shared), splits[path] if image_splits and mask_splits else "")

    masks_of: dict[tuple[str, ...], list[str]] = {}
    for mask, fields in by_mask.items():
        masks_of.setdefault(key(mask, fields, mask_splits), []).append(mask)
    _check_masks(masks_of, by_mask, masks)
    files: dict[tuple[str, ...], ImageFiles] = {}
    without: list[tuple[str, str]] = []
    for image, fields in by_image.items():
        place, split = key(image, fields, image_splits), image_splits.get(image, "")
        if place in files:
            raise UserError(
                f"two images have the same name: {files[place].image} and {image}; if their folders tell them apart, "
                "give --images and --masks with {group}",
                "duplicate-image",
            )
        if place not in masks_of:
            without.append((image, split))
            continue
        if not image_splits and mask_splits:
            split = mask_splits[masks_of[place][0]]
        labelled = [mask_of(mask, by_mask[mask].get("class", ""), prompt, classes) for mask in masks_of[place]]
        group = fields.get("group", "")
        name = f"{group}/{fields['name']}" if group else fields["name"]
        files[place] = ImageFiles(name, image, tuple(labelled), group, split)
    notes = _without_masks(without, files.values(), source, masks) + _left_out(source, {*by_image, *by_mask})
    if orphans := [mask for place, found in masks_of.items() if place not in files for mask in found]:
        raise UserError(f"{len(orphans)} masks have no image ({', '.join(SUFFIXES)}): {orphans[0]}", "image-missing")
    return Matched(list(files.values()), notes)


def names(source: SourceFiles, text: str) -> set[str]:
    """The names that a pattern finds."""
    return {fields["name"] for _, fields in _matches(source, text)}


def _matches(source: SourceFiles, text: str) -> Iterator[tuple[str, dict[str, str]]]:
    for name, match in source.find(pattern(text)):
        yield name, match.groupdict()


def _splits(found: Mapping[str, Mapping[str, str]], text: str, *, use_splits: bool) -> dict[str, str]:
    """The split of each file, by {split} or by the names of its folders; {} if none is told."""
    if "{split}" in text:
        return {path: split_named(fields["split"], path) for path, fields in found.items()}
    try:
        return folder_splits.of_files({path: [*fields.values()] for path, fields in found.items()})
    except UserError:
        if use_splits:
            raise
        return {}


def _check_masks(masks_of: Mapping[tuple[str, ...], Sequence[str]], fields: Mapping[str, Any], text: str) -> None:
    """Raises a UserError if two masks of one image and class differ in the suffix or in folders outside the pattern."""
    depth = text.count("/") + 1
    for masks in masks_of.values():
        stems: dict[str, str] = {}
        places: dict[str, str] = {}
        for mask in masks:
            stem = mask.rpartition(".")[0]
            if stem in stems:
                raise UserError(f"two masks differ only in their suffix: {stems[stem]} and {mask}", "duplicate-mask")
            stems[stem] = mask
            first = places.setdefault(fields[mask].get("class", ""), mask)
            if first.split("/")[:-depth] != mask.split("/")[:-depth]:
                raise UserError(
                    f"one image has masks in two places: {first} and {mask}; give --images and --masks with {{group}} "
                    "where their folders differ",
                    "duplicate-mask",
                )


def _without_masks(
    without: Sequence[tuple[str, str]], files: Iterable[ImageFiles], source: SourceFiles, masks: str
) -> list[str]:
    """A line on each split of images to predict on, which has no masks at all.

    Raises:
      UserError: an image of another split has no mask.
    """
    labelled = {image.split for image in files}
    for image, split in without:
        if split in ("", "train") or split in labelled or not labelled:
            hint = _as_mask(image, masks)
            raise UserError(f"{image} has no mask in {source} that fits the pattern {masks!r}{hint}", "mask-missing")
    counts = Counter(split for _, split in without)
    return [f"left out: {count} images of {split}, which has no masks" for split, count in counts.items()]


def _left_out(source: SourceFiles, matched: Collection[str]) -> list[str]:
    """A line on the image files that fit neither pattern, if there are any."""
    others = [name for name in source.names if name.lower().endswith(SUFFIXES) and name not in matched]
    return [f"left out: {len(others)} image files that fit neither pattern, such as {others[0]}"] if others else []


def mask_of(file: str, label: str, prompt: tuple[str, ...], classes: Classes | None) -> Mask:
    """A mask with its class and prompts, by the name in {class}."""
    if not label:
        return Mask(file, prompt[0] if prompt else "", prompt)
    if classes is None:
        return Mask(file, label, (label,))
    if label not in classes.named:
        raise UserError(f"--classes lacks {label!r} of mask {file}{nearest(label, classes.named)}", "unknown-class")
    return Mask(file, label, classes.named[label].prompts)


def _as_mask(image: str, masks: str) -> str:
    """The end of a message about an image without a mask that may be another mask, such as a_mask_1.png."""
    wider = f"{masks}*"
    if re.fullmatch(rf"(?:.*/)?{pattern(wider)}", image, re.IGNORECASE):
        return f"; if it is another mask of an image, give --masks {wider!r}: masks of one class are joined"
    return ""


def split_named(name: str, image: str) -> str:
    """The split of a folder that {split} matches; `image` is a file there, for the error of an unknown name."""
    split = folder_splits.NNUNET.get(name.lower()) or folder_splits.split_of(name)
    if not split:
        raise UserError(f"{image} is of the split {name!r}{nearest(name, folder_splits.SPLIT_NAMES)}", "unknown-split")
    return split
