"""Parity of CRIS with the published PyTorch nets: features, words, logits, loss and every gradient.

`golden_cris/` holds as many cases as fit, and the encoder's outputs in place of its weights; the variable
TUNEVLSEG_GOLDEN may name a folder with all of them, whose checkpoint then goes through the converter.
"""

import dataclasses
import json
import lzma
import os
from functools import cache
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import test_golden
from numpy.testing import assert_array_equal
from safetensors.numpy import load, load_file

from conversion import cris_model, torch_files
from conversion.cris_tensors import cris_rules
from conversion.published.tensors import from_published, to_published
from tunevlseg_jax.learners import CoCoOp, CoOp, Projector
from tunevlseg_jax.learners.contract import Learner
from tunevlseg_jax.models.build import fill_module, weight_shapes, with_prompt_offset
from tunevlseg_jax.models.clip import TextConfig
from tunevlseg_jax.models.cris import CRISConfig
from tunevlseg_jax.models.resnet import ModifiedResNet, ResNetConfig
from tunevlseg_jax.network import Network
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.prompts import Prompts
from tunevlseg_jax.training import losses

pytestmark = pytest.mark.xdist_group("golden")  # the cases share most operations
quick_compilation = small.quick_compilation

EMBEDDED = Path(__file__).parents[1] / "golden_cris"
GOLDEN = Path(os.environ.get("TUNEVLSEG_GOLDEN", ""))
WHOLE = (GOLDEN / "cris" / "cris_best.pth").is_file()
ROWS = [
    row
    for row in json.loads(((GOLDEN if WHOLE else EMBEDDED) / "index.json").read_text())
    if row["model"] == "cris" and (not WHOLE or (GOLDEN / row["file"]).is_file())
]
TOLERANCE = 1e-5
THEIRS = json.loads((GOLDEN / "cris" / "config.json" if WHOLE else EMBEDDED / "config.json").read_text())
"""The published configuration of the golden model."""
SIZES = CRISConfig(
    text=TextConfig(
        width=THEIRS["text_width"],
        blocks=THEIRS["text_layers"],
        heads=THEIRS["text_heads"],
        hidden=4 * THEIRS["text_width"],
        vocabulary=THEIRS["vocab_size"],
        context_length=THEIRS["context_length"],
    ),
    vision=ResNetConfig(
        layers=tuple(THEIRS["vision_layers"]),
        width=THEIRS["vision_width"],
        embedding_width=THEIRS["embed_dim"],
        image_size=THEIRS["image_resolution"],
    ),
    neck_widths=tuple(THEIRS["fpn_out"]),
    decoder_layers=THEIRS["num_layers"],
    decoder_heads=THEIRS["num_head"],
    decoder_hidden=THEIRS["dim_ffn"],
    image_size=THEIRS["img_size"],
)
ENCODER = "backbone.visual."


@pytest.fixture(autouse=True)
def encoder(monkeypatch):
    """The encoder's outputs replace it if its weights are missing."""
    if not WHOLE:
        c3, c4, c5 = golden_features()
        monkeypatch.setattr(ModifiedResNet, "__call__", lambda self, images: (c3, c4, c5))


def test_cases_were_found():
    assert len(ROWS) >= (18 if WHOLE else 4)
    assert {(row["learner"], row["semantics"]) for row in ROWS} >= {
        (learner, semantics) for learner in ("coop", "cocoop") for semantics in ("paper", "published")
    }


def test_sizes_and_every_tensor_both_ways():
    theirs = checkpoint()
    config, weights = convert(theirs)
    assert config == SIZES
    back = rules.to_theirs(cris_rules(config), weights)
    chex.assert_trees_all_equal(back, theirs, strict=True)


@pytest.mark.slow
@pytest.mark.parametrize("folded", [False, True])
def test_stages(folded):
    if folded and not WHOLE:
        pytest.skip("the encoder's weights are not in golden_cris; set TUNEVLSEG_GOLDEN")
    config, frozen = golden_model(folded)
    inputs = read("inputs")
    model = fill_module(config.build, {path.removeprefix("model/"): array for path, array in frozen.items()})
    image_features = model.vision(_images(inputs), Prompts())
    for features, golden in zip(model.vision_tower(_images(inputs)), golden_features(), strict=True):
        assert _difference(features, golden) <= TOLERANCE
    words = model.text(jnp.asarray(inputs["input_ids"], jnp.int32), Prompts())
    assert_array_equal(words.valid, inputs["attention_mask"].astype(bool))
    assert _difference(words.states, inputs["expected.words"]) <= TOLERANCE
    assert _difference(words.sentence, inputs["expected.sentence"]) <= TOLERANCE
    logits = model.decode(image_features, words).logits
    assert _difference(logits, inputs["expected.zero_shot_logits"][:, 0]) <= TOLERANCE


@pytest.mark.parametrize("row", test_golden.cases(ROWS))
def test_parity(row):
    tensors = read(Path(row["file"]).stem)
    params, expected = group(tensors, "param"), group(tensors, "grad")
    config, frozen = golden_model(folded=True)  # as training with a frozen encoder has it
    config = with_prompt_offset(config, 1 if row["semantics"] == "published" else 0)
    net = Network(config, learner_of(row), "blend" if row["upsampler"] else "none")
    trained = from_published(params, net)
    back = to_published(trained, net)
    chex.assert_trees_all_equal(back, params, strict=True)

    loss, logits, gradients = _loss_and_gradients(net, trained, frozen)
    assert _difference(logits, tensors["expected.logits"][:, 0]) <= TOLERANCE
    assert _difference(loss, tensors["expected.loss"][0]) <= TOLERANCE
    gradients = to_published(gradients, net)
    assert gradients.keys() == expected.keys()
    for name in expected:
        assert _difference(gradients[name], expected[name]) <= TOLERANCE, name


