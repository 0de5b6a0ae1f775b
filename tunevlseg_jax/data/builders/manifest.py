"""Images and masks that a manifest lists, one mask a row."""

from pathlib import Path, PurePosixPath

from tunevlseg_jax.data.builders import tables
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.matching import SPLIT_NAMES
from tunevlseg_jax.data.builders.tables import Row
from tunevlseg_jax.data.builders.user_files import ImageFiles, Mask
from tunevlseg_jax.runtime.errors import UserError, nearest

COLUMNS = ("image", "mask", "prompt")


def find(path: Path, source: SourceFiles) -> list[ImageFiles]:
    """The images of a manifest: image, mask and prompt, and if given split, class and group.

    Raises:
      UserError: as in `tables.rows`; a file isn't in the source, a mask is listed twice, or an image's its rows have
        different splits or groups, or different prompts for one class. The message names the row.
    """
    images: dict[str, ImageFiles] = {}
    for row in tables.rows(path, COLUMNS):
        image, mask = _file(row, "image", source), _file(row, "mask", source)
        prompts = row.phrasings("prompt")
        if not prompts:
            raise UserError(f"{row.where} has no prompt", "empty-prompt")
        label = row.optional("class") or prompts[0]
        group, split = row.optional("group"), _split(row)
        files = images.setdefault(image, ImageFiles(image, image, (), group, split))
        if (files.group, files.split) != (group, split):
            raise UserError(f"{row.where} has another split or group for {image} than an earlier row", "rows-disagree")
        for other in (other for other in files.masks if other.label == label):
            if other.file == mask:
                raise UserError(f"{row.where} gives {image} the {label!r} mask {mask} again", "duplicate-mask")
            if other.prompts != prompts:
                raise UserError(
                    f"{row.where} gives the class {label!r} of {image} other prompts than an earlier row; masks of "
                    "one class are joined, so give each class a name of its own in the column class",
                    "rows-disagree",
                )
        images[image] = ImageFiles(image, image, (*files.masks, Mask(mask, label, prompts)), group, split)
    return list(images.values())


def _file(row: Row, column: str, source: SourceFiles) -> str:
    name = row.text(column).replace("\\", "/")
    if name.startswith("/") or ".." in PurePosixPath(name).parts or ":" in PurePosixPath(name).parts[0]:
        raise UserError(f"{row.where} names the {column} {name!r}, which is outside the source", "outside-source")
    name = "/".join(part for part in PurePosixPath(name).parts)
    if name not in source:
        raise UserError(f"{row.where} names the {column} {name!r}, which {source} lacks", "no-such-file")
    return name


def _split(row: Row) -> str:
    split = row.optional("split").lower()
    if split and split not in SPLIT_NAMES:
        raise UserError(f"{row.where} has the split {split!r}{nearest(split, SPLIT_NAMES)}", "unknown-split")
    return SPLIT_NAMES.get(split, "")
