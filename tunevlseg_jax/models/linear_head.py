"""How a linear layer makes logits of the decoder's last grid, see `LinearHead`."""

import jax.numpy as jnp

from tunevlseg_jax.models.features import Decoded
from tunevlseg_jax.models.resize import resize_grid
from tunevlseg_jax.prompts import LinearHead


def probed(decoded: Decoded, head: LinearHead | None) -> Decoded:
    """The decoder's results with the head's logits, bilinearly resized, in float32; the same without a head."""
    if head is None:
        return decoded
    scores = decoded.features.astype(jnp.float32) @ head.kernel + head.bias.reshape(1, 1, 1, 1)
    _, height, width = decoded.logits.shape
    return decoded._replace(logits=resize_grid(scores, (height, width), "bilinear")[..., 0])
