"""Flax modules filled with parameters, and the shapes and random values of parameters."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import TypeVar, cast

from flax import nnx
from jax import Array

from tunevlseg_jax.models import AnyModelConfig, CRISConfig, ModelConfig, SAM3Config
from tunevlseg_jax.models.features import Masks
from tunevlseg_jax.models.parameters import FlatParams, module_parameters
from tunevlseg_jax.models.products import KERNEL, TRANSPOSED, Product

M = TypeVar("M")


def with_prompt_offset(config: AnyModelConfig, offset: int) -> AnyModelConfig:
    """The same model with text prompts `offset` blocks late, see `CRISConfig`.

    Raises:
      ValueError: the model takes no offset.
    """
    if isinstance(config, CRISConfig):
        return dataclasses.replace(config, prompt_offset=offset)
    if offset:
        name = type(config).__name__.removesuffix("Config")
        raise ValueError(f"model.prompt_offset must be 0 for a {name}, got {offset}; only a CRIS takes prompts late")
    return config


def with_masks(config: AnyModelConfig, masks: Masks) -> AnyModelConfig:
    """The same model with other masks.

    Raises:
      ValueError: the model doesn't find instances.
    """
    if isinstance(config, SAM3Config) and (config.instances is not None or masks == "semantic"):
        return dataclasses.replace(config, masks=masks)
    if masks != "semantic":
        name = type(config).__name__.removesuffix("Config")
        raise ValueError(
            f"masks must be semantic for this {name}, got {masks}; only a SAM 3 with its DETR decoder finds instances"
        )
    return config


def random_model(config: ModelConfig, key: Array) -> FlatParams:
    """Fresh weights of a model, for pre-training and for tests."""
    return module_parameters(config.build(nnx.Rngs(key)))


@cache  # tracing a model takes a second
def weight_shapes(config: ModelConfig) -> Mapping[str, tuple[int, ...]]:
    """The shape of each weight of a model, without creating any."""
    module = nnx.eval_shape(lambda: config.build(nnx.Rngs(0)))
    return {path: leaf.shape for path, leaf in module_parameters(module).items()}


def fill_module(build: Callable[[nnx.Rngs], M], flat: FlatParams) -> M:
    """The Flax module that `build` returns, with the parameters of `flat`."""
    graph, state = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))
    filled = {path: leaf.replace(flat["/".join(map(str, path))]) for path, leaf in nnx.to_flat_state(state)}
    module = nnx.merge(graph, nnx.from_flat_state(filled))
    for path, layer in _products(cast(nnx.Module, module)):
        layer.transposed = flat.get(f"{path}/{TRANSPOSED}")
    return module


@cache
def products(config: ModelConfig) -> Mapping[str, Product]:
    """The layers of a model that have a kernel, without values, by the kernel's path."""
    module = cast(nnx.Module, nnx.eval_shape(lambda: config.build(nnx.Rngs(0))))
    return {f"{path}/{KERNEL}": layer for path, layer in _products(module)}


def transposed_copies(config: ModelConfig, weights: FlatParams, stages: Iterable[str]) -> FlatParams:
    """The transposed copies of a model's kernels, each beside its kernel; see `Product`.

    Args:
      config: of the model.
      weights: of the model, or only some of them.
      stages: starts of the paths, such as "decoder", to make copies for.
    """
    copies = {}
    for path, layer in products(config).items():
        if layer.halves and path in weights and path.startswith(tuple(f"{stage}/" for stage in stages)):
            copies[f"{path.removesuffix(KERNEL)}{TRANSPOSED}"] = layer.transpose(weights[path])
    return copies


def _products(module: nnx.Module) -> Iterator[tuple[str, Product]]:
    for path, layer in nnx.iter_modules(module):
        if isinstance(layer, Product):
            yield "/".join(map(str, path)), layer
