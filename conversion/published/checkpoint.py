"""A Lightning checkpoint of the published code: which tensors it holds, read and written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from conversion import torch_files
from conversion.cris_tensors import cris_rules
from tunevlseg_jax.models import AnyModelConfig, CLIPSegConfig
from tunevlseg_jax.models.build import weight_shapes
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.clipseg_tensors import clipseg_rules
from tunevlseg_jax.pretrained.rules import ConversionError, Rule, Tensors
from tunevlseg_jax.runtime.files import atomic_file

NET = "net."
"""What the names of the network's tensors start with."""
COMPILED = "_orig_mod."
"""What follows where torch.compile wrapped the network."""
LOSS = "loss_fn."
"""What the names of the loss's constants start with, such as weights of classes; nothing here needs them."""
MODEL = "model."
"""What the names of a CLIPSeg's tensors start with, inside the network; a CRIS is the network."""
LIGHTNING = "2.0.0"
"""The oldest version of Lightning that a written checkpoint is for."""


def read(path: Path) -> dict[str, np.ndarray]:
    """The network's tensors, by name without "net.".

    Raises:
      UserError: the file is no such checkpoint, is broken, or holds more than tensors and plain values.
    """
    tensors = {name: x for name, x in torch_files.state_dict(path).items() if not name.startswith(LOSS)}
    strangers = sorted(name for name in tensors if not name.startswith(NET))
    if strangers:
        raise ConversionError(
            f"{path} is no checkpoint of the published code, which has {NET}...: {rules.some(strangers)}", "wrong-model"
        )
    return {name.removeprefix(NET).removeprefix(COMPILED): tensor for name, tensor in tensors.items()}


def write(path: Path, theirs: Tensors) -> None:
    """Writes the network's tensors as Lightning would, whole or not at all.

    There is no optimizer in it: it can be loaded and tested, not trained further.
    """
    torch = torch_files.import_torch("--export")
    tensors = {f"{NET}{name}": torch.tensor(tensor) for name, tensor in sorted(theirs.items())}
    counters = [name for name in tensors if name.endswith("running_var")]
    tensors |= {name.replace("running_var", torch_files.COUNTERS): torch.tensor(0) for name in counters}
    whole = {"state_dict": tensors, "epoch": 0, "global_step": 0, "pytorch-lightning_version": LIGHTNING}
    with atomic_file(path) as temporary:
        torch.save(whole, temporary)


def model_from_published(theirs: Tensors, config: AnyModelConfig) -> dict[str, np.ndarray]:
    """Our tensors of the model, such as "model/logit_scale", strictly.

    Raises:
      ConversionError: names that are missing, left over or of another shape, or of another kind of model.
    """
    found, wanted = "CLIPSeg" if any(name.startswith(MODEL) for name in theirs) else "CRIS", _name(config)
    if theirs and found != wanted:
        raise ConversionError(f"the checkpoint is of a {found}, and --model is a {wanted}", "wrong-model")
    return rules.to_ours(
        _rules(config), theirs, {f"model/{path}": shape for path, shape in weight_shapes(config).items()}
    )


def model_to_published(ours: Tensors, config: AnyModelConfig) -> dict[str, np.ndarray]:
    """The inverse of `model_from_published`."""
    return rules.to_theirs(_rules(config), ours)


def _name(config: AnyModelConfig) -> str:
    return type(config).__name__.removesuffix("Config")


def _rules(config: AnyModelConfig) -> list[Rule]:
    if isinstance(config, CLIPSegConfig):
        return _renamed(clipseg_rules(config), MODEL)
    return _renamed(cris_rules(config), "")


def _renamed(given: Iterable[Rule], prefix: str) -> list[Rule]:
    return [
        dataclasses.replace(rule, ours=f"model/{rule.ours}", theirs=tuple(f"{prefix}{name}" for name in rule.theirs))
        for rule in given
    ]
