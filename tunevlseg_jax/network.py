"""A model, a learner and an upsampler joined into pure functions of one flat dict of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from tunevlseg_jax.learners.contract import Learner
from tunevlseg_jax.models import AnyModel, AnyModelConfig
from tunevlseg_jax.models.build import fill_module
from tunevlseg_jax.models.clip import Recompute
from tunevlseg_jax.models.features import ImageFeatures, TextFeatures
from tunevlseg_jax.models.parameters import FlatParams, flatten, module_parameters, nested, subtree
from tunevlseg_jax.models.upsampler import Upsampler, Upsampling
from tunevlseg_jax.prompts import ModelSpec, Prompts

FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True)
class Network:
    """What is static of a network; its parameters are `model/...`, `learner/...` and `upsampler/...`.

    Attributes:
      config: sizes of the model.
      learner: how prompts are learnt.
      upsampling: what the learnable upsampler does.
      dtype: what the model computes in; learner, upsampler, softmax, norms and loss stay in float32.
      recompute: what the way back through a vision transformer makes anew, see `VisionTower`.
    """

    config: AnyModelConfig
    learner: Learner
    upsampling: Upsampling = "none"
    dtype: np.dtype = FLOAT32
    recompute: Recompute = "nothing"

    def logits(
        self,
        params: FlatParams,
        images: Array | ImageFeatures,
        phrase: Array,
        table: Array | TextFeatures,
        *,
        depth: Array,
        dropout: Array,
        key: Array | None = None,
    ) -> Array:
        """Logits of the mask that each image is asked for.

        Args:
          params: every parameter, by path.
          images: (batch, height, width, 3) uint8, RGB; or (batch / n, ...), each asked for n neighbouring phrases; or
            what `see` made of them, for a learner without vision prompts.
          phrase: (batch,) int32, rows of `table`.
          table: (phrases, length) int32, tokens of the distinct phrases; each goes through the text tower once,
            unless the learner makes prompts of its own for every image. Or what `read` made of them, for a learner
            without text prompts.
          depth: int32 scalar, see `Prompts`.
          dropout: float32 scalar, the learner's rate.
          key: of the dropout; None in evaluation.

        Returns:
          (batch, height, width) float32.
        """
        model = self._model(params)
        learner_params = nested(subtree(params, "learner"))

        prompts = self.learner.prompts(learner_params, depth, dropout=dropout, key=key)
        seen = images if isinstance(images, ImageFeatures) else self._vision(model, images, prompts)
        seen = seen.repeat(len(phrase) // len(seen))
        prompts = self.learner.condition(learner_params, prompts, seen.pooled)
        if self.learner.per_image:
            words = model.text(cast(Array, table)[phrase], prompts)
        else:
            read = table if isinstance(table, TextFeatures) else model.text(table, prompts)
            words = jax.tree.map(lambda rows: rows[phrase], read)
        decoded = model.decode(seen, words)
        decoded = decoded._replace(logits=decoded.logits.astype(jnp.float32))

        if self.upsampling == "none":
            return decoded.logits
        upsampler = fill_module(self._upsampler, subtree(params, "upsampler"))
        return upsampler.blend(decoded) if self.upsampling == "blend" else upsampler.add(decoded)

    def see(self, params: FlatParams, images: Array) -> ImageFeatures:
        """What the model sees in images, (batch, height, width, 3) uint8, without vision prompts."""
        return self._vision(self._model(params), images, Prompts())

    def read(self, params: FlatParams, table: Array) -> TextFeatures:
        """What the model reads in phrases, (phrases, length) int32 tokens, without text prompts."""
        return self._model(params).text(table, Prompts())

    def _model(self, params: FlatParams) -> AnyModel:
        weights = {path: array.astype(self.dtype) for path, array in subtree(params, "model").items()}
        return fill_module(self.config.build, weights)

    def _vision(self, model: AnyModel, images: Array, prompts: Prompts) -> ImageFeatures:
        return model.vision(normalize(images, self.config).astype(self.dtype), prompts, self.recompute)

    def init(self, key: Array, model: Mapping[str, Array | np.ndarray], towers: ModelSpec) -> FlatParams:
        """Every parameter: the model's given ones, and fresh ones for learner and upsampler.

        Raises:
          ValueError: the learner doesn't fit the model.
        """
        learner_key, upsampler_key = jax.random.split(key)
        params = {f"model/{path}": jnp.asarray(array) for path, array in model.items()}
        params |= flatten(self.learner.init(learner_key, towers), "learner")
        if self.upsampling != "none":
            upsampler = module_parameters(self._upsampler(nnx.Rngs(upsampler_key)))
            params |= {f"upsampler/{path}": array for path, array in upsampler.items()}
        return params

    def _upsampler(self, rngs: nnx.Rngs) -> Upsampler:
        return Upsampler(self.config.feature_width, rngs, self.config.upsampler_width)


def normalize(images: Array, config: AnyModelConfig) -> Array:
    """From uint8 to float32 as the model was trained on."""
    shape = (1, 1, 1, 3)
    mean, std = (jnp.asarray(values, jnp.float32).reshape(shape) for values in (config.mean, config.std))
    return (images.astype(jnp.float32) / 255 - mean) / std
