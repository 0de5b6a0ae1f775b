"""The conversion of checkpoints of the published code into runs, and back."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import jax.numpy as jnp
import numpy as np

from conversion.output import check, portable
from conversion.published import checkpoint
from conversion.published.learner import read_learner, with_copies, without_copies
from conversion.published.options import PROGRAM, Options, UnstoredSettings
from conversion.published.tensors import LEARNER, RATIO, UPSAMPLER, from_published, to_published
from tunevlseg_jax.config import Config, Model, Train
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.learners import VPT, AnyLearner, CoCoOp, CoOp, MaPLe, SharedAttention, SharedSeparate, ZeroShot
from tunevlseg_jax.learners.base import ContextLearner
from tunevlseg_jax.models.build import with_prompt_offset
from tunevlseg_jax.models.catalogue import AnyModelConfig, CLIPSegConfig, CRISConfig
from tunevlseg_jax.models.parameters import FlatParams, split
from tunevlseg_jax.models.settings import Tune
from tunevlseg_jax.network import Network
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.pretrained.rules import ConversionError, Tensors
from tunevlseg_jax.runs.card import CARD_FILE, make_card, save_learnt
from tunevlseg_jax.runs.restore import restore
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import atomic_files, read_object, sha256
from tunevlseg_jax.training.build import model_image_size


def import_checkpoint(options: Options) -> Iterator[str]:
    """Writes a run, and yields lines that describe it.

    Raises:
      UserError: the checkpoint is invalid, or of another model; the message is one line.
    """
    path, output = Path(options.checkpoint), Path(options.output)
    check(output, "a run", _is_import)
    if options.model is None:
        raise UserError("give --model, the model that the prompts were learnt for", "missing-option")
    theirs = checkpoint.read(path)
    model = load_pretrained(options.model)
    try:
        network, tune, learnt = convert(theirs, model, options)
    except ConversionError as error:
        raise ConversionError(f"{path}, with --model {options.model}: {error}", error.code) from error
    config = Config(
        model=Model(checkpoint=options.model, image_size=options.image_size, prompt_offset=_prompt_offset(network)),
        learner=cast(AnyLearner, network.learner),
        upsampling=network.upsampling,
        data=Data(truncate=True),  # as the published code treats prompts that are too long
        train=Train(tune=tune),
        workdir=options.output,
    )
    size = model_image_size(config.model, model.config)
    source = {"made by": PROGRAM, "checkpoint": portable(options.checkpoint), "checkpoint sha256": sha256(path)}
    card = make_card(config, model.sha256, size, {}) | {"source": source}
    with atomic_files(output, last=CARD_FILE) as folder:
        save_learnt(folder, learnt, card)
    count = sum(tensor.size for tensor in learnt.values())
    yield f"wrote {output}: {len(learnt)} tensors, {count:,} parameters"
    yield f"read off the tensors: {', '.join(_derived(network, tune))}"
    yield f"not in the tensors, so taken as given: {', '.join(_assumed(network, size))}"
    if network.upsampling == "none" and any(name.startswith(f"{UPSAMPLER}.") for name in theirs):
        yield f"left out: {UPSAMPLER}, which the published code never reaches here; --upsampling blend takes it in"


def convert(theirs: Tensors, model: Pretrained, options: Options) -> tuple[Network, Tune, dict[str, np.ndarray]]:
    """The network and the trained tensors of a checkpoint.

    Args:
      theirs: the network's tensors by published name.
      model: the model that they were learnt for.
      options: of the import.

    Returns:
      The network; the trained part, which is the decoder if there are no prompts; and the trained tensors by path.

    Raises:
      ConversionError: a frozen tensor differs from the model's, or names are missing, left over or of another shape.
    """
    beside = {name: x for name, x in theirs.items() if name.startswith((f"{LEARNER}.", f"{UPSAMPLER}.", RATIO))}
    inside = {name: x for name, x in theirs.items() if name not in beside}
    base: Mapping[str, Any] = checkpoint.model_from_published(inside, model.config)
    tune: Tune = "prompts" if beside else "decoder"
    trained, frozen = ({}, base) if beside else split(cast(FlatParams, base), tune)
    _check_frozen(frozen, model)
    network = _network(beside, model.config, options)
    unread = {"none": (f"{UPSAMPLER}.", RATIO), "add": RATIO, "blend": ()}[network.upsampling]
    read = {name: x for name, x in without_copies(beside, network.learner).items() if not name.startswith(unread)}
    try:
        learnt = from_published(read, network)
    except UserError:
        raise
    except ValueError as error:  # a learner that doesn't fit the model
        raise ConversionError(str(error), "learner-unfit") from error
    return network, tune, {**{path: np.asarray(x) for path, x in trained.items()}, **learnt}


def _network(theirs: Tensors, config: AnyModelConfig, options: Options) -> Network:
    """The network of learnt tensors, as in the published code unless the options say otherwise."""
    if not theirs:
        return Network(config, ZeroShot())
    spec = config.spec(lambda _: jnp.zeros((0, config.text.width)))  # needed only for fresh contexts
    learner = read_learner(theirs, spec, options.learner)
    clipseg = isinstance(config, CLIPSegConfig)
    if not any(name.startswith(f"{UPSAMPLER}.") for name in theirs) or (clipseg and isinstance(learner, CoOp | CoCoOp)):
        upsampling = "none"
    else:
        upsampling = "blend" if RATIO in theirs else "add"
    offset = 0 if clipseg else 1
    try:
        config = with_prompt_offset(config, offset if options.prompt_offset is None else options.prompt_offset)
    except ValueError as error:
        raise ConversionError(str(error), "learner-unfit") from error
    return Network(config, learner, upsampling if options.upsampling is None else options.upsampling)


def _prompt_offset(network: Network) -> int:
    """Delay of a network's text prompts in blocks; 0 unless it is a CRIS."""
    return network.config.prompt_offset if isinstance(network.config, CRISConfig) else 0


