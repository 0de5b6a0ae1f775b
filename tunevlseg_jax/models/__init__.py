"""The models in Flax: what is frozen; a new one joins `AnyModelConfig`."""

from tunevlseg_jax.models.clipseg import CLIPSeg, CLIPSegConfig
from tunevlseg_jax.models.cris import CRIS, CRISConfig

AnyModelConfig = CLIPSegConfig | CRISConfig
AnyModel = CLIPSeg | CRIS

__all__ = ["CRIS", "AnyModel", "AnyModelConfig", "CLIPSeg", "CLIPSegConfig", "CRISConfig"]
