"""What passes between a model's three stages, `vision`, `text` and `decode`, whichever model it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ImageFeatures:
    """What the vision stage makes of images.

    Attributes:
      states: all that the decoder takes from an image, shallowest first; their shape is the model's own affair. What
        doesn't depend on words is done already.
      pooled: (batch, image width), the image vector that CoCoOp conditions on.
      size: (height, width) of the images in pixels.
    """

    states: tuple[Array, ...]
    pooled: Array
    size: tuple[int, int] = field(metadata={"static": True})

    def __len__(self) -> int:
        """The number of images."""
        return self.pooled.shape[0]

    def repeat(self, times: int) -> ImageFeatures:
        """Each image `times` times over, for as many prompts to look at."""
        if times == 1:
            return self
        states = tuple(jnp.repeat(state, times, axis=0) for state in self.states)
        return ImageFeatures(states, jnp.repeat(self.pooled, times, axis=0), self.size)


class TextFeatures(NamedTuple):
    """What the text stage makes of prompts.

    Attributes:
      states: (batch, length, text width), every position after the last norm.
      sentence: (batch, embedding width), the end token's projection.
      valid: (batch, length) bool, True up to the end token.
    """

    states: Array
    sentence: Array
    valid: Array


class Decoded(NamedTuple):
    """What the decoder gives.

    Attributes:
      logits: (batch, height, width).
      features: (batch, grid height, grid width, feature width), the last grid, for the upsampler.
    """

    logits: Array
    features: Array
