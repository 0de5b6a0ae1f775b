"""The extras of the package, and the packages that each needs, from its metadata."""

import importlib.metadata
import re

DEVELOPMENT = ("dev", "docs", "test")
PURPOSES = {
    "annotations": "exports of annotation tools",
    "convert": "conversion of PyTorch checkpoints",
    "cuda": "NVIDIA GPUs",
    "datasets": "public data sets with volumes",
    "demo": "the page to try runs",
    "heic": "HEIC photographs",
    "medical": "DICOM, NIfTI, NRRD and MetaImage files",
    "onnx": "exports for ONNX Runtime",
    "postgres": "searches that share a PostgreSQL database",
    "report": "reports with figures",
    "tpu": "TPUs",
}
"""What the extras are for."""


def requirements() -> dict[str, list[str]] | None:
    """The names of the packages of each extra that a user may want; None if the package isn't installed by pip."""
    try:
        given = importlib.metadata.requires("tunevlseg_jax") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found: dict[str, list[str]] = {}
    for requirement in given:
        name, extra = re.match(r"[\w.-]+", requirement), re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if name and extra and extra[1] not in DEVELOPMENT:
            found.setdefault(extra[1], []).append(_distribution(name[0], requirement))
    return dict(sorted(found.items()))


def _distribution(name: str, requirement: str) -> str:
    """The distribution to look for: JAX's plugin where an extra of JAX itself is asked for."""
    match = re.match(r"jax\[(\w+)\]", requirement)
    return {"cuda12": "jax-cuda12-plugin", "tpu": "libtpu"}.get(match[1], name) if match else name
