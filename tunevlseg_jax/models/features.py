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


class Candidates(NamedTuple):
    """The instances of a phrase's object that a model proposes.

    Attributes:
      masks: (batch, candidates, grid height, grid width) float32, the logits of each one's pixels on the last grid.
      boxes: (batch, candidates, 4) float32, left, top, right and bottom, as shares of the image's width and height.
      logits: (batch, candidates) float32, that a candidate is an instance, provided that there is one at all.
      scores: (batch, candidates) float32, the probabilities of `logits` times that of the object's presence.
    """

    masks: Array
    boxes: Array
    logits: Array
    scores: Array


class Decoded(NamedTuple):
    """The output of the decoder.

    Attributes:
      logits: (batch, height, width).
      features: (batch, grid height, grid width, feature width), the last grid, for the upsampler.
      presence: (batch,) float32, the logit that the phrase's object is in the image at all; None where the model
        doesn't say.
      candidates: the instances; None where the model doesn't look for them.
    """

    logits: Array
    features: Array
    presence: Array | None = None
    candidates: Candidates | None = None
