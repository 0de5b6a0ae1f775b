"""The models in Flax: what is frozen; a new one joins `AnyModelConfig`."""

from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.models.cris import CRISConfig

AnyModelConfig = CLIPSegConfig | CRISConfig

__all__ = ["AnyModelConfig", "CLIPSegConfig", "CRISConfig"]
