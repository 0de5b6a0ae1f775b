"""The ways to learn prompts, one class each; a new one joins `AnyLearner`."""

from tunevlseg_jax.learners.base import Projector
from tunevlseg_jax.learners.multimodal import MaPLe, SharedAttention, SharedSeparate
from tunevlseg_jax.learners.textual import CoCoOp, CoOp
from tunevlseg_jax.learners.visual import VPT
from tunevlseg_jax.prompts import ZeroShot

AnyLearner = ZeroShot | CoOp | CoCoOp | VPT | MaPLe | SharedSeparate | SharedAttention

__all__ = [
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
