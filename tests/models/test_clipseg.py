"""Our CLIPSeg against Hugging Face's, with the same random weights."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from tunevlseg_jax.benchmarks import peer_process
from tunevlseg_jax.learners import VPT, CoOp, ZeroShot
from tunevlseg_jax.models.build import random_model, weight_shapes
from tunevlseg_jax.models.clip import LEGACY_END_TOKEN, TextConfig, VisionConfig
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.network import Network, normalize
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.clipseg_config import config_to_huggingface
from tunevlseg_jax.pretrained.clipseg_tensors import clipseg_rules

END = 60
SMALL = CLIPSegConfig(
    text=TextConfig(width=16, blocks=2, heads=2, hidden=24, vocabulary=64, context_length=12),
    vision=VisionConfig(width=24, blocks=4, heads=3, hidden=32, patch=16, image_size=64),
    embedding_width=20,
    taps=(0, 2),
    decoder_width=8,
    decoder_heads=2,
    decoder_hidden=12,
    conditional_layer=1,
)
# Of unequal length; what pads is the end token, as CLIP's tokenizer has it.
PROMPTS = np.array([[59, 7, 9, END, END, END], [59, 8, 3, 5, 11, END]])
# Its decoder takes every grid for a square one, so a rectangle must have as many patches as some square.
SIZES = [(64, 64), (96, 96), (32, 128), (144, 16)]


@pytest.mark.parametrize(
    ("complex_upsampling", "size"),
    [*((False, size) for size in SIZES), *((True, size) for size in SIZES[1:3])],
    ids=str,
)
@pytest.mark.usefixtures("quick_compilation")
def test_logits_agree_with_transformers(complex_upsampling, size):
    config = dataclasses.replace(SMALL, complex_upsampling=complex_upsampling)
    images = random_images(2, size)
    theirs = their_logits(config, images, PROMPTS)
    assert theirs.shape == (2, *size)
    assert difference(our_logits(config, images, PROMPTS), theirs) <= 1e-5


@pytest.mark.parametrize("learner", [CoOp(depth=2, num_context=3), VPT(depth=3, num_context=3)], ids=repr)
@pytest.mark.usefixtures("quick_compilation")
def test_logits_with_prompts_agree_with_those_of_the_peer_that_trains(learner):
    images, phrase = random_images(2, (64, 64)), jnp.arange(2)
    tower, width = ("text", SMALL.text.width) if isinstance(learner, CoOp) else ("vision", SMALL.vision.width)
    context = 0.5 * np.random.default_rng(1).normal(size=(learner.depth, 3, width)).astype(np.float32)
    model = their_model(SMALL)
    model.set_attn_implementation("sdpa")
    pixels = torch.tensor(np.asarray(normalize(jnp.asarray(images), SMALL))).permute(0, 3, 1, 2)
    with torch.inference_mode():
        prompts = {tower: torch.tensor(context)}
        theirs = peer_process.logits(model, pixels, torch.tensor(PROMPTS), **prompts).numpy()
        without = peer_process.logits(model, pixels, torch.tensor(PROMPTS)).numpy()
    model.set_attn_implementation("eager")
    weights = our_weights(SMALL) | {"learner/context": jnp.asarray(context)}
    network = Network(SMALL, learner)
    run = jax.jit(partial(network.logits, depth=jnp.int32(learner.depth), dropout=jnp.float32(0)))
    assert difference(np.asarray(run(weights, jnp.asarray(images), phrase, jnp.asarray(PROMPTS))), theirs) <= 1e-5
    assert difference(our_logits(SMALL, images, PROMPTS), without) <= 1e-5
    assert difference(theirs, without) > 1e-2


@pytest.mark.parametrize(
    ("end_token", "tokens"),
    [
        # The historical 2: the largest id ends the prompt, wherever it is and whatever follows.
        (LEGACY_END_TOKEN, [[59, 7, END, END, END], [59, 63, 5, 11, END]]),
        # A real one: its first occurrence, though other ids are larger.
        (END, [[61, 7, END, END, END], [61, 63, 5, 11, END]]),
        (END, [[61, 7, END, 0, 0], [61, 63, 5, 11, END]]),
    ],
)
@pytest.mark.usefixtures("quick_compilation")
def test_end_token(end_token, tokens):
    config = dataclasses.replace(SMALL, text=dataclasses.replace(SMALL.text, end_token=end_token))
    images = random_images(2, (64, 64))
    tokens = np.array(tokens)
    theirs = their_logits(config, images, tokens)
    assert difference(our_logits(config, images, tokens), theirs) <= 1e-5


@pytest.mark.usefixtures("quick_compilation")
def test_padding_does_not_matter():
    images = random_images(2, (64, 64))
    padded = np.pad(PROMPTS, ((0, 0), (0, 4)), constant_values=END)
    assert difference(our_logits(SMALL, images, padded), our_logits(SMALL, images, PROMPTS)) <= 1e-5


@pytest.mark.usefixtures("quick_compilation")
def test_each_image_gets_the_mask_of_its_phrase():
    images = random_images(2, (64, 64))
    forth, back, both = (our_logits(SMALL, images, PROMPTS, phrase) for phrase in ([0, 1], [1, 0], [1, 1]))
    assert difference(both[0], back[0]) <= 1e-5 and difference(both[1], forth[1]) <= 1e-5
    assert difference(back, forth) > 1e-2


def test_an_image_that_the_patch_does_not_divide():
    with pytest.raises(ValueError, match="an image of 64x60 pixels is not a multiple of the patch, 16"):
        our_logits(SMALL, random_images(1, (64, 60)), PROMPTS[:1])


def test_more_tokens_than_positions():
    with pytest.raises(ValueError, match="13 text positions, more than the tower's 12"):
        our_logits(SMALL, random_images(1, (64, 64)), np.full((1, 13), END))


@pytest.mark.slow
def test_logits_of_the_full_size():
    """ViT-B/16 as CIDAS/clipseg-rd64 has it: 224-pixel positions at 352 pixels."""
    config = CLIPSegConfig()
    images = random_images(2, (352, 352))
    tokens = np.array([[49406, 320, 1125, 269, 49407, 49407, 49407], [49406, 320, 736, 4857, 530, 269, 49407]])
    theirs = their_logits(config, images, tokens, end=49407)
    largest = difference(our_logits(config, images, tokens), theirs)
    print(f"full-size difference: {largest:.1e}")
    assert largest <= 1e-4


@cache
def their_model(config: CLIPSegConfig) -> transformers.CLIPSegForImageSegmentation:
    """With every parameter random: norms, biases and embeddings too."""
    theirs = transformers.CLIPSegConfig.from_dict(config_to_huggingface(config))
    theirs._attn_implementation = "eager"
    model = transformers.CLIPSegForImageSegmentation(theirs).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.normal_(1, 0.2, generator=generator)
            else:
                fan_in = parameter[0].numel() if parameter.ndim > 1 and "embeddings" not in name else 4
                parameter.normal_(0, fan_in**-0.5, generator=generator)
    return model


def their_logits(config: CLIPSegConfig, images: np.ndarray, tokens: np.ndarray, end: int = END) -> np.ndarray:
    """(batch, height, width), from the decoder's last tokens, put into a grid of the image's shape."""
    model, outputs = their_model(config), []
    handle = model.decoder.layers[-1].register_forward_hook(lambda module, inputs, output: outputs.append(output))
    ids = torch.tensor(tokens)
    ends = (ids == end).int().argmax(1, keepdim=True)
    mask = (torch.arange(ids.shape[1])[None] <= ends).int()
    pixels = torch.tensor(np.asarray(normalize(jnp.asarray(images), config))).permute(0, 3, 1, 2)
    with torch.inference_mode():
        square = model(input_ids=ids, attention_mask=mask, pixel_values=pixels).logits
        grid = (images.shape[1] // config.vision.patch, images.shape[2] // config.vision.patch)
        features = outputs[0][:, 1:].transpose(1, 2).unflatten(2, grid)
        logits = model.decoder.transposed_convolution(features)[:, 0]
    handle.remove()
    if grid[0] == grid[1]:
        torch.testing.assert_close(logits, square.reshape(logits.shape))
    return logits.numpy()


def our_logits(config: CLIPSegConfig, images: np.ndarray, tokens: np.ndarray, phrase=None) -> np.ndarray:
    """Through the network without a learner."""
    phrase = jnp.asarray(np.arange(len(images)) if phrase is None else phrase, jnp.int32)
    run = _compiled(config)
    return np.asarray(run(our_weights(config), jnp.asarray(images), phrase, jnp.asarray(tokens, jnp.int32)))


@cache
def our_weights(config: CLIPSegConfig) -> dict[str, jax.Array]:
    tensors = {name: tensor.numpy() for name, tensor in their_model(config).state_dict().items()}
    weights = rules.to_ours(clipseg_rules(config), tensors, weight_shapes(config))
    return {f"model/{path}": jnp.asarray(weight) for path, weight in weights.items()}


@cache
def _compiled(config: CLIPSegConfig):
    def run(weights, images, phrase, table):
        return Network(config, ZeroShot()).logits(
            weights, images, phrase, table, depth=jnp.int32(0), dropout=jnp.float32(0)
        )

    return jax.jit(run)


def random_images(count: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8)


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.slow
def test_effective_vision_prompts_are_those_that_change_the_mask():
    """The gradient says so: the prompts counted as live have one, and those after them have none."""
    config = dataclasses.replace(SMALL, vision=dataclasses.replace(SMALL.vision, blocks=6))
    params = {f"model/{path}": weight for path, weight in random_model(config, jax.random.key(0)).items()}
    net = Network(config, VPT(depth=6))
    context = 0.1 * jax.random.normal(jax.random.key(1), (6, 4, config.vision.width))

    def energy(context):
        logits = net.logits(
            params | {"learner/context": context},
            jnp.asarray(random_images(1, (64, 64))),
            jnp.zeros(1, jnp.int32),
            jnp.asarray(PROMPTS[:1], jnp.int32),
            depth=jnp.int32(6),
            dropout=jnp.float32(0),
        )
        return jnp.square(logits).sum()

    felt = jnp.abs(jax.grad(energy)(context)).max(axis=(1, 2)) > 0
    live = config.spec(lambda phrase: jnp.zeros((0, 16))).effective_vision_prompts
    assert live == 4 and felt.tolist() == [row < live for row in range(6)]
