"""Pre-trains the two towers of a small model on `scenes` as CLIP does, with each cell of an image as a sample."""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from rich.progress import track

from conversion.tiny.batch_statistics import measure
from conversion.tiny.sizes import BACKGROUND
from tunevlseg_jax.data import scenes
from tunevlseg_jax.data.records import Records, resized
from tunevlseg_jax.data.scenes import CLASSES, PHRASINGS, SIZE
from tunevlseg_jax.models.build import fill_module, random_model
from tunevlseg_jax.models.catalogue import AnyModelConfig
from tunevlseg_jax.models.clipseg import CLIPSeg
from tunevlseg_jax.models.cris import CRIS
from tunevlseg_jax.models.parameters import FlatParams, module_parameters
from tunevlseg_jax.models.sam3 import SAM3, SAM3Config
from tunevlseg_jax.network import normalize
from tunevlseg_jax.pretrained.tokenizer import Tokenizer, with_full_stop
from tunevlseg_jax.prompts import Prompts

SCENES = 12000
BATCH = 32
MEASURED = 320  # scenes that statistics of BatchNorm are taken over
LEARNING_RATE = 1.5e-3
WARMUP_STEPS = 200
COVERAGE = 0.2  # share of a cell from which it counts as a digit's
SCALE = 14.3  # of the cosines in a model that doesn't learn it: CLIP's start, 1 / 0.07
DIGIT_WEIGHT = 3.0  # of a digit's cell in the loss; most cells are background


def pretrain(
    config: AnyModelConfig, tokenizer: Tokenizer, steps: int, seed: int, start: Mapping[str, np.ndarray]
) -> FlatParams:
    """Weights whose two towers give similar vectors to a cell of a scene and to the sentence of its class.

    The vector of each cell is matched with the sentences of the ten classes and of the background by CLIP's loss, a
    softmax over cosines, and the pooled vector with the sentences of the classes in the scene. Masks alone barely teach
    a small model with random weights to tell digits apart; with these weights they do.

    BatchNorms normalise by the batch during training, and hold the statistics of many scenes at the end.

    Args:
      config: sizes.
      tokenizer: of the phrases.
      steps: batches of BATCH scenes.
      seed: of weights and order.
      start: weights to begin with; those of another path or shape are left out, and missing ones are random.
    """
    data = scenes.load("photo", "train", SCENES, prompts_per_image=len(CLASSES))
    labels = [_cell_labels(data, grid) for grid in _grids(config)]
    data = resized(data, (config.image_size, config.image_size), maps=False)
    background = with_full_stop(BACKGROUND)
    tables = [[with_full_stop(template.format(name)) for name in CLASSES] + [background] for template in PHRASINGS]
    tokens = tokenizer.table([phrase for table in tables for phrase in table], config.text.context_length)
    tokens = tokens.reshape(len(PHRASINGS), len(CLASSES) + 1, -1)
    params = random_model(config, jax.random.key(seed))
    fitting = [path for path, array in start.items() if path in params and array.shape == params[path].shape]
    params |= {path: jnp.asarray(start[path]) for path in fitting}
    print(f"{len(fitting)} of {len(params)} weights from the start")
    rate = optax.warmup_cosine_decay_schedule(0.0, LEARNING_RATE, min(WARMUP_STEPS, steps // 2), steps)
    transform = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.02))
    optimizer = transform.init(params)

    @jax.jit
    def step(params: FlatParams, optimizer: optax.OptState, images: Array, labels: list[Array], tokens: Array):
        gradients, right = jax.grad(partial(_loss, config), has_aux=True)(params, images, labels, tokens)
        updates, optimizer = transform.update(gradients, optimizer, params)
        return optax.apply_updates(params, updates), optimizer, right

    draw = np.random.default_rng(seed)
    for number in track(range(steps), "matching cells with words"):
        rows = draw.integers(0, SCENES, BATCH)
        template = draw.integers(len(PHRASINGS))
        batch = [of_grid[rows] for of_grid in labels]
        params, optimizer, right = step(params, optimizer, data.images[rows], batch, tokens[template])
        if (number + 1) % 100 == 0:
            print(f"step {number + 1}: {float(right):.1%} of the cells of digits matched with their word", flush=True)
    asked = tokens[draw.integers(len(PHRASINGS), size=MEASURED), draw.integers(len(CLASSES), size=MEASURED)]
    return _measured(config, params, data.images[:MEASURED], asked)


