"""Flax modules filled with parameters, and the shapes and random values of parameters."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, TypeVar, cast

import jax
from flax import nnx
from jax import Array

from tunevlseg_jax.models.catalogue import AnyModelConfig, CRISConfig, Model, ModelConfig, SAM3Config
from tunevlseg_jax.models.parameters import FlatParams, module_parameters
from tunevlseg_jax.models.products import KERNEL, TRANSPOSED, Product
from tunevlseg_jax.models.settings import Masks

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


class _OneKey:
    """Takes the place of `nnx.Rngs` where only shapes count: counting its keys took half the time of a trace."""

    def __init__(self):
        self.key = jax.random.key(0)

    def params(self) -> Array:
        """The same key each time."""
        return self.key


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


def weight_shapes(config: ModelConfig) -> Mapping[str, tuple[int, ...]]:
    """The shape of each weight of a model, without creating any."""
    _, state = _split_model(config)
    return {"/".join(map(str, path)): leaf.shape for path, leaf in nnx.to_flat_state(state)}


def fill_model(config: ModelConfig, flat: FlatParams) -> Model:
    """The Flax module of a model, with the parameters of `flat`."""
    return _fill(*_split_model(config), flat)


def fill_module(build: Callable[[nnx.Rngs], M], flat: FlatParams) -> M:
    """The Flax module that `build` returns, with the parameters of `flat`."""
    return _fill(*_split(build), flat)


@cache  # tracing a model takes a second
def _split_model(config: ModelConfig) -> tuple[nnx.GraphDef[Any], nnx.State]:
    return _split(config.build)


def _split(build: Callable[[nnx.Rngs], M]) -> tuple[nnx.GraphDef[M], nnx.State]:
    """The structure of the module that `build` returns, and its parameters without values."""
    return nnx.split(nnx.eval_shape(lambda: build(cast(nnx.Rngs, _OneKey()))))


def _fill(graph: nnx.GraphDef[M], state: nnx.State, flat: FlatParams) -> M:
    filled = {path: leaf.replace(flat["/".join(map(str, path))]) for path, leaf in nnx.to_flat_state(state)}
    module = nnx.merge(graph, nnx.from_flat_state(filled))
    for path, layer in _products(cast(nnx.Module, module)):
        layer.transposed = flat.get(f"{path}/{TRANSPOSED}")
    return module


@cache
def products(config: ModelConfig) -> Mapping[str, Product]:
    """The layers of a model that have a kernel, without values, by the kernel's path."""
    module = cast(nnx.Module, nnx.merge(*_split_model(config)))
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
