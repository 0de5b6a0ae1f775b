"""Compares a converted CRIS with torch models of the same weights, as far as public packages have them."""

from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from conversion.comparison import PHRASES, compare
from conversion.cris_tensors import cris_rules
from conversion.torch_files import import_torch
from tunevlseg_jax.models.build import fill_module
from tunevlseg_jax.models.clip import TextTower
from tunevlseg_jax.models.cris import CRISConfig
from tunevlseg_jax.models.parameters import FlatParams, subtree
from tunevlseg_jax.models.resnet import ModifiedResNet
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.clip_tensors import text_rules
from tunevlseg_jax.pretrained.clipseg_tensors import NAMES
from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.prompts import Prompts
from tunevlseg_jax.runtime.errors import UserError

UNVERIFIED = "not compared: attention pool, neck, decoder and projector, which no public torch package has"


def verify(model: Pretrained) -> Iterator[str]:
    """Compares the text tower with transformers', and the encoder up to its attention pool with open_clip's.

    Yields:
      A line for each part that was compared, or couldn't be.

    Raises:
      UserError: outputs differ, see `compare`, or torch is missing.
    """
    import_torch("--verify")
    config = model.config
    assert isinstance(config, CRISConfig)
    with jax.default_matmul_precision("highest"):
        tokens = model.tokenizer.table(PHRASES, config.text.context_length, truncate=True)
        yield compare("transformers' text tower", *sentences(config, model.weights, tokens))
        try:
            import open_clip  # noqa: F401  # pyright: ignore[reportMissingImports]
        except ImportError:
            yield "not compared: the encoder; install open_clip_torch for that"
        else:
            images = np.random.default_rng(0).standard_normal((1, 64, 64, 3)).astype(np.float32)
            yield compare("open_clip's ResNet before its attention pool", *grids(config, model.weights, images))
    yield UNVERIFIED


def sentences(
    config: CRISConfig, weights: Mapping[str, np.ndarray], tokens: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Our sentence vectors and transformers', (batch, embedding width), of (batch, length) tokens."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    sizes = config.text
    theirs = CLIPTextModelWithProjection(
        CLIPTextConfig(
            hidden_size=sizes.width,
            intermediate_size=sizes.hidden,
            num_hidden_layers=sizes.blocks,
            num_attention_heads=sizes.heads,
            max_position_embeddings=sizes.context_length,
            vocab_size=sizes.vocabulary,
            projection_dim=config.vision.embedding_width,
            hidden_act="quick_gelu",
            eos_token_id=sizes.end_token,
        )
    ).eval()
    text = {path: array for path, array in weights.items() if path.startswith("text_tower/")}
    tensors = rules.to_theirs(text_rules(sizes.blocks, NAMES, rules.LINEAR), text)
    theirs.load_state_dict({name.removeprefix("clip."): torch.tensor(tensor) for name, tensor in tensors.items()})
    with torch.inference_mode():
        expected = theirs(input_ids=torch.tensor(tokens, dtype=torch.long)).text_embeds.numpy()
    params = subtree({path: jnp.asarray(array) for path, array in text.items()}, "text_tower")
    tower = fill_module(lambda rngs: TextTower(sizes, config.vision.embedding_width, rngs), params)
    return np.asarray(tower(jnp.asarray(tokens), Prompts()).sentence), expected


def grids(config: CRISConfig, weights: Mapping[str, np.ndarray], images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Our last grid before the attention pool and open_clip's, of (batch, height, width, 3) normalised images."""
    import torch
    from open_clip.modified_resnet import (  # pyright: ignore[reportMissingImports]
        ModifiedResNet as TheirResNet,
    )

    sizes = config.vision
    theirs = TheirResNet(list(sizes.layers), sizes.embedding_width, sizes.width // 2, sizes.image_size, sizes.width)
    tensors = rules.to_theirs(cris_rules(config), weights)
    prefix = "backbone.visual."
    encoder = {
        name.removeprefix(prefix): torch.tensor(tensor)
        for name, tensor in tensors.items()
        if name.startswith(prefix) and ".connect." not in name
    }
    missing, unknown = theirs.eval().load_state_dict(encoder, strict=False)
    if unknown or any(not name.endswith("num_batches_tracked") for name in missing):
        raise UserError(f"open_clip differs in {', '.join([*missing, *unknown][: rules.SHOWN])}", "wrong-weights")
    with torch.inference_mode():
        x = theirs.stem(torch.tensor(images.transpose(0, 3, 1, 2)))
        for number in range(1, 5):
            x = getattr(theirs, f"layer{number}")(x)

    @jax.jit
    def last_grid(tower: FlatParams, images: Array) -> Array:
        return fill_module(lambda rngs: ModifiedResNet(sizes, rngs), tower).stage_grids(images)[-1]

    tower = subtree({path: jnp.asarray(array) for path, array in weights.items()}, "vision_tower")
    return np.asarray(last_grid(tower, jnp.asarray(images))), x.numpy().transpose(0, 2, 3, 1)
