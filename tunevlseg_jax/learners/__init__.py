"""The ways to adapt a model, one class each; a new class joins `AnyLearner` and the end of `LEARNERS`."""

from tunevlseg_jax.learners.adapters import VLSMAdapter
from tunevlseg_jax.learners.base import Projector
from tunevlseg_jax.learners.contract import ZeroShot
from tunevlseg_jax.learners.low_rank import LoRA
from tunevlseg_jax.learners.multimodal import MaPLe, SharedAttention, SharedSeparate
from tunevlseg_jax.learners.textual import CoCoOp, CoOp
from tunevlseg_jax.learners.visual import VPT

PAPER = (CoOp, CoCoOp, VPT, MaPLe, SharedSeparate, SharedAttention)
"""The paper's learners, in its order."""
LEARNERS = (*PAPER, LoRA, VLSMAdapter)
"""The classes that learn: the paper's, then others."""
AnyLearner = ZeroShot | CoOp | CoCoOp | VPT | MaPLe | SharedSeparate | SharedAttention | LoRA | VLSMAdapter

__all__ = [
    "LEARNERS",
    "PAPER",
    "VPT",
    "AnyLearner",
    "CoCoOp",
    "CoOp",
    "LoRA",
    "MaPLe",
    "Projector",
    "SharedAttention",
    "SharedSeparate",
    "VLSMAdapter",
    "ZeroShot",
]
