"""The types that a model computes in: asked for, kept from a run's beginning, or chosen for the device."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from tunevlseg_jax.config import Precision
from tunevlseg_jax.runtime import cpu_products

FULL, HALF = np.dtype(jnp.float32), np.dtype(jnp.bfloat16)


@dataclass(frozen=True)
class ComputeTypes:
    """The types of a model's computations, see `Network`.

    Attributes:
      kernels: type of the kernels and of their products' operands.
      activations: type of the products' results and of everything between them.
      platform: of the devices, such as "cpu".
      reason: why these types, for the reader.
    """

    kernels: np.dtype
    activations: np.dtype
    platform: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kernels.name} ({self.reason})"

    def for_card(self) -> dict[str, str]:
        """What a card or an evaluation says of them."""
        return {
            "precision": self.kernels.name,
            "activations": self.activations.name,
            "platform": self.platform,
            "reason": self.reason,
        }


def choose(asked: Precision, platform: str, width: int, kept: Precision | None = None) -> ComputeTypes:
    """The types for a platform.

    Args:
      asked: `train.precision`.
      platform: such as "cpu" or "tpu".
      width: of the model's text encoder, for the measurement of `cpu_products.verdict`.
      kept: the precision in which a run began on a CPU, which "auto" keeps there; None for a new run.
    """
    if asked != "auto":
        precision, reason = asked, "as asked for"
    elif platform != "cpu":
        precision, reason = "bfloat16", f"auto, on a {platform}"
    else:
        pays, reason = cpu_products.verdict(width)
        precision, reason = "bfloat16" if pays else "float32", f"auto: {reason}"
        if kept not in (None, precision):
            precision, reason = kept, "auto, as the run began"
    if precision == "float32":
        return ComputeTypes(FULL, FULL, platform, reason)
    return ComputeTypes(HALF, FULL if platform == "cpu" else HALF, platform, reason)
