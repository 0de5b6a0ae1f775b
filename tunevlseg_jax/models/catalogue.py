"""Every model, and the union of their configurations."""

from tunevlseg_jax.models.clipseg import CLIPSeg, CLIPSegConfig
from tunevlseg_jax.models.contract import Model, ModelConfig
from tunevlseg_jax.models.cris import CRIS, CRISConfig
from tunevlseg_jax.models.sam3 import SAM3, SAM3Config

AnyModelConfig = CLIPSegConfig | CRISConfig | SAM3Config
"""The configurations that a model folder may hold; each is a `ModelConfig`."""

__all__ = [
    "CRIS",
    "SAM3",
    "AnyModelConfig",
    "CLIPSeg",
    "CLIPSegConfig",
    "CRISConfig",
    "Model",
    "ModelConfig",
    "SAM3Config",
]
