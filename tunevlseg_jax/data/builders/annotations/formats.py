"""Recognises the annotation format of a source, and reads its images."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from tunevlseg_jax.data.builders import user_files
from tunevlseg_jax.data.builders.annotations import (
    coco,
    cvat,
    documents,
    dsb,
    label_studio,
    label_studio_png,
    labelme,
    supervisely,
    voc,
    yolo,
)
from tunevlseg_jax.data.builders.annotations.image_names import ImageNames
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.tables import BACKGROUND, Classes
from tunevlseg_jax.data.builders.user_files import ImageFiles, Load, Negatives
from tunevlseg_jax.data.mask_values import BinaryRule
from tunevlseg_jax.runtime.errors import UserError, nearest

Format = Literal["coco", "labelme", "cvat", "labelstudio", "yolo", "voc", "supervisely", "dsb"]
TITLES: Mapping[str, str] = {
    "coco": "COCO JSON",
    "labelme": "LabelMe JSON",
    "cvat": "CVAT XML",
    "labelstudio": "Label Studio",
    "yolo": "YOLO segmentation",
    "voc": "Pascal VOC",
    "supervisely": "Supervisely",
    "dsb": "a folder for each image, with masks/",
}
BROKEN = "broken"
JSON = ("coco", "labelme", "labelstudio", "supervisely")


class Annotated(NamedTuple):
    """The annotated images of a source.

    Attributes:
      about: what was recognised, and what was left out, in a sentence for the user.
      files: the images; their prompts are the class names.
      load: reads label maps; None where each mask is of one class.
    """

    about: str
    files: list[ImageFiles]
    load: Load | None = None


def found(source: SourceFiles) -> dict[str, Any]:
    """The formats of which the source has annotation files, and these as their modules take them.

    Raises:
      UserError: a file has the start of one of these formats, but is broken.
    """
    sorted_documents = documents.documents(source)
    others = {
        "cvat": cvat.documents(source),
        "yolo": yolo.documents(source),
        "voc": voc.documents(source),
        "dsb": dsb.documents(source),
    }
    by_format: dict[str, Any] = {kind: sorted_documents[kind] for kind in JSON if sorted_documents[kind]}
    by_format |= {kind: given for kind, given in others.items() if given}
    if "labelstudio" not in by_format and (masks := label_studio_png.documents(source)):
        by_format["labelstudio"] = masks
    if sorted_documents[BROKEN] and by_format.keys() <= set(JSON):
        by_format[BROKEN] = sorted_documents[BROKEN]
    return by_format


def choose(formats: Mapping[str, Any], wanted: Format | None, source: SourceFiles) -> str | None:
    """The format to read: the wanted one, else the only one; None if there is none.

    Raises:
      UserError: the wanted one isn't there, there are several, or a JSON file is broken.
    """
    there = [format for format in formats if format != BROKEN]
    if wanted is not None and wanted in there:
        there = [wanted]
    if BROKEN in formats and (wanted is None or wanted in JSON):
        name, error = formats[BROKEN][0]
        raise UserError(f"can't read {name}: {error}", "unreadable")
    if wanted is not None and wanted not in there:
        known = f"; there is {', '.join(there)}" if there else ""
        raise UserError(f"{source} has no annotations of --format {wanted}{known}", "no-annotations")
    if len(there) > 1:
        raise UserError(
            f"{source} has annotations of several formats: {', '.join(there)}; choose one by --format",
            "ambiguous-format",
        )
    return there[0] if there else None


def file(path: Path, source: SourceFiles) -> tuple[str, list[documents.Document]] | None:
    """The format and content of an annotation file on its own, which may lie outside of the source; None for others."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    inside = next(
        (path.resolve().relative_to(at.resolve()).as_posix() for at in source.paths if _within(path, at)), None
    )
    kind, document = documents.parse(inside or path.name, path.read_bytes())
    return (kind, [document]) if kind in ("coco", "labelme", "labelstudio") else None


def _within(path: Path, folder: Path) -> bool:
    return folder.is_dir() and path.resolve().is_relative_to(folder.resolve())


def read(
    format: str,
    content: Any,
    source: SourceFiles,
    prompt: Sequence[str],
    classes: Classes | None,
    negatives: Negatives = "drop",
) -> Annotated:
    """The annotated images of a format, asked for by the names of their classes or as --prompt or --classes say.

    Annotated images without an object are left out, or have an empty mask of every class if `negatives` are kept.

    Raises:
      UserError: an annotation is broken, an image is missing or annotated twice, or the prompts don't fit the classes.
    """
    if format == "voc":
        return _label_maps(content, source, classes, negatives)
    files, left_out = _files(format, content, source, prompt)
    files = _named([_without_background(image) for image in files])
    labels = sorted({mask.label for image in files for mask in image.masks})
    if not labels:
        raise UserError(f"{source} has {TITLES[format]} annotations, but none has an object", "no-objects")
    prompts = _prompts(labels, prompt, classes)
    healthy = [image.image for image in files if not image.masks]
    kept = [_asked(image, prompts) for image in files if image.masks or negatives == "keep"]
    shown = f"{', '.join(labels[:5])}{', …' if len(labels) > 5 else ''}"
    notes = f"{len(files) - len(healthy)} images with {shown}{_left_out(left_out, 'annotations')}"
    if negatives == "keep":
        notes += f"; {len(healthy)} without an object have an empty mask of each class" * bool(healthy)
    else:
        notes += _left_out(healthy, "an object") + " (--negatives keep gives them empty masks)" * bool(healthy)
    return Annotated(f"{TITLES[format]} (recognised): {notes}", kept)


