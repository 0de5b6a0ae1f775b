"""The ways to adapt a model, one class each; a new class joins `AnyLearner` and the end of `LEARNERS`."""

from tunevlseg_jax.learners.adapters import VLSMAdapter
from tunevlseg_jax.learners.base import Projector
from tunevlseg_jax.learners.contract import Learner, ZeroShot
from tunevlseg_jax.learners.low_rank import LoRA
from tunevlseg_jax.learners.multimodal import MaPLe, SharedAttention, SharedSeparate
from tunevlseg_jax.learners.textual import CoCoOp, CoOp
from tunevlseg_jax.learners.visual import VPT
from tunevlseg_jax.prompts import ModelSpec

LEARNERS = (CoOp, CoCoOp, VPT, MaPLe, SharedSeparate, SharedAttention, LoRA, VLSMAdapter)
"""The classes that learn: the paper's six in its order, then others."""
AnyLearner = ZeroShot | CoOp | CoCoOp | VPT | MaPLe | SharedSeparate | SharedAttention | LoRA | VLSMAdapter


def learners_for(spec: ModelSpec) -> list[type[Learner]]:
    """The classes of `LEARNERS` whose defaults change only parts that the model has and its decoder reads."""
    lacking = {"vision"} if spec.vision_width is None else set()
    lacking |= {"sentence"} if spec.sentence_width is None else set()
    return [cls for cls in LEARNERS if not lacking & cls().changes]


__all__ = [
    "LEARNERS",
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
    "learners_for",
]
