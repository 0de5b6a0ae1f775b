"""Our folders of SAM 3 from before 2026-11-30, in which the part that finds instances was among the unused ones."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tunevlseg_jax.models.sam3_instances import SAM3InstancesConfig
from tunevlseg_jax.runtime.schema import CLASS

SIZES = {"query_layers": "layers", "query_heads": "heads", "query_hidden": "hidden", "queries": "queries"}
"""Fields of the unused parts that now belong to the instances, and their present names."""
LAYER = r"unused/instances/layers/(\d+)"
PATHS = {
    rf"{LAYER}/attentions/0/": r"instances/layers/\1/self_attention/",
    rf"{LAYER}/attentions/1/": r"instances/layers/\1/word_attention/",
    rf"{LAYER}/attentions/2/": r"instances/layers/\1/cell_attention/",
    **{rf"{LAYER}/norms/{place}/": rf"instances/layers/\1/norm{place + 1}/" for place in range(4)},
    "unused/instances/reference_embedding": "instances/box_embedding",
    "unused/instances/output_norm/": "instances/query_norm/",
    "unused/instances/box_head/": "instances/box/",
    "unused/instances/presence_head/": "instances/presence/",
    "unused/instances/reference_head/": "instances/position/",
    "unused/instances/": "instances/",
    "unused/scoring/text/": "instances/scoring/word/",
    "unused/scoring/": "instances/scoring/",
    "unused/mask_embedder/": "instances/mask/",
    "unused/instance_projection/": "instances/pixels/",
}
"""Starts of their paths, and the present ones; the first that fits is meant."""


def present_sizes(model: Any) -> Any:
    """The sizes of a model in config.json, with those of the instances in their present place."""
    unused = model.get("unused") if isinstance(model, dict) else None
    if not isinstance(unused, dict) or not SIZES.keys() <= unused.keys():
        return model
    instances = {CLASS: SAM3InstancesConfig.__name__} | {name: unused[earlier] for earlier, name in SIZES.items()}
    left = {name: size for name, size in unused.items() if name not in SIZES}
    return model | {"unused": left, "instances": instances}


def present_paths(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A model's tensors, with those of the instances under their present paths."""
    return {_present(path): tensor for path, tensor in tensors.items()}


def _present(path: str) -> str:
    for start, present in PATHS.items():
        if re.match(start, path):
            return re.sub(start, present, path, count=1)
    return path