def test_prompt_offset_changes_the_logits():
    """The published injection differs from the paper's, so the parity tests can tell them apart."""
    row = next(row for row in ROWS if row["learner"] == "coop")
    config, frozen = golden_model(folded=True)
    net = Network(config, CoOp(depth=row["depth"]))
    trained = from_published(group(read(Path(row["file"]).stem), "param"), net)
    nets = (dataclasses.replace(net, config=with_prompt_offset(config, offset)) for offset in (0, 1))
    logits = [_loss(net, frozen | trained)[1] for net in nets]
    assert _difference(logits[1], logits[0]) > 1e-3


@cache
def checkpoint() -> dict[str, np.ndarray]:
    """The checkpoint's tensors; zeros for those that golden_cris leaves out."""
    if WHOLE:
        return torch_files.state_dict(GOLDEN / "cris" / "cris_best.pth")
    zeros = {path: np.zeros(shape, np.float32) for path, shape in weight_shapes(SIZES).items()}
    left_out = {name: x for name, x in rules.to_theirs(cris_rules(SIZES), zeros).items() if name.startswith(ENCODER)}
    return read("weights") | left_out


def convert(theirs: dict[str, np.ndarray]) -> tuple[CRISConfig, dict[str, np.ndarray]]:
    return cris_model.convert(theirs, decoder_heads=SIZES.decoder_heads, image_size=SIZES.image_size)


@cache
def golden_model(folded: bool) -> tuple[CRISConfig, dict[str, jax.Array]]:
    config, weights = convert(checkpoint())
    config = dataclasses.replace(config, mean=(0.0,) * 3, std=(1 / 255,) * 3)  # the images are already normalised
    if folded:
        config, weights = config.for_frozen_encoder(weights)
    return config, {f"model/{path}": jnp.asarray(weight) for path, weight in weights.items()}


@cache
def read(name: str) -> dict[str, np.ndarray]:
    """The tensors of a golden file."""
    if WHOLE:
        return load_file(GOLDEN / "cris" / f"{name}.safetensors")
    packed = load(lzma.decompress((EMBEDDED / f"{name}.safetensors.xz").read_bytes()))
    return {name: _unpacked(x) if x.dtype == np.uint8 and name != "target" else x for name, x in packed.items()}


def _unpacked(planes: np.ndarray) -> np.ndarray:
    """(4, ...) uint8, the bytes of a float32 tensor, as that tensor."""
    return np.asarray(np.ascontiguousarray(np.moveaxis(planes, 0, -1)).view(np.float32)[..., 0])


def golden_features() -> list[jax.Array]:
    inputs = read("inputs")
    return [jnp.asarray(inputs[f"expected.c{level}"].transpose(0, 2, 3, 1)) for level in (3, 4, 5)]


def _images(inputs: dict[str, np.ndarray]) -> jax.Array:
    """(batch, height, width, 3), normalised; zeros if the encoder's outputs replace it."""
    return jnp.asarray(inputs["image"].transpose(0, 2, 3, 1)) if WHOLE else jnp.zeros((*image_shape(inputs), 3))


def image_shape(inputs: dict[str, np.ndarray]) -> tuple[int, ...]:
    """(batch, height, width)."""
    return inputs["target"][:, 0].shape


def learner_of(row: dict) -> Learner:
    """The learner that a row of the index describes."""
    common = {"depth": row["depth"], "num_context": row["num_context"]}
    if row["learner"] == "coop":
        return CoOp(**common)
    projector = Projector(kind=row["projector"], hidden=(row["intermediate_dim"],), norm=row["projector_norm"])
    return CoCoOp(**common, projector=projector, normalize_image=row["normalize_image_features"])


def _loss(net: Network, params) -> tuple[jax.Array, jax.Array]:
    """The mean loss and the logits, as a training step has them."""
    inputs = read("inputs")
    images, targets = _images(inputs), jnp.asarray(inputs["target"][:, 0], jnp.float32)
    table, phrase = jnp.asarray(inputs["input_ids"], jnp.int32), jnp.arange(len(inputs["input_ids"]))
    depth = jnp.int32(net.learner.traced_values()[0])
    logits = net.logits(params, images, phrase, table, depth=depth, dropout=jnp.float32(0))
    return losses.dice_ce(logits, targets).mean(), logits


def _loss_and_gradients(net: Network, trained, frozen) -> tuple[float, np.ndarray, dict[str, np.ndarray]]:
    """The mean loss, the logits and the gradient of every trained tensor."""
    # Not compiled: the cases share most operations, and compiling each case takes five times as long.
    trained = {path: jnp.asarray(tensor) for path, tensor in trained.items()}
    differentiated = jax.value_and_grad(lambda trained: _loss(net, frozen | trained), has_aux=True)
    (loss, logits), gradients = differentiated(trained)
    return float(loss), np.asarray(logits), {path: np.asarray(gradient) for path, gradient in gradients.items()}


def group(tensors: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(f"{kind}."): t for name, t in tensors.items() if name.startswith(f"{kind}.")}


def _difference(ours, theirs) -> float:
    """The largest difference, on the scale of the largest value."""
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()
