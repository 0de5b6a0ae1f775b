"""What the embedded model starts from: sizes, a tokenizer, and towers trained as CLIP's are, on `scenes`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tokenizers
from jax import Array
from rich.progress import track
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from tunevlseg_jax import command, pretrained
from tunevlseg_jax.data import scenes
from tunevlseg_jax.data.records import Records
from tunevlseg_jax.data.scenes import CLASSES, PHRASINGS, SIZE
from tunevlseg_jax.models.clip import TextConfig, VisionConfig
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.network import fill, normalize, random_model
from tunevlseg_jax.partition import Flat
from tunevlseg_jax.pretrained import Pretrained
from tunevlseg_jax.prompts import Prompts
from tunevlseg_jax.tokenizer import Tokenizer, with_full_stop

START, END = "<|startoftext|>", "<|endoftext|>"
VOCABULARY = 512
BACKGROUND = "the background"
SCENES = 12000
BATCH = 32
LEARNING_RATE = 1.5e-3
COVERAGE = 0.2  # share of a patch from which it counts as a digit's
DIGIT_WEIGHT = 3.0  # of a digit's patch in the loss; most patches are background


@dataclass(frozen=True)
class Options:
    """What to write.

    Attributes:
      output: folder to make.
      steps: of training; 0 leaves the weights random.
      seed: of the weights and of the order.
    """

    output: str
    steps: int = 2500
    seed: int = 0


def train_tokenizer() -> Tokenizer:
    """Byte-pair encoding of lower-cased bytes, with every word of the phrases a token of its own."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Strip(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    phrases = [with_full_stop(template.format(name)) for template in PHRASINGS for name in CLASSES]
    backend.train_from_iterator([*phrases, BACKGROUND], trainer)
    backend.add_special_tokens([START, END])  # the largest ids, as CLIP has them
    backend.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(token, backend.token_to_id(token)) for token in (START, END)]
    )
    return Tokenizer(backend)


def sizes(tokenizer: Tokenizer) -> CLIPSegConfig:
    """1.3 M parameters, for images of 96 pixels."""
    end = tokenizer.backend.get_vocab()[END]
    return CLIPSegConfig(
        text=TextConfig(width=48, blocks=5, heads=4, hidden=192, vocabulary=end + 1, context_length=32, end_token=end),
        vision=VisionConfig(width=128, blocks=5, heads=4, hidden=448, patch=12, image_size=96),
        embedding_width=64,
        taps=(0, 2, 4),
        decoder_width=48,
        decoder_heads=4,
        decoder_hidden=192,
        image_size=96,
    )


def pretrain(config: CLIPSegConfig, tokenizer: Tokenizer, steps: int, seed: int) -> Flat:
    """Weights whose two towers agree on what every patch of a scene shows, as CLIP's agree on whole images.

    Each patch's vector is matched against the sentences of the ten classes and of the background (a softmax over
    cosines, as CLIP's loss), and the pooled vector against those that are in the scene. From random weights the masks
    alone teach a small model where digits are, but hardly which is which; from these they do.

    Args:
      config: sizes.
      tokenizer: of the phrases.
      steps: batches of BATCH scenes.
      seed: of weights and order.
    """
    data = scenes.load("photo", "train", SCENES, prompts_per_image=len(CLASSES))
    labels = _patch_labels(data, config.vision.patch)
    background = with_full_stop(BACKGROUND)
    tables = [[with_full_stop(template.format(name)) for name in CLASSES] + [background] for template in PHRASINGS]
    tokens = tokenizer.table([phrase for table in tables for phrase in table], config.text.context_length)
    tokens = tokens.reshape(len(PHRASINGS), len(CLASSES) + 1, -1)
    params = random_model(config, jax.random.key(seed))
    rate = optax.warmup_cosine_decay_schedule(0.0, LEARNING_RATE, 200, steps)
    transform = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.02))
    optimizer = transform.init(params)

    def loss_of(params: Flat, images: Array, labels: Array, tokens: Array) -> tuple[Array, Array]:
        model = fill(config.build, params)
        states, pooled = model.vision_tower(normalize(images, config), Prompts())
        tower = model.vision_tower
        patches = tower.projection(tower.post_norm(states[-1][:, 1:]))
        sentences = _unit(model.text(tokens, Prompts()).sentence)
        scale = jnp.exp(params["logit_scale"])
        logits = jax.nn.log_softmax(scale * jnp.einsum("bpe,ce->bpc", _unit(patches), sentences))
        wanted = jax.nn.one_hot(labels, len(CLASSES) + 1)
        weight = jnp.where(labels < len(CLASSES), DIGIT_WEIGHT, 1.0)
        dense = -((logits * wanted).sum(-1) * weight).sum() / weight.sum()
        there = wanted[..., :-1].max(axis=1)
        share = there / jnp.maximum(there.sum(axis=-1, keepdims=True), 1)
        whole = jax.nn.log_softmax(scale * _unit(pooled) @ sentences[:-1].T)
        right = jnp.where(labels < len(CLASSES), logits.argmax(-1) == labels, False).sum()
        return dense - (share * whole).sum(-1).mean(), right / (labels < len(CLASSES)).sum()

    @jax.jit
    def step(params: Flat, optimizer: optax.OptState, images: Array, labels: Array, tokens: Array):
        gradients, right = jax.grad(loss_of, has_aux=True)(params, images, labels, tokens)
        updates, optimizer = transform.update(gradients, optimizer, params)
        return optax.apply_updates(params, updates), optimizer, right

    draw = np.random.default_rng(seed)
    for number in track(range(steps), "matching patches with words"):
        rows = draw.integers(0, SCENES, BATCH)
        template = draw.integers(len(PHRASINGS))
        params, optimizer, right = step(params, optimizer, data.images[rows], labels[rows], tokens[template])
        if (number + 1) % 250 == 0:
            print(f"step {number + 1}: {float(right):.1%} of the patches of digits matched with their word", flush=True)
    return params


def _patch_labels(data: Records, patch: int) -> np.ndarray:
    """(image, patches) int32: the class that covers most of a patch, or the number of classes for background."""
    grid = SIZE // patch
    covered = data.masks.reshape(len(data.images), len(CLASSES), grid, patch, grid, patch).mean(axis=(3, 5))
    by_class = np.zeros_like(covered)
    np.put_along_axis(by_class, data.prompt.reshape(-1, len(CLASSES))[:, :, None, None], covered, axis=1)
    labels = np.where(by_class.max(axis=1) > COVERAGE, by_class.argmax(axis=1), len(CLASSES))
    return labels.reshape(len(data.images), -1).astype(np.int32)


def _unit(vectors: Array) -> Array:
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)


def main() -> None:
    """Writes the folder."""
    options = command.options(Options, "python -m conversion.tiny", __doc__ or "")
    tokenizer = train_tokenizer()
    config = sizes(tokenizer)
    weights = pretrain(config, tokenizer, options.steps, options.seed)
    model = Pretrained(config, {path: np.asarray(array) for path, array in weights.items()}, tokenizer, "")
    pretrained.save(Path(options.output), model, {"made by": "python -m conversion.tiny"})


if __name__ == "__main__":
    command.run(main)
