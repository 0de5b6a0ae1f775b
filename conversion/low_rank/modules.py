"""LoRA's matrices by the names of Hugging Face's linear layers, from a learner's parameters and back."""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from tunevlseg_jax.learners import LoRA
from tunevlseg_jax.learners.blocks import Tower, block_number, product_sizes
from tunevlseg_jax.learners.low_rank import ProductName
from tunevlseg_jax.models.catalogue import CLIPSegConfig
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.rules import ConversionError
from tunevlseg_jax.prompts import ModelSpec

TOWERS: tuple[Tower, ...] = ("text", "vision")
LAYERS: dict[ProductName, str] = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "out": "self_attn.out_proj",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
}
"""The linear layers of a block in Hugging Face's CLIPSeg."""
NAME = re.compile(rf"clip\.(text|vision)_model\.encoder\.layers\.(\d+)\.({'|'.join(map(re.escape, LAYERS.values()))})")


class Pair(NamedTuple):
    """The two matrices of a linear layer: W becomes W + scale * up @ down.

    Attributes:
      down: (rank, inputs), PEFT's lora_A.
      up: (outputs, rank), PEFT's lora_B.
      scale: of the product.
    """

    down: np.ndarray
    up: np.ndarray
    scale: float


class Place(NamedTuple):
    """The place of a pair: a tower, the number of a block from 0, and a product."""

    tower: Tower
    block: int
    product: ProductName


def scale(learner: LoRA, rank: int) -> float:
    """The scale of a learner's pairs of a rank."""
    return learner.alpha / (math.sqrt(rank) if learner.scaling == "root of rank" else rank)


def module_name(place: Place) -> str:
    """The name of a linear layer in Hugging Face's CLIPSeg."""
    return f"clip.{place.tower}_model.encoder.layers.{place.block}.{LAYERS[place.product]}"


def spec_of(config: CLIPSegConfig) -> ModelSpec:
    """The facts about a model that LoRA needs, which has no phrase to embed."""
    return config.spec(lambda phrase: jnp.zeros((0, config.text.width)))


def to_modules(learner: LoRA, learnt: Mapping[str, np.ndarray], config: CLIPSegConfig) -> dict[str, Pair]:
    """The pairs in use by name of their linear layer.

    Args:
      learner: of the run; its depth decides which rows are in use.
      learnt: its parameters by path, `learner/TOWER/PRODUCT/down/kernel` and so on.
      config: sizes of the model.
    """
    spec = spec_of(config)
    pairs = {}
    for tower in learner.changed_towers:
        for product in learner.products:
            down, up = (learnt[f"learner/{tower}/{product}/{side}/kernel"] for side in ("down", "up"))
            for row in range(min(learner.depth, len(down))):
                used = np.any(down[row] != 0, axis=0)  # the other columns only pad the rank
                if used.any():
                    place = Place(tower, block_number(row, learner.start) % _blocks(tower, spec), product)
                    pair = Pair(down[row][:, used].T, up[row][used].T, scale(learner, int(used.sum())))
                    pairs[module_name(place)] = pair
    return pairs


def from_modules(
    pairs: Mapping[str, Pair], template: LoRA, config: CLIPSegConfig
) -> tuple[LoRA, dict[str, np.ndarray], list[str]]:
    """The inverse of `to_modules`.

    Args:
      pairs: by name of their linear layer.
      template: a learner with the alpha, the scaling and the dropout. A pair of another scale gets the ratio into its
        matrix `up`.
      config: sizes of the model.

    Returns:
      The learner, its parameters by path, and the names of pairs that no mask depends on, which are left out.

    Raises:
      ConversionError: a layer isn't in the towers of this model, or a matrix has another shape.
    """
    spec = spec_of(config)
    places = {_place(name): pair for name, pair in _known(pairs, spec).items()}
    idle = [place for place in places if place.tower == "vision" and place.block >= spec.effective_vision_blocks]
    used = {place: pair for place, pair in places.items() if place not in idle}
    if not used:
        raise ConversionError("the adapter changes nothing that a mask depends on", "unsupported-adapter")
    towers = [tower for tower in TOWERS if any(place.tower == tower for place in used)]
    learner = dataclasses.replace(
        template,
        towers="both" if len(towers) > 1 else towers[0],
        products=tuple(product for product in LAYERS if any(place.product == product for place in used)),
        rank=max(len(pair.down) for pair in used.values()),
        **_rows(used, spec),
    )
    return learner, dict(_parameters(learner, used, spec)), sorted(map(module_name, idle))