def _check_frozen(frozen: Mapping[str, Any], model: Pretrained) -> None:
    """Raises a ConversionError with the names of the frozen tensors that differ from the model's."""
    apart = {path: np.abs(tensor - model.weights[path.removeprefix("model/")]).max() for path, tensor in frozen.items()}
    wrong = [path for path, difference in apart.items() if difference != 0]
    if wrong:
        raise ConversionError(
            f"the checkpoint was trained on other weights than the model's: by up to {max(apart.values()):.3g} they "
            f"differ in {rules.some(wrong)}",
            "model-changed",
        )


def _derived(network: Network, tune: Tune) -> Iterator[str]:
    learner = network.learner
    yield type(learner).__name__ if tune == "prompts" else "no learner, a trained decoder"
    if isinstance(learner, ContextLearner):
        yield f"depth {learner.depth}"
        yield f"{learner.num_context} context tokens"
    if isinstance(learner, CoCoOp | MaPLe | SharedSeparate):
        projector = learner.projector
        hidden = f" ({', '.join(map(str, projector.hidden))} hidden)" if projector.hidden else ""
        norm = "with norm" if projector.norm else "without norm"
        yield f"{projector.kind} projector{hidden} {norm}, one for {'all depths' if projector.shared else 'each depth'}"
    if isinstance(learner, SharedAttention):
        yield f"{learner.hidden} hidden"


def _assumed(network: Network, size: tuple[int, int]) -> Iterator[str]:
    learner = network.learner
    yield f"--image-size {size[0]} {size[1]}"
    if isinstance(learner, ContextLearner):
        yield f"--upsampling {network.upsampling}"
        yield f"--prompt-offset {_prompt_offset(network)}"
    for setting in dataclasses.fields(UnstoredSettings):
        value, option = getattr(learner, setting.name, None), setting.name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--learner.{option}" if value else f"--learner.no-{option}"
        elif value is not None:
            yield f"--learner.{option} {value}"


def _is_import(folder: Path) -> bool:
    """Whether a folder holds a run that this command wrote."""
    path = folder / CARD_FILE
    source = read_object(path).get("source") if path.is_file() else None
    return isinstance(source, dict) and source.get("made by") == PROGRAM


def export_run(options: Options) -> Iterator[str]:
    """Writes a checkpoint, and yields lines that describe it.

    Raises:
      UserError: there is no such run, or its model is missing.
    """
    output = Path(options.output)
    if output.exists():
        raise UserError(f"--output {output} exists; choose another name", "other-folder")
    experiment, learnt = restore(Path(options.checkpoint), options.model)
    if not isinstance(experiment.config.learner, ContextLearner | ZeroShot):
        name = type(experiment.config.learner).__name__
        raise UserError(f"the published code has no {name}, which {options.checkpoint} trained", "wrong-learner")
    sizes = with_prompt_offset(experiment.pretrained.config, experiment.config.model.prompt_offset)
    network = dataclasses.replace(experiment.network, config=sizes, learner=experiment.config.learner)
    ours = {path: np.asarray(tensor) for path, tensor in learnt.items()}
    weights = load_pretrained(experiment.config.model.checkpoint).weights
    base = {f"model/{path}": weight for path, weight in weights.items()}
    base |= {path: tensor for path, tensor in ours.items() if path.startswith("model/")}
    beside = {path: tensor for path, tensor in ours.items() if path not in base}
    theirs = checkpoint.model_to_published(base, sizes)
    theirs |= with_copies(to_published(beside, network), network.learner)
    checkpoint.write(output, theirs)
    yield f"wrote {output}: {len(theirs)} tensors, for the published code to load and test (ckpt_path), not to train on"
    yield from (f"the published code doesn't do as this run did: {line}" for line in departures(network))


def departures(network: Network) -> Iterator[str]:
    """The differences between a network and the published code; see README."""
    learner, clipseg = network.learner, isinstance(network.config, CLIPSegConfig)
    if clipseg and isinstance(learner, CoOp | CoCoOp) and network.upsampling != "none":
        yield "it never reaches the upsampler of CoOp and CoCoOp on CLIPSeg"
    if clipseg and isinstance(learner, VPT) and network.upsampling == "blend":
        yield "it adds VPT's upsampler to the logits, without a ratio"
    if not clipseg and isinstance(learner, CoOp | CoCoOp) and _prompt_offset(network) != 1:
        yield "it injects prompts on CRIS a block late, as model.prompt_offset 1 does"
    if isinstance(learner, SharedAttention) and learner.attends_across_tokens:
        yield "its Shared Attention has each token see itself alone, as learner.attends_across_tokens False does"
    if isinstance(learner, CoCoOp | MaPLe | SharedSeparate):
        projector = learner.projector
        if projector.kind == "linear" and projector.norm:
            yield "its linear projectors have no norm, as learner.projector.norm False, and can't load these tensors"
