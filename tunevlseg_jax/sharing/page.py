"""The page of a shared run: README.md with the metadata that the Hugging Face hub reads."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from tunevlseg_jax.data.builders.catalogue import PUBLIC
from tunevlseg_jax.data.registry import SCENES
from tunevlseg_jax.pretrained.load import EMBEDDED, local_folder
from tunevlseg_jax.pretrained.model import MODEL_CONFIG_FILE
from tunevlseg_jax.runs.locate import is_on_hub
from tunevlseg_jax.runtime.files import read_object
from tunevlseg_jax.sharing.pictures import Picture
from tunevlseg_jax.sharing.scores import Score

LIBRARY, TASK = "tunevlseg_jax", "image-segmentation"
PAPER = "https://arxiv.org/abs/2410.05239"


@dataclass(frozen=True)
class Base:
    """The base model of a run.

    Attributes:
      name: as in the shared card.
      hub_id: of the published model; None where there is none or it is unknown.
      origin: where its weights are from, in words.
    """

    name: str
    hub_id: str | None
    origin: str


def base_model(checkpoint: str, name: str) -> Base:
    """The base model of a checkpoint, whose name in the shared card is `name`."""
    folder = local_folder(checkpoint)
    if folder is None:
        return Base(name, checkpoint, "on the Hugging Face hub, from where it is downloaded")
    if folder.parent == EMBEDDED:
        return Base(name, None, "in the package, so nothing is downloaded")
    source = read_object(folder / MODEL_CONFIG_FILE).get("source")
    made, origin = (source.get(key) for key in ("made by", "checkpoint")) if isinstance(source, dict) else (None, None)
    published = origin if isinstance(origin, str) and is_on_hub(origin) else None
    place = "a folder of your own: give it as `--checkpoint FOLDER`, or `checkpoint=` in Python"
    if made and published:
        place += f". `python -m {made} --checkpoint {published} --output FOLDER` makes it"
    return Base(name, published, place)


def page(
    name: str,
    card: Mapping[str, Any],
    learner: str,
    parameters: int,
    base: Base,
    scores: Sequence[Score],
    phrases: Sequence[str],
    pictures: Sequence[Picture],
    licence: str | None,
    data_licence: str | None,
) -> str:
    """The text of README.md.

    Args:
      name: the hub id.
      card: the shared card.
      learner: name of the learner.
      parameters: number of learnt values.
      base: the base model.
      scores: of the run, its own set first.
      phrases: what the run was asked for in training.
      pictures: of the run at work.
      licence: of the learnt prompts, as the hub names it.
      data_licence: of the data set, in words; None takes the set's own where it is known.
    """
    data = card["config"]["data"]["name"]
    phrase = phrases[0] if phrases else "the object"
    command = f"python -m tunevlseg_jax.predict --run {name} --image image.png --prompt {shlex.quote(phrase)}"
    sections = (
        f"---\n{_metadata(name, data, learner, base, scores, licence)}\n---",
        f"# {name}",
        f"{learner} for `{data}`: {parameters:,} learnt values that adapt the frozen {base.name} to these images. They "
        f"were trained with {card.get('made_by', LIBRARY)} ([TuneVLSeg]({PAPER})).",
        *(f"![{one.phrase}]({one.path})" for one in pictures),
        *(["Each picture is a test image, and beside it the mask that the run draws."] if pictures else []),
        f"## Use\n\nWith {LIBRARY} installed:\n\n```\n{command}\n```",
        f'```python\nimport tunevlseg_jax as tv\n\nrun = tv.load_run("{name}")\n'
        f'mask = run.predict("image.png", {json.dumps(phrase, ensure_ascii=False)})\n```',
        f"The base model is {base.origin}. Its weights must have the sha256 `{card['model_sha256']}`; loading another "
        "model is an error.",
        f"## Scores\n\n{_table(scores)}",
        f"## Data\n\n{_about_data(card, data, phrases, data_licence)}",
        f"## Training\n\n{_about_training(card)}",
        f"## Licence\n\n{licence or 'No licence was given. Ask the owner before you use the prompts.'}",
        "The scores hold for images like those of the test split. Check the masks on your own images before you rely "
        "on them; this is no medical device.",
    )
    return "\n\n".join(sections) + "\n"


def _metadata(name: str, data: str, learner: str, base: Base, scores: Sequence[Score], licence: str | None) -> str:
    """The metadata in YAML."""
    results = [
        EvalResult(
            task_type=TASK,
            dataset_type=score.data,
            dataset_name=score.data,
            dataset_split=score.split,
            metric_type=kind,
            metric_name=label,
            metric_value=round(value, 4),
        )
        for score in scores
        for kind, label, value in (("dice", "Dice", score.dice), ("iou", "IoU", score.iou))
    ]
    given = {"license": licence, "base_model": base.hub_id, "eval_results": results or None}
    return ModelCardData(
        library_name=LIBRARY,
        pipeline_tag=TASK,
        tags=["prompt-tuning", "vision-language-segmentation", learner.lower().replace(" ", "-"), "arxiv:2410.05239"],
        datasets=[data],
        model_name=name.rpartition("/")[2],
        **{key: value for key, value in given.items() if value is not None},
    ).to_yaml()


def _table(scores: Sequence[Score]) -> str:
    if not scores:
        return "The run's card has no scores."
    head = "| data | split | records | units | Dice | 95 % interval | IoU | Dice without tuning |\n"
    lines = [head + "| :-- | :-- | --: | --: | --: | :-: | --: | --: |"]
    for score in scores:
        interval = "" if score.interval is None else "{:.4f} to {:.4f}".format(*score.interval)
        before = "" if score.zero_shot is None else f"{score.zero_shot:.4f}"
        counts = ("" if number is None else f"{number:,}" for number in (score.records, score.units))
        cells = (score.data, score.split, *counts, f"{score.dice:.4f}", interval, f"{score.iou:.4f}", before)
        lines.append(f"| {' | '.join(cells)} |")
    note = "Dice is a mean over records, IoU one ratio over all pixels. Units are patients, videos or images."
    return "\n".join(lines) + f"\n\n{note}"


def _about_data(card: Mapping[str, Any], data: str, phrases: Sequence[str], licence: str | None) -> str:
    """The data set, its licence, its phrases and its fingerprints."""
    if licence is None and data in PUBLIC:
        licence = f"{PUBLIC[data].licence} ({PUBLIC[data].homepage})"
    if licence is None and data in SCENES:
        licence = "made by the package, Apache-2.0"
    lines = [f"- Data set: `{data}`", f"- Licence of the data: {licence or 'not given'}"]
    if phrases:
        lines.append(f"- Phrases: {', '.join(f'`{phrase}`' for phrase in phrases)}")
    splits = ((split, card.get("data", {}).get(split)) for split in ("train", "val", "test"))
    lines += [f"- sha256 of the {split} records: `{digest}`" for split, digest in splits if digest]
    return "\n".join(lines)


def _about_training(card: Mapping[str, Any]) -> str:
    protocol, computed = card.get("protocol", {}), card.get("computed", {})
    height, width = protocol.get("image_size", ("?", "?"))
    lines = [
        f"- Image size: {height}x{width} pixels",
        f"- Augmentation: {protocol.get('augmentation', 'unknown')}",
        f"- Selected by: {protocol.get('selected_by', 'unknown')}, epoch {card.get('best_epoch', 'unknown')}",
        f"- Precision: {computed.get('precision', 'float32')}",
    ]
    return "\n".join(lines) + "\n\n`card.json` has the whole configuration."
