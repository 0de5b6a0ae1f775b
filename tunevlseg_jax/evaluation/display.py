"""The tables of an evaluation on a terminal, and the notes below them."""

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tunevlseg_jax.evaluation.calibration import CALIBRATED, TEMPERATURES
from tunevlseg_jax.evaluation.corruptions import KINDS, STRENGTHS
from tunevlseg_jax.evaluation.evaluate_run import EvaluationResult
from tunevlseg_jax.evaluation.settings import Resolution

REGIONS = {
    "dice": "Dice",
    "iou": "IoU\nof set",
    "sample_iou": "IoU",
    "volumetric_similarity": "vol.\nsim.",
    "lesion_recall_pooled": "lesion\nrecall",
    "lesion_precision_pooled": "lesion\nprec.",
    "lesion_f1_pooled": "lesion\nF1",
}
"""Headers of the first table's columns."""
ABSENT = {
    "multi_class_iou": "multi\nIoU",
    "false_positive_rate": "false\npos.",
    "absent_false_lesions_per_image": "false les.\n/ image",
    "presence_auroc": "presence\nAUROC",
}
"""Headers of the columns of the table of `--ask-absent`."""
OUTLINES = {
    "hd95_both_nonempty": "HD95 px",
    "hd95_px_or_diagonal": "HD95 px\nor diag.",
    "assd_px": "ASSD px",
    "hd95_mm": "HD95 mm",
    "hd95_mm_or_diagonal": "HD95 mm\nor diag.",
    "assd_mm": "ASSD mm",
    "surface_dice_2px": "sDice\n2 px",
    "nsd": "NSD",
}
"""Headers of the columns of the table of outlines."""
PIXELS = {
    "ece": "calibration error",
    "brier": "Brier",
    "nll": "log-likelihood loss",
    "ece_balanced": "balanced: calibration error",
    "brier_balanced": "Brier",
    "nll_balanced": "log-likelihood loss",
}
"""Names of the scores of calibration."""
VOLUMES = {
    "volume_dice": "Dice",
    "volume_hd95_mm": "HD95 mm",
    "volume_hd95_mm_or_diagonal": "HD95 mm\nor diag.",
    "volume_assd_mm": "ASSD mm",
    "volume_nsd_mm": "NSD mm",
    "volume_lesion_f1_pooled": "lesion\nF1",
}
"""Headers of the columns of the table of volumes."""


def regions(title: str, resolution: Resolution, threshold: float, result: EvaluationResult) -> Table:
    """The scores of pixels and lesions, of each class and of all."""
    caption = (
        f"At {result.size} pixels ({resolution}), threshold {threshold:g}. Dice, IoU, volumetric similarity: means "
        "over n records, 1 where both masks are empty. IoU of set: one ratio over all pixels. Lesions: connected "
        "parts, matched where their IoU is over 0.1; one ratio over all lesions."
    )
    return _table(Table(title=title, caption=caption), REGIONS, result)


def absent(result: EvaluationResult) -> Table:
    """The scores of asking every image for every class, of each class and of all."""
    caption = (
        "Multi IoU: each pixel goes to its likeliest class, or to the background. False pos.: of the images that don't "
        "show a class, the share in which any pixel is marked. False les. / image: the connected parts of what is "
        "marked there, over all images."
    )
    return _table(Table(title="every image asked for every class", caption=caption), ABSENT, result)


def outlines(tolerance: float, result: EvaluationResult) -> Table:
    """The scores of outlines, of each class and of all."""
    caption = (
        "HD95, ASSD (average symmetric surface distance): means over the records where neither mask is empty. HD95 or "
        "diagonal: over all, the image's diagonal where one mask is empty. sDice 2 px, NSD: the shares of outlines "
        f"within 2 pixels, and within {tolerance:g} mm where the spacing is known, else {tolerance:g} pixels."
    )
    return _table(Table(title="outlines", caption=caption), OUTLINES, result)


def corruptions(scores: Mapping[str, Any]) -> Table:
    """Dice by kind of corruption and strength."""
    caption = f"Clean images: {scores['clean']:.4f}. Mean over kinds and strengths: {scores['corrupted']:.4f}."
    table = Table(title="Dice on corrupted images", caption=caption)
    for header in ("", *map(str, range(1, STRENGTHS + 1)), "mean"):
        table.add_column(header, justify="right" if header else "left")
    for kind in KINDS:
        table.add_row(kind, *map(shown, scores[kind]), shown(sum(scores[kind]) / len(scores[kind])))
    return table


