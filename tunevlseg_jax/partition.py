"""One flat dict of parameters, split once into what trains and what is frozen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from flax import nnx, traverse_util
from jax import Array

Flat = dict[str, Array]
"""Arrays by path, such as "model/decoder/reduces/0/kernel"."""

Tune = Literal["prompts", "decoder", "all"]

TRAINABLE: dict[Tune, tuple[str, ...]] = {
    "prompts": (r"learner/.*", r"upsampler/.*"),
    "decoder": (r"learner/.*", r"upsampler/.*", r"model/decoder/.*"),
    "all": (r".*",),
}
"""What trains, by path pattern: the prompts, or one of the fine-tuning baselines."""


def flatten(tree: Mapping, prefix: str) -> Flat:
    """A nested dict of arrays as a flat one, every path under `prefix`."""
    return {f"{prefix}/{path}": array for path, array in traverse_util.flatten_dict(dict(tree), sep="/").items()}


def subtree(flat: Flat, prefix: str) -> Flat:
    """The entries under `prefix`, without it."""
    return {path.removeprefix(f"{prefix}/"): array for path, array in flat.items() if path.startswith(f"{prefix}/")}


def nested(flat: Flat) -> dict:
    """A flat dict as a nested one."""
    return traverse_util.unflatten_dict(flat, sep="/")


def module_parameters(module: nnx.Module) -> Flat:
    """The parameters of a Flax module by path."""
    leaves = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return {"/".join(map(str, path)): leaf.get_value() for path, leaf in leaves}


def split(params: Flat, tune: Tune) -> tuple[Flat, Flat]:
    """What trains, and what is frozen.

    Raises:
      ValueError: nothing would train.
    """
    patterns = [re.compile(pattern) for pattern in TRAINABLE[tune]]
    trainable = {path: array for path, array in params.items() if any(p.fullmatch(path) for p in patterns)}
    if not trainable:
        raise ValueError(f"nothing to train: tune={tune!r} matches no parameter of this model and learner")
    return trainable, {path: array for path, array in params.items() if path not in trainable}


DECAYED = re.compile(r".*/kernel")
"""Weight decay touches matrices and convolution kernels only: no context, embedding, bias, norm or ratio."""


def decay_mask(paths: Iterable[str]) -> dict[str, bool]:
    """For each path whether weight decay applies."""
    return {path: DECAYED.fullmatch(path) is not None for path in paths}
