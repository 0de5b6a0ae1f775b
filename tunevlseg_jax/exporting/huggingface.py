"""Hugging Face's folder of a run, where its format can hold what the run learnt."""

from pathlib import Path

from tunevlseg_jax.config import Config
from tunevlseg_jax.learners import LoRA
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.models.sam3 import SAM3Config
from tunevlseg_jax.pretrained import clipseg_folder, sam3_folder
from tunevlseg_jax.pretrained.model import MODEL_CONFIG_FILE, Pretrained
from tunevlseg_jax.runs.card import load_learnt
from tunevlseg_jax.runs.trained_model import load as load_trained
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import atomic_files

SAVE = {CLIPSegConfig: clipseg_folder.save, SAM3Config: sam3_folder.save}
"""Writes the folder of a model, by the class of its sizes."""


def write(output: Path, run: Path, checkpoint: str | None) -> Pretrained:
    """Writes a folder that transformers reads, whole or not at all, and returns the model in it.

    Raises:
      UserError: the run learnt what the format can't hold, its model has no such format, or it can't be read.
    """
    config, learnt, _ = load_learnt(run)
    _check(run, config, sorted(learnt))
    model = load_trained(run, checkpoint)
    save = SAVE.get(type(model.config))
    if save is None:
        raise UserError(
            f"{type(model.config).__name__.removesuffix('Config')} has no Hugging Face format; take stablehlo or onnx",
            "wrong-model",
        )
    source = {"made by": "tunevlseg_jax.export", "run": run.resolve().name, "sha256": model.sha256}
    with atomic_files(output, last=MODEL_CONFIG_FILE) as folder:
        save(folder, model, source)
    return model


def _check(run: Path, config: Config, names: list[str]) -> None:
    """Raises a UserError that names what the format can't hold."""
    beside = [name for name in names if not name.startswith("model/")]
    if not beside:
        return
    if isinstance(config.learner, LoRA) and all(name.startswith("learner/") for name in names):
        hint = f"merge it: python -m conversion.peft --run {run} --merge --output FOLDER"
    elif all(name.startswith("upsampler/") for name in beside):
        hint = "train with --upsampling none"
    else:
        hint = "take stablehlo or onnx"
    what = config.learner.name if any(name.startswith("learner/") for name in beside) else "upsampler"
    raise UserError(
        f"{run} learnt {beside[0]} ({what}), which a Hugging Face folder can't hold; {hint}", "not-convertible"
    )
