"""A model, a learner and an upsampler joined into pure functions of one flat dict of parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from tunevlseg_jax.models.clipseg import CLIPSeg, CLIPSegConfig
from tunevlseg_jax.models.upsampler import Upsampler
from tunevlseg_jax.partition import Flat, flatten, module_parameters, nested, subtree
from tunevlseg_jax.prompts import Learner, Towers

Upsampling = Literal["none", "blend", "add"]
"""No learnable upsampler; blended into the logits (the paper); or added to them (the published code, for VPT)."""


FLOAT32 = np.dtype(np.float32)


class Batch(NamedTuple):
    """A batch as the step takes it.

    Attributes:
      images: (batch, height, width, 3) uint8, RGB.
      masks: (batch, height, width) bool.
      phrase: (batch,) int32, the row of the token table that an image is asked for.
      weight: (batch,) float32, 1 for a record and 0 for padding.
    """

    images: Array
    masks: Array
    phrase: Array
    weight: Array


@dataclass(frozen=True)
class Network:
    """What is static of a network; its parameters are `model/...`, `learner/...` and `upsampler/...`.

    Attributes:
      config: sizes of the model.
      learner: how prompts are learnt.
      upsampling: what the learnable upsampler does.
      dtype: what the model computes in; learner, upsampler, softmax, norms and loss stay in float32.
    """

    config: CLIPSegConfig
    learner: Learner
    upsampling: Upsampling = "none"
    dtype: np.dtype = FLOAT32

    def logits(
        self,
        params: Flat,
        images: Array,
        phrase: Array,
        table: Array,
        *,
        depth: Array,
        dropout: Array,
        key: Array | None = None,
    ) -> Array:
        """Logits of the mask that each image is asked for.

        Args:
          params: every parameter, by path.
          images: (batch, height, width, 3) uint8, RGB.
          phrase: (batch,) int32, rows of `table`.
          table: (phrases, length) int32, tokens of the distinct phrases; each goes through the text tower once,
            unless the learner makes prompts of its own for every image.
          depth: int32 scalar, see `Prompts`.
          dropout: float32 scalar, the learner's rate.
          key: of the dropout; None in evaluation.

        Returns:
          (batch, height, width) float32.
        """
        weights = {path: array.astype(self.dtype) for path, array in subtree(params, "model").items()}
        model = _module(lambda: CLIPSeg(self.config, nnx.Rngs(0)), weights)
        learner_params = nested(subtree(params, "learner"))
        patch = self.config.vision.patch
        grid = (images.shape[1] // patch, images.shape[2] // patch)

        prompts = self.learner.prompts(learner_params, depth, dropout=dropout, key=key)
        states, pooled = model.vision(normalize(images, self.config).astype(self.dtype), prompts)
        prompts = self.learner.condition(learner_params, prompts, pooled)
        if self.learner.per_image:
            words = model.text(table[phrase], prompts)
        else:
            words = jax.tree.map(lambda rows: rows[phrase], model.text(table, prompts))
        decoded = model.decode(states, words, grid)
        decoded = decoded._replace(logits=decoded.logits.astype(jnp.float32))

        if self.upsampling == "none":
            return decoded.logits
        width = self.config.decoder_width
        upsampler = _module(lambda: Upsampler(width, nnx.Rngs(0)), subtree(params, "upsampler"))
        return upsampler.blend(decoded) if self.upsampling == "blend" else upsampler.add(decoded)

    def init(self, key: Array, model: Mapping[str, Array | np.ndarray], towers: Towers) -> Flat:
        """Every parameter: the model's given ones, and fresh ones for learner and upsampler.

        Raises:
          ValueError: the learner doesn't fit the model.
        """
        learner_key, upsampler_key = jax.random.split(key)
        params = {f"model/{path}": jnp.asarray(array) for path, array in model.items()}
        params |= flatten(self.learner.init(learner_key, towers), "learner")
        if self.upsampling != "none":
            upsampler = module_parameters(Upsampler(self.config.decoder_width, nnx.Rngs(upsampler_key)))
            params |= {f"upsampler/{path}": array for path, array in upsampler.items()}
        return params


def normalize(images: Array, config: CLIPSegConfig) -> Array:
    """From uint8 to float32 as the model was trained on."""
    shape = (1, 1, 1, 3)
    mean, std = (jnp.asarray(values, jnp.float32).reshape(shape) for values in (config.mean, config.std))
    return (images.astype(jnp.float32) / 255 - mean) / std


def towers(config: CLIPSegConfig, embed_words: Callable[[str], Array]) -> Towers:
    """What a learner must know of a CLIPSeg; `embed_words` as in `Towers`."""
    return Towers(
        text_width=config.text.width,
        text_blocks=config.text.blocks,
        image_width=config.embedding_width,
        vision_width=config.vision.width,
        vision_blocks=config.vision.blocks,
        live_vision_blocks=max(config.taps) + 1,
        embed_words=embed_words,
    )


def random_model(config: CLIPSegConfig, key: Array) -> Flat:
    """Fresh weights of a model, for pre-training and for tests."""
    return module_parameters(CLIPSeg(config, nnx.Rngs(key)))


def shapes(config: CLIPSegConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each weight of a model, without making any."""
    module = nnx.eval_shape(lambda: CLIPSeg(config, nnx.Rngs(0)))
    return {path: leaf.shape for path, leaf in module_parameters(module).items()}


def _module(build, flat: Flat):
    """The Flax module that `build` makes, with the parameters of `flat`."""
    graph, state = nnx.split(nnx.eval_shape(build))
    filled = {path: leaf.replace(flat["/".join(map(str, path))]) for path, leaf in nnx.to_flat_state(state)}
    return nnx.merge(graph, nnx.from_flat_state(filled))
