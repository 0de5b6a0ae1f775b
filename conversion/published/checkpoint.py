"""Reads and writes the tensors of a Lightning checkpoint of the published code."""

from pathlib import Path

import numpy as np

from conversion import torch_files
from conversion.cris_tensors import cris_rules
from tunevlseg_jax.models.build import weight_shapes
from tunevlseg_jax.models.catalogue import AnyModelConfig, CLIPSegConfig, CRISConfig
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.clipseg_tensors import clipseg_rules
from tunevlseg_jax.pretrained.rules import ConversionError, Rule, Tensors
from tunevlseg_jax.runtime.files import atomic_file

NET = "net."
"""Prefix of the network's tensors."""
COMPILED = "_orig_mod."
"""Next prefix, if torch.compile wrapped the network."""
LOSS = "loss_fn."
"""Prefix of the loss's constants, such as class weights, which are not needed."""
MODEL = "model."
"""Prefix of a CLIPSeg's tensors inside the network; a CRIS has none."""
LIGHTNING = "2.0.0"
"""The oldest version of Lightning that reads a written checkpoint."""


def read(path: Path) -> dict[str, np.ndarray]:
    """The network's tensors, by name without "net.".

    Raises:
      UserError: the file is another kind of checkpoint, is broken, or holds more than tensors and plain values.
    """
    tensors = {name: x for name, x in torch_files.state_dict(path).items() if not name.startswith(LOSS)}
    strangers = sorted(name for name in tensors if not name.startswith(NET))
    if strangers:
        raise ConversionError(
            f"{path} is no checkpoint of the published code, which has {NET}...: {rules.some(strangers)}", "wrong-model"
        )
    return {name.removeprefix(NET).removeprefix(COMPILED): tensor for name, tensor in tensors.items()}


def write(path: Path, theirs: Tensors) -> None:
    """Writes the network's tensors as Lightning does, but without an optimizer, whole or not at all."""
    torch = torch_files.import_torch("--export")
    tensors = {f"{NET}{name}": torch.tensor(tensor) for name, tensor in sorted(theirs.items())}
    counters = [name for name in tensors if name.endswith("running_var")]
    tensors |= {name.replace("running_var", torch_files.COUNTERS): torch.tensor(0) for name in counters}
    content = {"state_dict": tensors, "epoch": 0, "global_step": 0, "pytorch-lightning_version": LIGHTNING}
    with atomic_file(path) as temporary:
        torch.save(content, temporary)


def model_from_published(theirs: Tensors, config: AnyModelConfig) -> dict[str, np.ndarray]:
    """Our tensors of the model, such as "model/logit_scale"; every name and shape must fit.

    Raises:
      ConversionError: names that are missing, left over or of another shape, or of another kind of model.
    """
    found, wanted = "CLIPSeg" if any(name.startswith(MODEL) for name in theirs) else "CRIS", _name(config)
    if theirs and found != wanted:
        raise ConversionError(f"the checkpoint is of a {found}, and --model is a {wanted}", "wrong-model")
    shapes = {f"model/{path}": shape for path, shape in weight_shapes(config).items()}
    return rules.to_ours(_rules(config), theirs, shapes)


def model_to_published(ours: Tensors, config: AnyModelConfig) -> dict[str, np.ndarray]:
    """The inverse of `model_from_published`."""
    return rules.to_theirs(_rules(config), ours)


def _name(config: AnyModelConfig) -> str:
    return type(config).__name__.removesuffix("Config")


def _rules(config: AnyModelConfig) -> list[Rule]:
    if isinstance(config, CLIPSegConfig):
        prefix, model_rules = MODEL, clipseg_rules(config)
    elif isinstance(config, CRISConfig):
        prefix, model_rules = "", cris_rules(config)
    else:
        raise ConversionError(f"the published code knows CLIPSeg and CRIS, got a {_name(config)}", "wrong-model")
    return [
        Rule(f"model/{rule.ours}", tuple(f"{prefix}{name}" for name in rule.theirs), rule.move) for rule in model_rules
    ]
