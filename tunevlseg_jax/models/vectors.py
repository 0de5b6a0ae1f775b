"""A model's biases and scales outside of the towers' blocks, which a learner may change by differences."""

from collections.abc import Mapping
from functools import cache

from flax import nnx
from jax import Array

from tunevlseg_jax.models.contract import ModelConfig
from tunevlseg_jax.models.parameters import FlatParams, module_parameters
from tunevlseg_jax.prompts import Stage

FOLDERS: dict[Stage, str] = {"text": "text_tower/", "vision": "vision_tower/", "decoder": "decoder/"}
"""The start of the paths of each stage's weights."""


@cache  # tracing a model takes a second
def vectors(config: ModelConfig, stage: Stage, but: tuple[str, ...]) -> Mapping[str, int]:
    """The widths of a stage's biases and scales, by path within it.

    Args:
      config: of the model.
      stage: of the model.
      but: starts of the paths to leave out.
    """
    weights = module_parameters(nnx.eval_shape(lambda: config.build(nnx.Rngs(0))))
    return {
        path.removeprefix(FOLDERS[stage]): weight.shape[0]
        for path, weight in weights.items()
        if path.startswith(FOLDERS[stage]) and not path.startswith(but) and path.endswith(("/bias", "/scale"))
    }


def shifted(weights: FlatParams, offsets: Mapping[Stage, Mapping[str, Array]] | None) -> FlatParams:
    """The weights of a model, some of them with a difference, see `Prompts.offsets`; these are float32 at least."""
    paths = {FOLDERS[stage] + path: offset for stage, of in (offsets or {}).items() for path, offset in of.items()}
    return weights | {path: weights[path] + offset for path, offset in paths.items()}
