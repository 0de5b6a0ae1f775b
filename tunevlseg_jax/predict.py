"""Draws masks of what a prompt names: `python -m tunevlseg_jax.predict --run runs/x --image a.jpg --prompt polyp`."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import rich.table
import tyro
from rich.console import Console

from tunevlseg_jax import cli
from tunevlseg_jax.data import windows
from tunevlseg_jax.data.builders.arrays import check_prompt, check_prompts
from tunevlseg_jax.data.medical import inputs
from tunevlseg_jax.data.medical.inputs import ScanInput
from tunevlseg_jax.data.windows import Window
from tunevlseg_jax.evaluation.settings import check_threshold
from tunevlseg_jax.models.settings import Masks
from tunevlseg_jax.prediction import coco, folder, names, planning, table, walk
from tunevlseg_jax.prediction.coco import CocoFile
from tunevlseg_jax.prediction.frames import KNOWN, ranges_of
from tunevlseg_jax.prediction.overlay import OverlayVideos
from tunevlseg_jax.prediction.planning import Settings
from tunevlseg_jax.prediction.table import Table
from tunevlseg_jax.prediction.walk import Found, LeftOut
from tunevlseg_jax.runtime import exchange, multihost, progress_bar
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.multihost import Cluster

if TYPE_CHECKING:
    from tunevlseg_jax.prediction.session import Session
    from tunevlseg_jax.run import Run

SHOWN = 100
"""Masks in the printed table."""
NAMED = 10
"""Files that are named for each reason why they are left out, and files that can't be read."""


@dataclass(frozen=True)
class Options:
    """The run, the images and the prompts.

    Attributes:
      run: folder of the run, or a hub id such as owner/name.
      image: image files, folders of them, patterns such as "scans/*.png", or "-" for an image on standard input. The
        endings are those of JPEG, PNG, TIFF, BMP, WebP, GIF and HEIC (with the extra `heic`), and of videos.
      prompt: the name of the object, such as "polyp". Several names give a mask each and a label map, in which a pixel
        belongs to the likeliest of them. A "|" is a part of the name: give one of a class's phrasings.
      output: folder for the masks, which may hold earlier masks: they stay, and so does any other file.
      threshold: probability above which a pixel belongs to the mask.
      recursive: whether subfolders are walked; their masks come into subfolders of the same names.
      frames: of a GIF, a video or a TIFF of several pages: "first", or "all".
      probabilities: also writes the probability of each pixel: "png" (the default) as a PNG of 16 bits, in which 65535
        is 1; "npy" as float32. Those of a volume are a float32 volume of the mask's format, with either.
      format: also writes all masks as one COCO JSON file for annotation tools: "coco" (with the extra `annotations`).
      spacing: height and width of a pixel in millimetres, or one number for both, for areas in mm². Medical files say
        it themselves.
      checkpoint: the base model's new place, if it has moved since training.
      dicom_seg: also writes the masks of DICOM series as DICOM SEG files, which repeat the patient's tags.
      window: for images of more than 8 bits, LOW HIGH (the values that become black and white), or "percentile" (of
        each image). None: the window of the run's data set; where it had none, one for all images given, the range of
        the fewest of 8, 10, 12, 14 and 16 bits that hold their values.
      masks: "semantic", one mask for what a prompt names; or "instances", the union of the instances that a SAM 3 finds
        with a score over 0.5, with a column of their presence in the table.
      cluster: how several processes find each other; the images and the output are in folders that all of them share.
    """

    run: str
    image: tuple[str, ...]
    prompt: tuple[str, ...]
    output: str = "predictions"
    threshold: float = 0.5
    recursive: bool = False
    frames: Literal["first", "all"] = "first"
    probabilities: tuple[Literal["png", "npy"], ...] | None = None
    format: tuple[Literal["coco"], ...] = ()
    spacing: tuple[float, ...] = ()
    checkpoint: str | None = None
    window: tuple[str, ...] = ()
    dicom_seg: bool = False
    masks: Masks = "semantic"
    cluster: Annotated[Cluster, tyro.conf.arg(name="")] = field(default_factory=Cluster)


