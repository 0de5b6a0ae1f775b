"""One flat dict of parameters, and its split into trained and frozen ones."""

import re
from collections.abc import Iterable, Mapping
from typing import cast

import jax
import numpy as np
from flax import nnx, traverse_util
from jax import Array
from jax.typing import DTypeLike

from tunevlseg_jax.models.settings import Tune

FlatParams = dict[str, Array]
"""Arrays by path, such as "model/decoder/reduces/0/kernel"."""

RULES: dict[Tune, dict[str, bool]] = {
    "prompts": {r"model/.*": False, r"(learner|upsampler)/.*": True},
    "decoder": {r"model/decoder/.*": True, r"model/.*": False, r"(learner|upsampler)/.*": True},
    "all": {r"model/.*": True, r"(learner|upsampler)/.*": True},
}
"""Whether a parameter trains: the first pattern that matches its whole path decides."""

STATISTICS = r"model/.*/(mean|variance)"
"""Statistics of BatchNorms, which never train."""
UNUSED = r"model/(unused|instances)/.*"
"""Weights that the loss doesn't depend on; training would only decay them."""

DECAY: dict[str, bool] = {
    r".*/kernel": True,
    r".*/(bias|scale|ratio|logit_scale)": False,
    r".*(context|embedding)": False,
}
"""Whether weight decay touches a parameter: matrices and convolution kernels only."""


def flatten(tree: Mapping, prefix: str) -> FlatParams:
    """A nested dict of arrays as a flat one, every path under `prefix`."""
    return cast(FlatParams, traverse_util.flatten_dict({prefix: tree}, sep="/"))


def subtree(flat: FlatParams, prefix: str) -> FlatParams:
    """The entries under `prefix`, without it."""
    return {path.removeprefix(f"{prefix}/"): array for path, array in flat.items() if path.startswith(f"{prefix}/")}


def on_device(array: Array | np.ndarray, dtype: DTypeLike) -> Array:
    """An array of a type; a NumPy array is sent as it is, for which jnp.asarray would compile a program a shape."""
    if isinstance(array, Array):
        return array.astype(dtype)
    return jax.device_put(np.asarray(array, dtype))


def nested(flat: FlatParams) -> dict:
    """A flat dict as a nested one."""
    return traverse_util.unflatten_dict(flat, sep="/")


def module_parameters(module: object) -> FlatParams:
    """The parameters of a Flax module by path."""
    leaves = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return {"/".join(map(str, path)): leaf.get_value() for path, leaf in leaves}


def split(params: FlatParams, tune: Tune) -> tuple[FlatParams, FlatParams]:
    """The parameters that train, and the frozen ones.

    Raises:
      ValueError: a parameter has no rule, or a rule for the model matches nothing.
    """
    trains = decide(RULES[tune], params)
    for pattern in RULES[tune]:
        if pattern.startswith("model/") and not any(re.fullmatch(pattern, path) for path in params):
            raise ValueError(f"the rule {pattern!r} of tune={tune!r} matches no parameter of this model")
    trains |= {path: False for path in params if re.fullmatch(f"{STATISTICS}|{UNUSED}", path)}
    trainable = {path: array for path, array in params.items() if trains[path]}
    return trainable, {path: array for path, array in params.items() if not trains[path]}


def decide(rules: Mapping[str, bool], paths: Iterable[str]) -> dict[str, bool]:
    """The value of the first rule that matches each path.

    Raises:
      ValueError: no rule matches a path.
    """
    decided = {}
    for path in paths:
        values = [value for pattern, value in rules.items() if re.fullmatch(pattern, path)]
        if not values:
            raise ValueError(f"no rule in models/parameters.py matches the parameter {path!r}: {', '.join(rules)}")
        decided[path] = values[0]
    return decided
