"""The ways to learn prompts, one class each; a new one joins `AnyLearner`."""

from tunevlseg_jax.learners.base import Projector
from tunevlseg_jax.learners.multimodal import MaPLe, SharedAttention, SharedSeparate
from tunevlseg_jax.learners.textual import CoCoOp, CoOp
from tunevlseg_jax.learners.visual import VPT
from tunevlseg_jax.prompts import ZeroShot

LEARNERS = (CoOp, CoCoOp, VPT, MaPLe, SharedSeparate, SharedAttention)
"""Those that learn prompts, in the paper's order."""
AnyLearner = ZeroShot | CoOp | CoCoOp | VPT | MaPLe | SharedSeparate | SharedAttention

__all__ = [
    "LEARNERS",
    "VPT",
    "AnyLearner",
    "CoCoOp",
    "CoOp",
    "MaPLe",
    "Projector",
    "SharedAttention",
    "SharedSeparate",
    "ZeroShot",
]