def main() -> None:
    """Writes `NAME_mask.png`, at the image's size, and `NAME_overlay.png` for each image, and a table of them."""
    options = cli.options(Options, "python -m tunevlseg_jax.predict", __doc__ or "")
    prompts, spacing = _checked(options)
    window = windows.parse(options.window, dicom=True)
    output = Path(options.output)
    multihost.join(options.cluster)
    exchange.check_same(options)

    from tunevlseg_jax.prediction import volumes
    from tunevlseg_jax.run import load_run

    with contextlib.ExitStack() as held:
        with multihost.sync_errors():
            _check_passing(options.image)
            held.enter_context(folder.held(output))
            for each in (table.masks_of(output), table.label_maps_of(output), volumes.table_of(output)):
                if multihost.is_primary():
                    each.join_parts()
        with multihost.sync_errors():
            masks, maps = table.masks_of(output), table.label_maps_of(output)
            ours = planning.files_of(output, masks, maps)
            earlier = volumes.files_of(output)
            medical = inputs.find(options.image, recursive=options.recursive, ours=earlier, images=KNOWN)
            found, left_out = _images(options, output, medical, ours)
            files = _coco_files(options, output, medical.scans)
            if options.dicom_seg and not any(one.series for one in medical.scans):
                raise UserError("--dicom-seg needs a DICOM series; leave it out for other files", "options-conflict")
            run = load_run(options.run, checkpoint=options.checkpoint, masks=options.masks)
            run.predictor.check(prompts)
        Console(quiet=not multihost.is_primary()).print(f"computed in {run.computed}", soft_wrap=True)
        scan_window = window or run.preprocessing.window
        window = _window_of(found, scan_window)
        settings = Settings(
            prompts=prompts,
            threshold=options.threshold,
            run=options.run,
            run_sha256=run.predictor.fingerprint[:12],
            output=output,
            frames=options.frames,
            probabilities=_formats(options.probabilities),
            spacing=spacing,
            window=window,
        )
        _predict_scans(medical, settings, run, scan_window, seg=options.dicom_seg)
        if found:
            _predict_images(found, left_out, settings, run, masks, maps, files)


def _images(
    options: Options, output: Path, medical: inputs.Found, ours: set[Path]
) -> tuple[list[Found], list[LeftOut]]:
    """The files of --image that aren't medical, and what was left out."""
    if medical.scans and not medical.others:
        return [], []
    given = medical.others if medical.scans else options.image
    found, left_out = walk.find(given, recursive=options.recursive, output=output, ours=ours)
    return found, [one for one in left_out if inputs.kind_of(one.path) is None]


def _window_of(found: Sequence[Found], given: Window | None) -> Window | None:
    """The given window, or one for all images of more than 8 bits; says so if it leaves nearly one shade of some."""
    ranges = [] if isinstance(given, str) else ranges_of([one.path for one in found])
    window = given or (windows.default(windows.joined(one for _, one in ranges)) if ranges else None)
    if window is not None and (line := windows.flattened(ranges, window)):
        console = Console(quiet=not multihost.is_primary())
        console.print(f"warning: {line}", soft_wrap=True, markup=False, highlight=False)
    return window


def _check_passing(images: Sequence[str]) -> None:
    """Raises a UserError if several processes are given an image that can be read once."""
    for path in images if multihost.is_multiprocess() else ():
        if names.is_passing(path):
            raise UserError(f"--image {path} can be read once, by one process; give several a file", "one-process")


def _predict_images(
    found: Sequence[Found],
    left_out: Sequence[LeftOut],
    settings: Settings,
    run: Run,
    masks: Table,
    maps: Table,
    files: Sequence[CocoFile],
) -> None:
    """Predicts images and videos, and says so. Each process predicts its part of them.

    Raises:
      UserError: files can't be read; the others are predicted.
    """
    from tunevlseg_jax.prediction import shared
    from tunevlseg_jax.prediction.session import Session

    console = Console(quiet=not multihost.is_primary())
    with multihost.sync_errors():  # no process writes before all have planned
        plans = planning.plan(found, settings, masks, maps)
    own_masks, own_maps = masks.part(), maps.part()
    before = list(left_out) if multihost.is_primary() else []
    with OverlayVideos(settings.output) as videos:
        exports = [*files, *([videos] if settings.frames == "all" else [])]
        session = Session(run.predictor, settings, own_masks, own_maps, exports, before)
        own = exchange.block(plans)
        rows = session.run(progress_bar.track(own, "segmenting") if multihost.is_primary() else own)
        rows = shared.joined(rows, [masks, maps])
        _report(console, settings, len(found), rows, has_presence=run.masks == "instances")
    shared.join_notes(session)
    _print_notes(console, settings, masks, maps, session)
    with multihost.sync_errors():
        _raise_failures(session.failures)


def _predict_scans(medical: inputs.Found, settings: Settings, run: Run, window: Window | None, *, seg: bool) -> None:
    """Predicts volumes and DICOM series, slice by slice, and says so."""
    from tunevlseg_jax.prediction import volumes

    if not medical.scans:
        return
    console = Console(quiet=not multihost.is_primary())
    axis = run.preprocessing.axis
    for row in volumes.predict(medical.scans, settings, run.predictor, axis, window, seg=seg):
        shown = f"window {row['window']}" if row["window"] else "8 bits as they are"
        files = ", ".join(row[name] for name in volumes.FILES if row[name])
        console.print(f"{volumes.described(row)} ({shown}): {files}", soft_wrap=True, markup=False)
    console.print(
        f"volumes are predicted slice by slice; masks with the geometry of their volumes: {settings.output}, "
        f"listed in {settings.output / volumes.TABLE_FILE}",
        soft_wrap=True,
    )
    if count := medical.left_out:
        console.print(f"left out: {count} files beside them that are neither medical files nor images", soft_wrap=True)


