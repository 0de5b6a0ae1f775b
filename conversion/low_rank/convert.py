"""The conversion of LoRAs to PEFT's folders, back, and into models."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from conversion import output
from conversion.low_rank import folder as adapter_folder
from conversion.low_rank.modules import Pair, from_modules, to_modules
from conversion.low_rank.options import PROGRAM, Options
from tunevlseg_jax.config import Config, Model
from tunevlseg_jax.learners import LoRA
from tunevlseg_jax.models.build import weight_shapes
from tunevlseg_jax.pretrained import clipseg_folder, rules
from tunevlseg_jax.pretrained.clipseg_folder import clipseg_config
from tunevlseg_jax.pretrained.clipseg_tensors import clipseg_rules
from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.pretrained.rules import ConversionError
from tunevlseg_jax.runs.card import CARD_FILE, LEARNT_FILE, make_card, save_learnt
from tunevlseg_jax.runs.locate import find_run
from tunevlseg_jax.runs.restore import restore
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import atomic_files, read_object, sha256
from tunevlseg_jax.training.build import model_image_size


def export_run(options: Options) -> Iterator[str]:
    """Writes PEFT's folder of a run, and yields a line that describes it.

    Raises:
      UserError: there is no such run, or it trained something else than a LoRA of a CLIPSeg.
    """
    path = Path(options.output)
    output.check(path, "an adapter", lambda folder: adapter_folder.made_by(folder) == PROGRAM)
    pairs, learner, model, base = _run(options)
    source = {"made by": PROGRAM, "run": output.portable(str(options.run)), "model sha256": model.sha256}
    with atomic_files(path, last=adapter_folder.CONFIG_FILE) as folder:
        adapter_folder.write(folder, pairs, learner, output.portable(base), source)
    yield f"wrote {path}: LoRA of {len(pairs)} linear layers of {base}, for PEFT on Hugging Face's CLIPSeg"


def merge_run(options: Options) -> Iterator[str]:
    """Writes a Hugging Face folder of a run's model with its LoRA added, and yields a line that describes it.

    Raises:
      UserError: as in `export_run`.
    """
    path = Path(options.output)
    output.check(path)
    pairs, _, model, _ = _run(options)
    merged = dataclasses.replace(
        model, weights=merge(pairs, model), sha256=sha256(find_run(str(options.run)) / LEARNT_FILE)
    )
    source = {"made by": PROGRAM, "run": output.portable(str(options.run)), "sha256": merged.sha256}
    yield output.write(path, merged, source, "float32", clipseg_folder.save)


def merge(pairs: Mapping[str, Pair], model: Pretrained) -> dict[str, np.ndarray]:
    """The weights of a CLIPSeg with the pairs added, by our paths; each sum is rounded once."""
    conversion = clipseg_rules(clipseg_config(model))
    theirs = rules.to_theirs(conversion, model.weights)
    for name, (down, up, scale) in pairs.items():
        change = scale * (up.astype(np.float64) @ down.astype(np.float64))
        theirs[f"{name}.weight"] = (theirs[f"{name}.weight"] + change).astype(np.float32)
    return rules.to_ours(conversion, theirs, weight_shapes(model.config))


def _run(options: Options) -> tuple[dict[str, Pair], LoRA, Pretrained, str]:
    """The pairs of a run, its learner, and its model with the model's name."""
    experiment, learnt = restore(find_run(str(options.run)), options.model)
    learner, checkpoint = experiment.config.learner, experiment.config.model.checkpoint
    model = load_pretrained(checkpoint, weights=options.merge)
    if not isinstance(learner, LoRA):
        raise UserError(f"{options.run} must be a run of LoRA, got {type(learner).__name__}", "wrong-learner")
    sizes = clipseg_config(model)
    beside = sorted(path for path in learnt if not path.startswith("learner/"))
    if beside:
        hint = "; train with --upsampling none" if beside[0].startswith("upsampler/") else ""
        raise UserError(
            f"{options.run} trained {rules.some(beside)} too, which LoRA on Hugging Face's CLIPSeg lacks{hint}",
            "not-convertible",
        )
    pairs = to_modules(learner, {path: np.asarray(tensor) for path, tensor in learnt.items()}, sizes)
    return pairs, learner, model, checkpoint


def import_adapter(options: Options) -> Iterator[str]:
    """Writes a run with the matrices of PEFT's folder, and yields lines that describe it.

    Raises:
      UserError: the folder is invalid, its adapter does more than LoRA here, or it doesn't fit the model.
    """
    path, source = Path(options.output), Path(str(options.adapter))
    output.check(path, "a run", _is_import)
    if options.model is None:
        raise UserError("give --model, the model that the adapter was trained on", "missing-option")
    pairs, template = adapter_folder.read(source)
    model = load_pretrained(options.model)
    try:
        learner, learnt, idle = from_modules(pairs, template, clipseg_config(model))
    except ConversionError as error:
        raise ConversionError(f"{source}, with --model {options.model}: {error}", error.code) from error
    settings = Model(checkpoint=options.model, image_size=options.image_size)
    config = Config(model=settings, learner=learner, upsampling="none", workdir=options.output)
    card = make_card(config, model.sha256, model_image_size(settings, model.config), {})
    card["source"] = {"made by": PROGRAM, "adapter": output.portable(str(options.adapter))}
    with atomic_files(path, last=CARD_FILE) as folder:
        save_learnt(folder, learnt, card)
    yield (
        f"wrote {path}: LoRA of {', '.join(learner.products)}, rank {learner.rank}, depth {learner.depth} from the "
        f"{learner.start} block, tower {learner.towers}"
    )
    if idle:
        yield f"left out, because no mask depends on them: {rules.some(idle)}"


def _is_import(folder: Path) -> bool:
    """Whether a folder holds a run that this command wrote."""
    path = folder / CARD_FILE
    source = read_object(path).get("source") if path.is_file() else None
    return isinstance(source, dict) and source.get("made by") == PROGRAM