def _files(format: str, content: Any, source: SourceFiles, prompt: Sequence[str]) -> tuple[list[ImageFiles], list[str]]:
    """The images of a format, and the names of those without annotations."""
    names = ImageNames(source)
    match format:
        case "coco":
            chosen, left_out = coco.chosen(content)
            return list(coco.read(chosen, names)), left_out
        case "labelme":
            return list(labelme.read(content, names)), []
        case "cvat":
            return list(cvat.read(content, names)), []
        case "supervisely":
            return list(supervisely.read(content, names)), []
        case "yolo":
            return yolo.read(content, source, names)
        case "dsb":
            if not prompt:
                raise UserError(
                    "a folder for each image with masks/ has no class names; give --prompt", "missing-option"
                )
            return dsb.read(content, prompt)
        case _:
            if isinstance(content, dict):
                return label_studio_png.read(content, source), []
            return label_studio.read(content, names)


def _label_maps(
    content: voc.Documents, source: SourceFiles, classes: Classes | None, negatives: Negatives
) -> Annotated:
    """Images with a label map each, by VOC's own table of classes or by --classes."""
    files, left_out = voc.read(content, source)
    if classes is not None and (classes.values or classes.colours):
        encoding = "colour" if classes.colours else "palette"
    else:
        encoding, own = voc.classes(content, source)
        prompts = _prompts(sorted(own.named), (), classes)
        named = {label: dataclasses.replace(cls, prompts=prompts[label]) for label, cls in own.named.items()}
        classes = dataclasses.replace(own, named=named)
    load = partial(user_files.coded, encoding=encoding, classes=classes, rule=BinaryRule(), negatives=negatives)
    about = f"{TITLES['voc']} (recognised): {len(files)} images{_left_out(left_out, 'a mask or a place in a list')}"
    return Annotated(about, _named(files), load)


def _left_out(names: Sequence[str], lacking: str) -> str:
    """The end of a sentence that counts what was left out for the lack of something."""
    return f"; left out {len(names)} without {lacking}, such as {names[0]}" if names else ""


def _named(files: Iterable[ImageFiles]) -> list[ImageFiles]:
    """The images with ids of their own: names without folders where these are distinct."""
    files = list(files)
    seen: set[str] = set()
    for image in files:
        if image.image in seen:
            raise UserError(f"{image.image} is annotated twice; give one of its annotations", "duplicate-image")
        seen.add(image.image)
    paths = [str(PurePosixPath(image.image).with_suffix("")) for image in files]
    stems = [path.rpartition("/")[2] for path in paths]
    ids = stems if len(set(stems)) == len(stems) else paths
    ids = ids if len(set(ids)) == len(ids) else [image.image for image in files]
    return [dataclasses.replace(image, id=id) for image, id in zip(files, ids, strict=True)]


def _without_background(image: ImageFiles) -> ImageFiles:
    return dataclasses.replace(
        image, masks=tuple(mask for mask in image.masks if mask.label.lower() not in (BACKGROUND, "_background_"))
    )


def _prompts(labels: Sequence[str], prompt: Sequence[str], classes: Classes | None) -> dict[str, tuple[str, ...]]:
    """The phrasings of each class."""
    if prompt:
        if len(labels) > 1:
            raise UserError(
                f"--prompt is one for all of the classes {', '.join(labels)}; reword them with --classes",
                "options-conflict",
            )
        return {labels[0]: tuple(prompt)}
    if classes is None:
        return {label: (label,) for label in labels}
    if unknown := [label for label in labels if label not in classes.named]:
        raise UserError(f"--classes lacks {unknown[0]!r}{nearest(unknown[0], classes.named)}", "unknown-class")
    return {label: classes.named[label].prompts for label in labels}


def _asked(image: ImageFiles, prompts: Mapping[str, tuple[str, ...]]) -> ImageFiles:
    """The image with its prompts, and with an empty mask of every class if it has no object."""
    if not image.masks:
        return user_files.healthy(image, prompts)
    masks = tuple(mask._replace(prompts=prompts[mask.label]) for mask in image.masks)
    return dataclasses.replace(image, masks=masks)