def _checked(options: Options) -> tuple[tuple[str, ...], tuple[float, float] | None]:
    """The prompts, each once, and the spacing.

    Raises:
      UserError: an option is missing or out of range.
    """
    if not options.prompt:
        raise UserError("--prompt needs the name of the object", "missing-option")
    for prompt in options.prompt:
        check_prompt(prompt, "--prompt")
    check_threshold(options.threshold, "--threshold")
    prompts = check_prompts(dict.fromkeys(prompt.strip() for prompt in options.prompt))
    sizes = list(options.spacing)
    if len(sizes) > 2 or not all(0 < size < float("inf") for size in sizes):
        raise UserError(f"--spacing takes one or two numbers above 0, got {sizes}", "out-of-range")
    return prompts, (sizes[0], sizes[-1]) if sizes else None


def _coco_files(options: Options, output: Path, scans: Sequence[ScanInput]) -> list[CocoFile]:
    """The COCO file, if it is asked for.

    Raises:
      UserError: as in `CocoFile`, or there are volumes, whose masks are volumes.
    """
    if "coco" not in options.format:
        return []
    if scans:
        raise UserError("--format coco is for images; leave it out for series and volumes", "options-conflict")
    return [CocoFile(output)]


def _formats(given: Sequence[str] | None) -> tuple[str, ...]:
    """The formats of probabilities: none without the option, "png" for the option without a value."""
    return () if given is None else tuple(dict.fromkeys(given)) or ("png",)


def _report(
    console: Console, settings: Settings, images: int, rows: Iterable[dict[str, Any]], *, has_presence: bool
) -> None:
    """Predicts, and prints a table of the new masks, or of the first of them."""
    asked = ", ".join(map(repr, settings.prompts))
    report = rich.table.Table(title=f"{asked} in {images} image{'s' if images > 1 else ''}")
    columns = ("image", *(("prompt",) if len(settings.prompts) > 1 else ()), "size", "marked", "parts")
    columns += ("presence",) if has_presence else ()
    for column in (*columns, *(("mm²",) if settings.spacing else ())):
        report.add_column(column, justify="left" if column in ("image", "prompt") else "right")
    count = 0
    for count, row in enumerate(rows, 1):
        if count <= SHOWN:
            cells = {
                "image": f"{row['image']}" if row["frame"] is None else f"{row['image']} {row['frame']}",
                "prompt": row["prompt"],
                "size": f"{row['width']}x{row['height']}",
                "marked": f"{row['marked']:.1%}",
                "parts": str(row["components"]),
                "presence": "" if row["presence"] is None else f"{row['presence']:.4f}",
                "mm²": "" if row["area_mm2"] is None else f"{row['area_mm2']:.4g}",
            }
            report.add_row(*(cells[str(column.header)] for column in report.columns))
    if count:
        console.print(report)
    if count > SHOWN:
        console.print(f"and {count - SHOWN} more masks")


def _print_notes(console: Console, settings: Settings, masks: Table, maps: Table, session: Session) -> None:
    """Says what was written, kept, replaced and left out."""
    output = settings.output
    lines = [f"masks and overlays: {output}, listed in {masks.path}"] if masks.rows else []
    if (output / coco.FILE).exists():
        lines.append(f"COCO JSON: {output / coco.FILE}")
    if settings.label_question is not None and maps.rows:
        lines.append(f"label maps: {output}, their values in {maps.path}")
    if settings.window is not None:
        lines.append(f"values of images of more than 8 bits: {windows.described(settings.window)} (--window)")
    if session.kept:
        lines.append(f"masks that were there already and were kept: {session.kept}")
    if session.changed:
        reason = "their images or windows have changed, or files were missing"
        lines.append(f"masks that were written again, because {reason}: {session.changed}")
    for line in (*lines, *_reasons(session.left_out)):
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def _reasons(left_out: Sequence[LeftOut]) -> list[str]:
    """A line for each reason why files are left out."""
    ordered = sorted(left_out, key=lambda one: one.reason)
    lines = []
    for reason, group in itertools.groupby(ordered, key=lambda one: one.reason):
        files = [str(one.path) for one in group]
        more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
        lines.append(f"left out: {', '.join(files[:NAMED])}{more} ({reason})")
    return lines


def _raise_failures(failures: Sequence[UserError]) -> None:
    """Raises a UserError if files couldn't be read; it names the first of them."""
    if len(failures) == 1:
        raise failures[0]
    if failures:
        reasons = "; ".join(map(str, failures[:NAMED]))
        reasons += f"; and {len(failures) - NAMED} more" * (len(failures) > NAMED)
        raise UserError(f"{len(failures)} files can't be read: {reasons}", "unreadable") from failures[0]


if __name__ == "__main__":
    cli.run(main)
