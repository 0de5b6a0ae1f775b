"""Pre-trains the two towers of a small model on `scenes` as CLIP does, with each cell of an image as a sample."""

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
from tunevlseg_jax.models.catalogue import CLIPSegConfig, CRISConfig
from tunevlseg_jax.models.clipseg import CLIPSeg
from tunevlseg_jax.models.cris import CRIS
from tunevlseg_jax.models.parameters import FlatParams, module_parameters
from tunevlseg_jax.network import normalize
from tunevlseg_jax.pretrained.tokenizer import Tokenizer, with_full_stop
from tunevlseg_jax.prompts import Prompts

SCENES = 12000
BATCH = 32
MEASURED = 320  # scenes that statistics of BatchNorm are taken over
LEARNING_RATE = 1.5e-3
WARMUP_STEPS = 200
COVERAGE = 0.2  # share of a cell from which it counts as a digit's
DIGIT_WEIGHT = 3.0  # of a digit's cell in the loss; most cells are background


def pretrain(config: CLIPSegConfig | CRISConfig, tokenizer: Tokenizer, steps: int, seed: int) -> FlatParams:
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
    """
    data = scenes.load("photo", "train", SCENES, prompts_per_image=len(CLASSES))
    labels = _cell_labels(data, config.image_size // config.side_multiple)
    data = resized(data, (config.image_size, config.image_size), maps=False)
    background = with_full_stop(BACKGROUND)
    tables = [[with_full_stop(template.format(name)) for name in CLASSES] + [background] for template in PHRASINGS]
    tokens = tokenizer.table([phrase for table in tables for phrase in table], config.text.context_length)
    tokens = tokens.reshape(len(PHRASINGS), len(CLASSES) + 1, -1)
    params = random_model(config, jax.random.key(seed))
    rate = optax.warmup_cosine_decay_schedule(0.0, LEARNING_RATE, min(WARMUP_STEPS, steps // 2), steps)
    transform = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.02))
    optimizer = transform.init(params)

    @jax.jit
    def step(params: FlatParams, optimizer: optax.OptState, images: Array, labels: Array, tokens: Array):
        gradients, right = jax.grad(partial(_loss, config), has_aux=True)(params, images, labels, tokens)
        updates, optimizer = transform.update(gradients, optimizer, params)
        return optax.apply_updates(params, updates), optimizer, right

    draw = np.random.default_rng(seed)
    for number in track(range(steps), "matching cells with words"):
        rows = draw.integers(0, SCENES, BATCH)
        template = draw.integers(len(PHRASINGS))
        params, optimizer, right = step(params, optimizer, data.images[rows], labels[rows], tokens[template])
        if (number + 1) % 250 == 0:
            print(f"step {number + 1}: {float(right):.1%} of the cells of digits matched with their word", flush=True)
    asked = tokens[draw.integers(len(PHRASINGS), size=MEASURED), draw.integers(len(CLASSES), size=MEASURED)]
    return _measured(config, params, data.images[:MEASURED], asked)


def _loss(
    config: CLIPSegConfig | CRISConfig, params: FlatParams, images: Array, labels: Array, tokens: Array
) -> tuple[Array, Array]:
    """The loss, and the share of the digits' cells whose nearest sentence is that of their class."""
    model = measure(fill_module(config.build, params))
    cells, pooled = _cell_vectors(model, normalize(images, config))
    sentences = _unit(model.text(tokens, Prompts()).sentence)
    scale = jnp.exp(params["logit_scale"])
    logits = jax.nn.log_softmax(scale * jnp.einsum("bpe,ce->bpc", _unit(cells), sentences))
    wanted = jax.nn.one_hot(labels, len(CLASSES) + 1)
    weight = jnp.where(labels < len(CLASSES), DIGIT_WEIGHT, 1.0)
    dense = -((logits * wanted).sum(-1) * weight).sum() / weight.sum()
    there = wanted[..., :-1].max(axis=1)
    share = there / jnp.maximum(there.sum(axis=-1, keepdims=True), 1)
    whole = jax.nn.log_softmax(scale * _unit(pooled) @ sentences[:-1].T)
    right = jnp.where(labels < len(CLASSES), logits.argmax(-1) == labels, False).sum()
    return dense - (share * whole).sum(-1).mean(), right / (labels < len(CLASSES)).sum()


def _cell_vectors(model: CLIPSeg | CRIS, images: Array) -> tuple[Array, Array]:
    """Image vectors in the space of sentences: of cells, (batch, cells, embedding width), and of whole images."""
    if isinstance(model, CRIS):
        grid = model.vision_tower(images)[-1]
        return grid.reshape(grid.shape[0], -1, grid.shape[-1]), grid.mean(axis=(1, 2))
    tower = model.vision_tower
    states, pooled = tower(images, Prompts())
    return tower.projection(tower.post_norm(states[-1][:, 1:])), pooled


@partial(jax.jit, static_argnums=0)
def _measured(config: CLIPSegConfig | CRISConfig, params: FlatParams, images: Array, tokens: Array) -> FlatParams:
    """The same weights, with the statistics of each BatchNorm over pairs of an image and its row of tokens."""
    model = measure(fill_module(config.build, params))
    model.decode(model.vision(normalize(images, config), Prompts()), model.text(tokens, Prompts()))
    return module_parameters(model)


def _cell_labels(data: Records, grid: int) -> np.ndarray:
    """(image, cells) int32: the class that covers most of a cell, or the number of classes for background."""
    side = SIZE // grid
    covered = data.masks.reshape(len(data.images), len(CLASSES), grid, side, grid, side).mean(axis=(3, 5))
    by_class = np.zeros_like(covered)
    np.put_along_axis(by_class, data.prompt.reshape(-1, len(CLASSES))[:, :, None, None], covered, axis=1)
    labels = np.where(by_class.max(axis=1) > COVERAGE, by_class.argmax(axis=1), len(CLASSES))
    return labels.reshape(len(data.images), -1).astype(np.int32)


def _unit(vectors: Array) -> Array:
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)
