"""The ways to adapt a model, one class each; a new class joins `AnyLearner` and the end of `LEARNERS`."""

from tunevlseg_jax.learners.adapters import VLSMAdapter
from tunevlseg_jax.learners.base import Projector
from tunevlseg_jax.learners.contract import ZeroShot
from tunevlseg_jax.learners.independent import IVLP
from tunevlseg_jax.learners.low_rank import LoRA
from tunevlseg_jax.learners.multimodal import MaPLe, SharedAttention, SharedSeparate
from tunevlseg_jax.learners.regularised import KgCoOp, PromptSRC
from tunevlseg_jax.learners.textual import CoCoOp, CoOp
from tunevlseg_jax.learners.visual import VPT

LEARNERS = (CoOp, CoCoOp, VPT, MaPLe, SharedSeparate, SharedAttention, LoRA, VLSMAdapter, IVLP, KgCoOp, PromptSRC)
"""The classes that learn: the paper's six in its order, then others."""
AnyLearner = (
    ZeroShot
    | CoOp
    | CoCoOp
    | VPT
    | MaPLe
    | SharedSeparate
    | SharedAttention
    | LoRA
    | VLSMAdapter
    | IVLP
    | KgCoOp
    | PromptSRC
)

__all__ = [
    "IVLP",
    "LEARNERS",
    "VPT",
    "AnyLearner",
    "CoCoOp",
    "CoOp",
    "KgCoOp",
    "LoRA",
    "MaPLe",
    "Projector",
    "PromptSRC",
    "SharedAttention",
    "SharedSeparate",
    "VLSMAdapter",
    "ZeroShot",
]
