"""The ways to adapt a model, one class each; a new class joins `Part` and the end of `LEARNERS`."""

from tunevlseg_jax.learners.adapters import VLSMAdapter
from tunevlseg_jax.learners.base import Projector
from tunevlseg_jax.learners.combined import Combined, Part
from tunevlseg_jax.learners.contract import ZeroShot
from tunevlseg_jax.learners.linear_probe import LinearProbe
from tunevlseg_jax.learners.low_rank import LoRA
from tunevlseg_jax.learners.multimodal import MaPLe, SharedAttention, SharedSeparate
from tunevlseg_jax.learners.offsets import BitFit, NormTuning
from tunevlseg_jax.learners.textual import CoCoOp, CoOp
from tunevlseg_jax.learners.visual import VPT

LEARNERS = (
    *(CoOp, CoCoOp, VPT, MaPLe, SharedSeparate, SharedAttention),
    *(LoRA, VLSMAdapter, BitFit, NormTuning, LinearProbe),
)
"""The classes that learn, but for Combined: the paper's six in its order, then others."""
AnyLearner = ZeroShot | Part | Combined

__all__ = [
    "LEARNERS",
    "VPT",
    "AnyLearner",
    "BitFit",
    "CoCoOp",
    "CoOp",
    "Combined",
    "LinearProbe",
    "LoRA",
    "MaPLe",
    "NormTuning",
    "Projector",
    "SharedAttention",
    "SharedSeparate",
    "VLSMAdapter",
    "ZeroShot",
]