def _known(pairs: Mapping[str, Pair], spec: ModelSpec) -> Mapping[str, Pair]:
    """The pairs, after a check of their names and shapes."""
    unknown, wrong = [], []
    for name, (down, up, _) in pairs.items():
        place = _place(name) if NAME.fullmatch(name) else None
        if place is None or place.block >= (spec.text_blocks if place.tower == "text" else spec.vision_blocks):
            unknown.append(name)
            continue
        inputs, outputs = product_sizes(place.tower, spec)[place.product]
        if down.shape != (len(down), inputs) or up.shape != (outputs, len(down)):
            wrong.append(f"{name} {down.shape} {up.shape}")
    if unknown:
        raise ConversionError(
            f"the adapter changes {rules.some(sorted(unknown))}; LoRA here changes {', '.join(LAYERS.values())} of the "
            f"{spec.text_blocks} text and {spec.vision_blocks} vision blocks: train with these target_modules alone",
            "unsupported-adapter",
        )
    if wrong:
        raise ConversionError(f"the adapter's shapes are another model's: {rules.some(sorted(wrong))}", "wrong-weights")
    return pairs


def _place(name: str) -> Place:
    match = NAME.fullmatch(name)
    assert match is not None, name
    towers: dict[str, Tower] = {tower: tower for tower in TOWERS}
    products: dict[str, ProductName] = {layer: product for product, layer in LAYERS.items()}
    return Place(towers[match[1]], int(match[2]), products[match[3]])


def _rows(places: Iterable[Place], spec: ModelSpec) -> dict[str, Any]:
    """The learner's `start` and `depth` that need the fewest rows; of equals, blocks are counted from the first."""
    from_first = max(place.block + 1 for place in places)
    from_last = max(_blocks(place.tower, spec) - place.block for place in places)
    return {"start": "first" if from_first <= from_last else "last", "depth": min(from_first, from_last)}


def _parameters(learner: LoRA, pairs: Mapping[Place, Pair], spec: ModelSpec) -> Iterator[tuple[str, np.ndarray]]:
    """Each parameter and its path; a place without a pair has zeros."""
    for tower in learner.changed_towers:
        rows = learner.tower_rows(tower, spec)
        for product in learner.products:
            inputs, outputs = product_sizes(tower, spec)[product]
            down = np.zeros((rows, inputs, learner.rank), np.float32)
            up = np.zeros((rows, learner.rank, outputs), np.float32)
            for row in range(rows):
                pair = pairs.get(Place(tower, block_number(row, learner.start) % _blocks(tower, spec), product))
                if pair is not None:
                    rank = len(pair.down)
                    down[row, :, :rank] = pair.down.T
                    up[row, :rank] = pair.up.T * np.float32(pair.scale / scale(learner, _counted(pair)))
            yield f"learner/{tower}/{product}/down/kernel", down
            yield f"learner/{tower}/{product}/up/kernel", up


def _counted(pair: Pair) -> int:
    """The rank as LoRA counts it, without columns of zeros."""
    return max(int(np.any(pair.down != 0, axis=1).sum()), 1)


def _blocks(tower: Tower, spec: ModelSpec) -> int:
    """Number of a tower's blocks that a mask depends on."""
    return spec.text_blocks if tower == "text" else spec.effective_vision_blocks
