"""Images and masks matched by their names."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tunevlseg_jax.data.builders import folder_splits, layouts, user_files
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.tables import Classes
from tunevlseg_jax.data.builders.user_files import ImageFiles, Mask, Negatives
from tunevlseg_jax.data.images import SUFFIXES
from tunevlseg_jax.runtime.errors import UserError, nearest

FIELDS = ("name", "group", "split", "class")
SUFFIX = rf"\.(?:{'|'.join(suffix[1:] for suffix in SUFFIXES)})"
MASK_SUFFIX = rf"(?:{SUFFIX}|\.gif)"
"""Masks may be GIF, as DRIVE's."""
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
    negatives: Negatives = "drop",
) -> Matched:
    """The images and their masks. Folders that tell splits count as {split}, wherever they are in the path.

    Images of a val or test split without any mask are left out. Other images without one are errors, or have an empty
    mask of every class if `negatives` are kept.

    Args:
      source: the files.
      images: pattern of the image files, with {name} and optionally {split} and {group}.
      masks: pattern of the mask files, with {name} and optionally {class} and the others.
      prompt: phrasings for masks without {class}; the first is the class's name.
      classes: prompts by the name in {class}; None uses the name as the prompt.
      use_splits: whether splits that aren't clear are errors.
      negatives: what becomes of images without a mask.

    Raises:
      UserError: an image has no mask and `negatives` are dropped, two masks differ only in the suffix, a mask has no
        image, or a split or class is unknown.
    """
    by_mask = dict(_matches(source, masks, MASK_SUFFIX))
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
    for image, fields in by_image.items():
        place, split = key(image, fields, image_splits), image_splits.get(image, "")
        if place in files:
            raise _same_name(files[place].image, image, source, masks if not by_mask else "")
        own = masks_of.get(place, [])
        if own and not image_splits and mask_splits:
            split = mask_splits[own[0]]
        labelled = [mask_of(mask, by_mask[mask].get("class", ""), prompt, classes) for mask in own]
        group = fields.get("group", "")
        name = f"{group}/{fields['name']}" if group else fields["name"]
        files[place] = ImageFiles(name, image, tuple(labelled), group, split)
    labels = None if classes is None else {label: one.prompts for label, one in classes.named.items()}
    kept, notes = _without_masks(list(files.values()), labels, source, masks, negatives)
    notes += left_out(source, {*by_image, *by_mask}, "image files", SUFFIXES)
    if orphans := [mask for place, found in masks_of.items() if place not in files for mask in found]:
        raise UserError(f"{len(orphans)} masks have no image ({', '.join(SUFFIXES)}): {orphans[0]}", "image-missing")
    return Matched(kept, notes)


def _same_name(first: str, second: str, source: SourceFiles, unmatched: str) -> UserError:
    """The error about two images of one name; a pattern of masks that matches none might have told them apart."""
    if unmatched:
        return UserError(f"{first} has no mask in {source} that fits the pattern {unmatched!r}", "mask-missing")
    return UserError(
        f"two images have the same name: {first} and {second}; if their folders tell them apart, give --images and "
        "--masks with {group}",
        "duplicate-image",
    )


def names(source: SourceFiles, text: str) -> set[str]:
    """The names that a pattern finds."""
    return {fields["name"] for _, fields in _matches(source, text)}


def _matches(source: SourceFiles, text: str, suffix: str = SUFFIX) -> Iterator[tuple[str, dict[str, str]]]:
    for name, match in source.find(pattern(text, suffix)):
        yield name, match.groupdict()


def _splits(found: Mapping[str, Mapping[str, str]], text: str, *, use_splits: bool) -> dict[str, str]:
    """The split of each file, by {split} or by the names of its folders; {} if there is none."""
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
    files: Sequence[ImageFiles],
    labels: Mapping[str, tuple[str, ...]] | None,
    source: SourceFiles,
    masks: str,
    negatives: Negatives,
) -> tuple[list[ImageFiles], list[str]]:
    """The images with masks and those that get empty ones, and lines on the images that had none.

    A split without any mask holds images to predict on and is left out. `labels` are the classes of the empty masks
    and their prompts; None for those of the masks that are there.

    Raises:
      UserError: an image of another split has no mask, and `negatives` are dropped.
    """
    labelled = {image.split for image in files if image.masks}
    unlabelled = {image.split for image in files} - labelled - {"", "train"} if labelled else set()
    healthy = [image for image in files if not image.masks and image.split not in unlabelled]
    if healthy and (negatives == "drop" or not labelled):
        image = healthy[0].image
        hint = _as_mask(image, masks) or _of_other_kind(image, masks, source)
        if labelled and not hint:
            hint = "; if it doesn't show the object, --negatives keep gives images without a mask an empty one"
        raise UserError(f"{image} has no mask in {source} that fits the pattern {masks!r}{hint}", "mask-missing")
    if labels is None:
        labels = {mask.label: mask.prompts for image in files for mask in image.masks}
    counts = Counter(image.split for image in files if image.split in unlabelled)
    notes = [f"left out: {count} images of {split}, which has no masks" for split, count in counts.items()]
    if negatives == "keep":
        such = f", such as {healthy[0].image}" if healthy else ""
        notes.append(f"{len(healthy)} of {len(files)} images have no mask and get an empty one of each class{such}")
    kept = [image for image in files if image.split not in unlabelled]
    return [image if image.masks else user_files.healthy(image, labels) for image in kept], notes


def left_out(source: SourceFiles, matched: Collection[str], what: str, suffixes: tuple[str, ...]) -> list[str]:
    """Lines on the files with these suffixes that weren't matched, and on archives that aren't read, if any."""
    others = [name for name in source.names if name.lower().endswith(suffixes) and name not in matched]
    lines = [f"left out: {len(others)} {what} that fit neither pattern, such as {others[0]}"] if others else []
    return lines + [f"left out: {name}, which isn't read; unpack it" for name in source.unread[:3]]


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


def _of_other_kind(image: str, masks: str, source: SourceFiles) -> str:
    """The end of a message about an image without a mask whose mask may be a file that isn't read, such as a.npy."""
    stem = image.rpartition("/")[2].rpartition(".")[0]
    suffix = r"\.(?!json|xml|txt|csv)\w+"  # annotations, of which another line tells
    others = (name for name, match in source.find(pattern(masks, suffix)) if match["name"] == stem)
    other = next((name for name in others if name != image), None)
    return "" if other is None else f"; {other} is no image file ({', '.join(SUFFIXES)}); save the masks as PNG"


def split_named(name: str, image: str) -> str:
    """The split of a folder that {split} matches; `image` is a file there, for the error of an unknown name."""
    split = folder_splits.split_of(name) or folder_splits.split_of(name, strict=False)
    if not split:
        raise UserError(f"{image} is of the split {name!r}{nearest(name, folder_splits.SPLIT_NAMES)}", "unknown-split")
    return split
