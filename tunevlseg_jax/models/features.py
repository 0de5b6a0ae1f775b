"""The values that pass between the three stages of every model, `vision`, `text` and `decode`."""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ImageFeatures:
    """The output of the vision stage.

    Attributes:
      states: in shapes that depend on the model, shallowest first: the decoder's inputs from an image, for which
        everything that doesn't depend on the phrase is already computed; or what `Model.expand` makes them of.
      pooled: (batch, image width), the image vector that CoCoOp conditions on.
      size: (height, width) of the images in pixels.
    """

    states: tuple[Array, ...]
    pooled: Array
    size: tuple[int, int] = field(metadata={"static": True})

    def __len__(self) -> int:
        """The number of images."""
        return self.pooled.shape[0]

    def astype(self, dtype: np.dtype) -> "ImageFeatures":
        """The same features in another type."""
        return jax.tree.map(lambda array: array.astype(dtype), self)

    def repeat(self, times: int) -> "ImageFeatures":
        """Each image `times` times in a row, for as many phrases."""
        if times == 1:
            return self
        states = tuple(jnp.repeat(state, times, axis=0) for state in self.states)
        return ImageFeatures(states, jnp.repeat(self.pooled, times, axis=0), self.size)


class TextFeatures(NamedTuple):
    """The output of the text stage.

    Attributes:
      states: (batch, length, text width), every position after the last norm.
      sentence: (batch, embedding width), the end token's projection.
      valid: (batch, length) bool, True up to the end token.
    """

    states: Array
    sentence: Array
    valid: Array


class Decoded(NamedTuple):
    """The output of the decoder.

    Attributes:
      logits: (batch, height, width).
      features: (batch, grid height, grid width, feature width), the last grid, for the upsampler.
    """

    logits: Array
    features: Array
