"""Images and masks matched by their names."""

import re
from collections.abc import Iterator

from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.tables import Classes
from tunevlseg_jax.data.builders.user_files import ImageFiles, Mask
from tunevlseg_jax.data.images import SUFFIXES
from tunevlseg_jax.runtime.errors import UserError, nearest

FIELDS = ("name", "group", "split", "class")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
SUFFIX = rf"\.(?:{'|'.join(suffix[1:] for suffix in SUFFIXES)})"
CLASS_TREE = ("images/{split}/{name}", "annotations/{split}/{class}/{name}")
"""Patterns of a tree with a folder per class, the usual layout of ADE20K's masks in open-vocabulary segmentation."""


def pattern(text: str) -> str:
    """The regular expression of a pattern such as "masks/{class}/{name}_mask"; "*" matches anything but "/".

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
    return regex if re.search(rf"{SUFFIX}$", text, re.IGNORECASE) else regex + SUFFIX


def find(
    source: SourceFiles, images: str, masks: str, prompt: tuple[str, ...], classes: Classes | None
) -> list[ImageFiles]:
    """The images and their masks.

    Args:
      source: the files.
      images: pattern of the image files, with {name} and optionally {split} and {group}.
      masks: pattern of the mask files, with {name} and optionally {class} and the others.
      prompt: phrasings for masks without {class}; the first is the class's name.
      classes: prompts by the name in {class}; None uses the name as the prompt.

    Raises:
      UserError: an image has no mask, two masks differ only in the suffix, a mask has no image, or a split
        or class is unknown.
    """
    by_mask = dict(_matches(source, masks))
    image_fields = {name: fields for name, fields in _matches(source, images) if name not in by_mask}
    if not image_fields:
        raise UserError(f"{source} has no image that fits the pattern {images!r} ({', '.join(SUFFIXES)})", "no-images")
    shared = [field for field in FIELDS if f"{{{field}}}" in images and f"{{{field}}}" in masks]
    masks_of: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    stems: dict[str, str] = {}
    for mask, fields in by_mask.items():
        stem = mask.rpartition(".")[0]
        if stem in stems:
            raise UserError(f"two masks differ only in their suffix: {stems[stem]} and {mask}", "duplicate-mask")
        stems[stem] = mask
        masks_of.setdefault(tuple(fields[field] for field in shared), []).append((mask, fields.get("class", "")))
    files: dict[tuple[str, ...], ImageFiles] = {}
    for image, fields in image_fields.items():
        key = tuple(fields[field] for field in shared)
        if key in files:
            raise UserError(f"two images have the same name: {files[key].image} and {image}", "duplicate-image")
        if key not in masks_of:
            hint = _as_mask(image, masks)
            raise UserError(f"{image} has no mask in {source} that fits the pattern {masks!r}{hint}", "mask-missing")
        group, split = fields.get("group", ""), _split(fields["split"], image) if "split" in fields else ""
        labelled = [_mask(mask, label, prompt, classes) for mask, label in masks_of[key]]
        name = f"{group}/{fields['name']}" if group else fields["name"]
        files[key] = ImageFiles(name, image, tuple(labelled), group, split)
    if orphans := [mask for key, found in masks_of.items() if key not in files for mask, _ in found]:
        raise UserError(f"{len(orphans)} masks have no image ({', '.join(SUFFIXES)}): {orphans[0]}", "image-missing")
    return list(files.values())


def _matches(source: SourceFiles, text: str) -> Iterator[tuple[str, dict[str, str]]]:
    for name, match in source.find(pattern(text)):
        yield name, match.groupdict()


def _mask(file: str, label: str, prompt: tuple[str, ...], classes: Classes | None) -> Mask:
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


def _split(name: str, image: str) -> str:
    if name.lower() not in SPLIT_NAMES:
        raise UserError(f"{image} is of the split {name!r}{nearest(name, SPLIT_NAMES)}", "unknown-split")
    return SPLIT_NAMES[name.lower()]