def _loss(
    config: AnyModelConfig, params: FlatParams, images: Array, labels: list[Array], tokens: Array
) -> tuple[Array, Array]:
    """The loss, and the share of the digits' cells of the last grid whose nearest sentence is that of their class."""
    model = measure(fill_module(config.build, params))
    grids, pooled = _cell_vectors(model, normalize(images, config))
    sentences = _unit(model.text(tokens, Prompts()).sentence)
    scale = jnp.exp(params["logit_scale"]) if "logit_scale" in params else SCALE
    matched = [
        _matched(scale * _unit(cells) @ sentences.T, of_grid) for cells, of_grid in zip(grids, labels, strict=True)
    ]
    there = jax.nn.one_hot(labels[-1], len(CLASSES)).max(axis=1)
    share = there / jnp.maximum(there.sum(axis=-1, keepdims=True), 1)
    whole = jax.nn.log_softmax(scale * _unit(pooled) @ sentences[:-1].T)
    dense = sum(loss for loss, _ in matched) / len(matched)
    return dense - (share * whole).sum(-1).mean(), matched[-1][1]


def _matched(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Of one grid: the loss of (batch, cells, classes + 1) logits, and the share of digits' cells that are right."""
    is_digit = labels < len(CLASSES)
    weight = jnp.where(is_digit, DIGIT_WEIGHT, 1.0)
    wanted = jax.nn.one_hot(labels, len(CLASSES) + 1)
    loss = -((jax.nn.log_softmax(logits) * wanted).sum(-1) * weight).sum() / weight.sum()
    return loss, jnp.where(is_digit, logits.argmax(-1) == labels, False).sum() / is_digit.sum()


def _grids(config: AnyModelConfig) -> list[int]:
    """The cells along a side of each grid of `_cell_vectors`."""
    coarsest = config.image_size // config.side_multiple
    return [round(scale * coarsest) for scale in config.vision.scales] if isinstance(config, SAM3Config) else [coarsest]


def _cell_vectors(model: CLIPSeg | CRIS | SAM3, images: Array) -> tuple[list[Array], Array]:
    """Image vectors in the space of sentences: of each grid's cells, (batch, cells, embedding width), the coarsest grid
    last, and of whole images."""
    if isinstance(model, CLIPSeg):
        tower = model.vision_tower
        states, pooled = tower(images, Prompts())
        return [tower.projection(tower.post_norm(states[-1][:, 1:]))], pooled
    sam3 = isinstance(model, SAM3)
    grids = model.vision(images, Prompts()).states if sam3 else [model.vision_tower(images)[-1]]
    cells = [grid.reshape(grid.shape[0], -1, grid.shape[-1]) for grid in grids]
    return cells, cells[-1].mean(axis=1)


@partial(jax.jit, static_argnums=0)
def _measured(config: AnyModelConfig, params: FlatParams, images: Array, tokens: Array) -> FlatParams:
    """The same weights, with the statistics of each BatchNorm over pairs of an image and its row of tokens."""
    model = measure(fill_module(config.build, params))
    model.decode(model.vision(normalize(images, config), Prompts()), model.text(tokens, Prompts()))
    return module_parameters(model)


def _cell_labels(data: Records, grid: int) -> np.ndarray:
    """(image, cells) int32, for `grid` cells a side: the class that covers most of a cell, or the number of classes."""
    side = SIZE // grid
    squares = data.masks.reshape(len(data.images), len(CLASSES), grid, side, grid, side)
    covered = squares.mean(axis=(3, 5), dtype=np.float32)
    by_class = np.zeros_like(covered)
    np.put_along_axis(by_class, data.prompt.reshape(-1, len(CLASSES))[:, :, None, None], covered, axis=1)
    labels = np.where(by_class.max(axis=1) > COVERAGE, by_class.argmax(axis=1), len(CLASSES))
    return labels.reshape(len(data.images), -1).astype(np.int32)


def _unit(vectors: Array) -> Array:
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)
