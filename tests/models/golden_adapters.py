"""The published VLSM-Adapter nets' golden cases as our learners and tensors; `test_golden.py` compares them."""

import re

import numpy as np

from tunevlseg_jax.learners import VLSMAdapter
from tunevlseg_jax.models import parameters

SCALAR_TOLERANCE = 2e-5
"""Of the loss."""
GRADIENT_TOLERANCES = {
    "clipseg_simple/vlsm_adapter_dense_vlc.safetensors": 5e-5,
    "clipseg_simple/vlsm_adapter_shallow_vc.safetensors": 5e-5,
    "clipseg_complex/vlsm_adapter_shallow_vc.safetensors": 5e-5,
    "clipseg_complex/vlsm_adapter_dense_vlc.safetensors": 2e-4,
}
"""The gradients behind the sentence's adapter amplify rounding. The first is 1.2e-5 from its golden tensor on a
processor with AMX, and less than 1e-5 on others. The other golden tensors themselves are 2.2e-5, 1.2e-5 and 1.2e-4 from
float64's, where PyTorch and this code agree to 1.1e-7 (`test_adapters_agree_with_pytorch_in_float64`)."""
NAMES = {
    r"l_attn_adapters\.(\d+)": "text/after_attention",
    r"l_out_adapters\.(\d+)": "text/after_mlp",
    r"v_attn_adapters\.(\d+)": "vision/after_attention",
    r"v_out_adapters\.(\d+)": "vision/after_mlp",
    r"vision_extract_adapters\.(\d+)": "taps",
    r"cond_adapter": "sentence",
}
"""The places of the published tensors, and their row."""
LAYERS = {"fc1.weight": "down/kernel", "fc1.bias": "down/bias", "fc2.weight": "up/kernel", "fc2.bias": "up/bias"}


def learner_of(row: dict, trained: dict[str, np.ndarray]) -> VLSMAdapter:
    """The learner that a row of the index describes, with the sizes of its tensors."""
    kernels = {path.split("/")[1]: array for path, array in trained.items() if path.endswith("down/kernel")}
    sizes = {name: array.shape for name, array in kernels.items() if name != "sentence"}
    (depth, _, hidden), *_ = sizes.values()
    towers = {frozenset("vl"): "both", frozenset("l"): "text", frozenset("v"): "vision"}
    sentence = {"sentence_hidden": kernels["sentence"].shape[-1]} if "c" in row["where"] else {}
    return VLSMAdapter(
        depth=depth,
        hidden=hidden,
        kind=row["learner"].removeprefix("vlsm_adapter_"),
        towers=towers[frozenset(row["where"]) - {"c"}],
        sentence="c" in row["where"],
        **sentence,
    )


def ours(theirs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Published tensors by our paths, stacked over rows; matrices are transposed."""
    rows: dict[str, dict[int, np.ndarray]] = {}
    for name, tensor in theirs.items():
        adapter, layer = name.rsplit(".fc", 1)
        (place, found), *_ = [(NAMES[p], m) for p in NAMES if (m := re.fullmatch(p, adapter))]
        row = int(found[1]) if found.groups() else 0
        rows.setdefault(f"learner/{place}/{LAYERS[f'fc{layer}']}", {})[row] = tensor.T
    return {path: np.stack([arrays[row] for row in range(len(arrays))]) for path, arrays in rows.items()}


def nested(flat: dict[str, np.ndarray]) -> dict:
    return parameters.nested(parameters.subtree(flat, "learner"))
