"""The layout of a folder of the user's own: an annotation format, a manifest, or patterns of images and masks."""

from collections.abc import Sequence
from functools import partial

from tunevlseg_jax.data.builders import layouts, manifest, matching, medvlsm, tables, user_files
from tunevlseg_jax.data.builders.annotations import formats, yolo
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.items import Item
from tunevlseg_jax.data.builders.user_files import ImageFiles, binary, coded
from tunevlseg_jax.data.mask_values import BinaryRule
from tunevlseg_jax.data.seen_encodings import SeenEncodings
from tunevlseg_jax.preparation import split_hints
from tunevlseg_jax.preparation.folder_options import Folder
from tunevlseg_jax.runtime.errors import UserError


def folder_items(options: Folder, source: SourceFiles, seen: SeenEncodings) -> tuple[str, list[Item]]:
    """The name of the source's layout, and its images; `seen` notes the values of binary masks when they're read.

    Raises:
      UserError: options contradict each other, or a file is missing or broken.
    """
    rule = BinaryRule(options.threshold, options.invert, options.ignore_value)
    load = partial(binary, rule=rule, seen=seen)
    if (annotated := _annotated(options, source, load)) is not None:
        return annotated
    if options.manifest is not None:
        about, files = manifest.find(options.manifest, source, options.negatives)
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
        negatives = options.negatives if options.encoding == "binary" else "drop"  # label maps hold theirs
        found = matching.find(
            source, images, masks, options.prompt, classes, use_splits=use_splits, negatives=negatives
        )
    except UserError as error:
        raise _with_formats(error, source) from error
    notes = [*found.notes, *split_hints.hints(found.files, images, masks, source)]
    return _items(options, "\n".join([f"{images} and {masks}", *notes]), found.files, source, load)


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
            yolo.check_named(source)
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
    splits, files = user_files.with_splits(files, options.splits, source)
    return f"{about}\nsplits: {splits}", user_files.items(files, source, load)


def _check_unset(options: Folder, annotations: str) -> None:
    """Raises a UserError for an option that medvlsm's annotations determine."""
    determined = "encoding", "prompt", "classes", "splits", "fractions", "negatives"
    if given := [f"--{name}" for name in determined if getattr(options, name) != getattr(Folder, name)]:
        raise UserError(
            f"{annotations} has the prompts and splits of binary masks; leave {', '.join(given)} out, "
            "or give --images and --masks to match by names",
            "options-conflict",
        )
