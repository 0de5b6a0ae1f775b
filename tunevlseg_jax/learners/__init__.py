"""The ways to adapt a model, one class each; a new class joins `Part` and the end of `LEARNERS`."""

from tunevlseg_jax.learners.adapters import VLSMAdapter
from tunevlseg_jax.learners.base import Projector
from tunevlseg_jax.learners.combined import Combined, Part
from tunevlseg_jax.learners.contract import Learner, ZeroShot
from tunevlseg_jax.learners.independent import IVLP
from tunevlseg_jax.learners.linear_probe import LinearProbe
from tunevlseg_jax.learners.low_rank import LoRA
from tunevlseg_jax.learners.multimodal import MaPLe, SharedAttention, SharedSeparate
from tunevlseg_jax.learners.offsets import BitFit, NormTuning
from tunevlseg_jax.learners.regularised import KgCoOp, PromptSRC
from tunevlseg_jax.learners.textual import CoCoOp, CoOp
from tunevlseg_jax.learners.visual import VPT
from tunevlseg_jax.prompts import ModelSpec

PAPER = (CoOp, CoCoOp, VPT, MaPLe, SharedSeparate, SharedAttention)
"""The paper's learners, in its order."""
LEARNERS = (*PAPER, LoRA, VLSMAdapter, BitFit, NormTuning, LinearProbe, IVLP, KgCoOp, PromptSRC)
"""The classes that learn, but for Combined: the paper's, then others."""
AnyLearner = ZeroShot | Part | Combined | IVLP | KgCoOp | PromptSRC


def learners_for(spec: ModelSpec) -> list[Learner]:
    """Those of `LEARNERS` that a model takes, with their defaults.

    VLSM-Adapter leaves out its third adapter where the decoder doesn't read the sentence vector.
    """
    adapter = VLSMAdapter(sentence=spec.sentence_width is not None)
    learners: list[Learner] = [adapter if cls is VLSMAdapter else cls() for cls in LEARNERS]
    return [learner for learner in learners if spec.vision_width is not None or "vision" not in learner.changes]


__all__ = [
    "IVLP",
    "LEARNERS",
    "PAPER",
    "VPT",
    "AnyLearner",
    "BitFit",
    "CoCoOp",
    "CoOp",
    "Combined",
    "KgCoOp",
    "LinearProbe",
    "LoRA",
    "MaPLe",
    "NormTuning",
    "Projector",
    "PromptSRC",
    "SharedAttention",
    "SharedSeparate",
    "VLSMAdapter",
    "ZeroShot",
    "learners_for",
]