def phrases(scores: Mapping[str, Any]) -> Table:
    """Dice over paraphrases, of each class and of all."""
    table = Table(title="Dice over paraphrases", caption="Spread: the best paraphrase minus the worst.")
    for header in ("", "phrases", "mean", "worst", "spread", "worst phrase"):
        table.add_column(header, justify="right" if header in ("phrases", "mean", "worst", "spread") else "left")
    for name, row in scores["classes"].items():
        values = (shown(row[score]) for score in ("mean", "worst", "spread"))
        each = row["phrases"]
        table.add_row(Text(name), str(len(each)), *values, Text(min(each, key=each.__getitem__)))
    table.add_row("all", "", *(shown(scores[score]) for score in ("mean", "worst", "spread")), "")
    return table


def _table(table: Table, columns: Mapping[str, str], result: EvaluationResult) -> Table:
    rows, names = result.rows, [name for name in columns if name in result.rows[0]]
    table.add_column("")
    table.add_column("n", justify="right")
    for name in names:
        table.add_column(columns[name], justify="right")
    everything = {"class": "all", "multi_class_iou": result.scores.get("miou")} | dict(result.scores)
    for row in (*(rows if len(rows) > 1 else ()), everything):
        cells = (row.get(name) for name in names)
        table.add_row(row["class"], str(row["records"]), *map(shown, cells))
    return table


def print_calibration(
    console: Console, scores: Mapping[str, Any], temperature: float, fitted: Mapping[str, Any] | None
) -> None:
    """Prints the scores of calibration, and the temperature that was just `fitted`."""
    if fitted is not None:
        limit = ", a limit of the fit" * any(math.isclose(temperature, end, rel_tol=1e-3) for end in TEMPERATURES)
        console.print(
            f"temperature {temperature:.4f}{limit}, fitted on {fitted['data']}, {fitted['split']}: negative "
            f"log-likelihood {fitted['nll_before']:.4f} before, {fitted['nll_after']:.4f} after; kept in the card",
            soft_wrap=True,
        )
    if "ece" not in scores:
        return
    ends = {"": "temperature 1"} | ({CALIBRATED: f"temperature {temperature:.4f}"} if temperature != 1 else {})
    for end, name in ends.items():
        values = (f"{header} {shown(scores[score + end])}" for score, header in PIXELS.items())
        console.print(f"pixels, {name}: {', '.join(values)}", soft_wrap=True)


def print_volumes(console: Console, result: EvaluationResult) -> None:
    """Prints the scores of whole volumes, and which slices they are over."""
    if result.volumes is not None and result.volumes.samples:
        table = Table(title="whole volumes, in three dimensions")
        for header in ("", "volumes", *VOLUMES.values()):
            table.add_column(header, justify="right" if header else "left")
        everything: dict[str, Any] = {"class": "all"} | result.scores
        for row in (*(result.rows if len(result.rows) > 1 else ()), everything):
            cells = (shown(row[name]) for name in VOLUMES)
            table.add_row(row["class"], str(row["volumes"]), *cells)
        console.print(table)
    if result.volume_note:
        console.print(f"note: {result.volume_note}", soft_wrap=True)


def shown(value: float | None) -> str:
    """A score as text; "-" if it is undefined."""
    return "-" if value is None else f"{value:.4f}" if value < 10 else f"{value:.1f}"


def print_notes(console: Console, scores: Mapping[str, Any]) -> None:
    """Prints the scores that the table doesn't show."""
    console.print(
        f"{scores['empty_targets']} records have an empty mask, {scores['empty_predictions']} an empty prediction; "
        f"HD95 is undefined for {scores['hd95_undefined']}",
        soft_wrap=True,
    )
    if "miou" in scores:
        mean, background = (shown(scores[name]) for name in ("miou", "miou_with_background"))
        console.print(
            f"multi IoU: mean over classes {mean}, with the background {background}",
            soft_wrap=True,
        )
        if "presence_auroc" in scores:
            auroc, true, false = (shown(scores[f"presence_{name}"]) for name in ("auroc", "true_rate", "false_rate"))
            console.print(
                f"presence: the model's probability that a class is there at all; AUROC {auroc}; over 0.5 in {true} of "
                f"the records whose class is there, and in {false} of those whose class is absent",
                soft_wrap=True,
            )
        if scores["classes_overlap"]:
            console.print(
                "note: classes overlap here, so one class per pixel can't be right everywhere", soft_wrap=True
            )
