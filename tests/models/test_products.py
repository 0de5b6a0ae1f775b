"""Products of bfloat16 operands with float32 results, their gradients, and the frozen weights that they take."""

import dataclasses
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import small_cris
from flax import nnx
from numpy.testing import assert_allclose

from tunevlseg_jax.benchmarks import programs
from tunevlseg_jax.config import Config, Model, Precision, Train
from tunevlseg_jax.data import registry
from tunevlseg_jax.data.settings import Data, Scenes
from tunevlseg_jax.learners import LEARNERS, VPT, Combined, CoOp, LoRA
from tunevlseg_jax.learners.contract import Learner, ZeroShot
from tunevlseg_jax.models.build import products
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.models.parameters import FlatParams
from tunevlseg_jax.models.products import Conv, Linear, product
from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.training import step
from tunevlseg_jax.training.build import build_experiment
from tunevlseg_jax.training.experiment import Experiment
from tunevlseg_jax.training.losses import dice_ce

quick_compilation = small.quick_compilation
HALF = Train(precision="bfloat16", augment=False)


def arrays(*shapes: tuple[int, ...]) -> list[jax.Array]:
    return [jax.random.normal(jax.random.key(n), shape) for n, shape in enumerate(shapes)]


def rounded(x: jax.Array) -> np.ndarray:
    """The values that bfloat16 keeps, in float64."""
    return np.asarray(x.astype(jnp.bfloat16).astype(jnp.float32), np.float64)


def test_a_product_of_bfloat16_operands_is_float32():
    """Rounded once for each operand, and not in the result; so is the gradient, with and without the copy."""
    x, kernel, weight = arrays((2, 7, 16), (16, 5), (2, 7, 5))
    half = kernel.astype(jnp.bfloat16)
    for copy in (None, half.T):
        result, back = jax.vjp(lambda x, copy=copy: product(x, half, copy), x)
        assert result.dtype == jnp.float32
        assert_allclose(result, rounded(x) @ rounded(kernel), rtol=1e-5, atol=1e-5)
        (gradient,) = back(weight)
        assert gradient.dtype == jnp.float32
        assert_allclose(gradient, rounded(weight) @ rounded(kernel).T, rtol=1e-5, atol=1e-5)


def test_in_one_type_a_product_is_the_usual_one():
    x, kernel = arrays((2, 7, 16), (16, 5))
    chex.assert_numerical_grads(product, (x, kernel), order=1, modes=("rev",), atol=1e-2, rtol=1e-2)
    expected = jax.grad(lambda x, kernel: jnp.sin(x @ kernel).sum(), argnums=(0, 1))(x, kernel)
    got = jax.grad(lambda x, kernel: jnp.sin(product(x, kernel)).sum(), argnums=(0, 1))(x, kernel)
    chex.assert_trees_all_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("size", [1, 3])
def test_a_convolution_in_bfloat16(size, copied):
    """As a sum of products it equals the convolution of the rounded operands, and so does its gradient."""
    layer = Conv(6, 4, size, rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.arange(4.0)
    (x,) = arrays((2, 8, 10, 6))
    exact = x.astype(jnp.bfloat16).astype(jnp.float32)
    full = layer.kernel[...]
    layer.kernel.set_value(full.astype(jnp.bfloat16).astype(jnp.float32))
    expected, back = jax.vjp(layer, exact)
    layer.kernel.set_value(full.astype(jnp.bfloat16))
    layer.transposed = layer.transpose(layer.kernel[...]) if copied else None
    got, half_back = jax.vjp(layer, x)
    assert got.dtype == jnp.float32 and got.shape == expected.shape
    assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    weight = jnp.round(8 * jnp.sin(jnp.arange(got.size)).reshape(got.shape))  # which bfloat16 keeps
    assert_allclose(half_back(weight)[0], back(weight)[0], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("doubling", "rows", "columns"),
    [pytest.param("bilinear", 4, 5, marks=pytest.mark.slow), ("bilinear", 1, 2), ("nearest", 3, 4), ("nearest", 1, 2)],
)
def test_a_convolution_of_a_doubled_grid(doubling, rows, columns):
    """With the products first it equals the resize and then the convolution, and so do its gradients."""
    layer = Conv(3, 2, 3, rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)
    x, weight = arrays((2, rows, columns, 3), (2, 2 * rows, 2 * columns, 2))

    def value(state: nnx.State, x: jax.Array, first: bool) -> jax.Array:
        merged = nnx.merge(graph, state)
        large = jax.image.resize(x, (2, 2 * rows, 2 * columns, 3), doubling)
        y = merged.of_doubled(x, doubling) if first else merged(large)
        return (y * weight).sum()

    got, expected = (jax.value_and_grad(value, argnums=(0, 1))(state, x, first) for first in (True, False))
    chex.assert_trees_all_close(got, expected, rtol=1e-5, atol=1e-5)
    layer.transposed = layer.transpose(layer.kernel[...])
    again = jax.grad(lambda x: (layer.of_doubled(x, doubling) * weight).sum())(x)
    assert_allclose(again, expected[1][1], rtol=1e-5, atol=1e-5)


def test_kernels_that_a_cpu_keeps_in_float32():
    """Convolutions of few channels, and strided ones, gain nothing by bfloat16."""
    held = {
        (inputs, size, stride): Conv(inputs, 256, size, stride=stride, rngs=nnx.Rngs(0)).halves
        for inputs, size, stride in [(256, 3, 1), (255, 3, 1), (8, 1, 1), (256, 3, 2)]
    }
    assert held == {(256, 3, 1): True, (255, 3, 1): False, (8, 1, 1): True, (256, 3, 2): False}


def test_parts_of_a_linear_layer():
    layer = Linear(6, 12, rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.arange(12.0)
    inputs = arrays((2, 3, 6), (2, 5, 6), (2, 4, 6))
    for copy in (None, layer.kernel[...].T):
        layer.transposed = copy
        for number, (x, part) in enumerate(zip(inputs, layer.parts(tuple(inputs)), strict=True)):
            assert_allclose(part, layer(x)[..., 4 * number : 4 * number + 4], rtol=1e-6, atol=1e-6)


def experiment(model: str, learner: VPT | CoOp) -> Experiment:
    config = small.config(learner=learner, upsampling="blend", train=HALF)
    return small.build(config) if model == "clipseg" else build_experiment(config, small_cris.model())


def loss_and_gradient(learner: Learner, precision: Precision) -> tuple[float, np.ndarray]:
    """The loss of a batch of noise with random masks, and its flattened gradient, after changes of all parameters."""
    settings = dataclasses.replace(HALF, precision=precision)
    built = small.build(small.config(learner=learner, upsampling="none", train=settings))
    rng = np.random.default_rng(5)
    images = jnp.asarray(rng.integers(0, 256, (4, small.IMAGE, small.IMAGE, 3), np.uint8))
    masks = jnp.asarray(rng.random((4, small.IMAGE, small.IMAGE)) < 0.3, jnp.float32)
    params = {
        path: jnp.asarray(array) + rng.normal(0, 0.02, array.shape).astype(np.float32)
        for path, array in sorted(built.trainable.items())
    }
    tokens = built.token_table(["seven", "a large three"])
    depth, dropout = (jnp.asarray(value) for value in learner.traced_values())

    def loss(trainable: FlatParams) -> jax.Array:
        values, phrases = {**built.frozen, **trainable}, jnp.asarray([0, 1, 0, 1])
        found = built.network.logits(values, images, phrases, tokens, depth=depth, dropout=dropout)
        return dice_ce(found, masks).mean()

    value, gradients = jax.jit(jax.value_and_grad(loss))(params)
    return float(value), np.concatenate([np.ravel(gradients[path]) for path in sorted(gradients)])


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize(
    "learner",
    [*(cls().at_depth(2) for cls in LEARNERS), Combined(of=(VPT(depth=2), LoRA(depth=2)))],
    ids=lambda learner: type(learner).__name__,
)
def test_loss_and_gradient_of_every_learner_agree(learner):
    """In bfloat16 on a CPU and in float32: the loss to 2 %, and the direction of the gradient."""
    (full, expected), (half, gradient) = (loss_and_gradient(learner, name) for name in ("float32", "bfloat16"))
    assert half == pytest.approx(full, rel=0.02) and half != full
    assert gradient @ expected >= 0.99 * np.linalg.norm(gradient) * np.linalg.norm(expected) > 0


@pytest.mark.parametrize(
    ("learner", "stages"),
    [(CoOp(depth=2), {"decoder", "text_tower"}), (VPT(depth=2), {"decoder", "vision_tower"})],
)
def test_copies_are_made_where_a_gradient_passes(learner, stages):
    half = experiment("clipseg", learner)
    copied = {path.removesuffix("/transposed") for path in half.frozen if path.endswith("/transposed")}
    assert {path.split("/")[1] for path in copied} == stages
    for path in copied:
        layer = products(half.network.config)[f"{path.removeprefix('model/')}/kernel"]
        chex.assert_trees_all_equal(half.frozen[f"{path}/transposed"], layer.transpose(half.frozen[f"{path}/kernel"]))
    narrow = {f"model/{path}" for path, layer in products(half.network.config).items() if layer.halves}
    for path, array in half.frozen.items():
        assert array.dtype == (jnp.bfloat16 if path in narrow or path.endswith("transposed") else jnp.float32), path
    assert half.network.with_copies(half.frozen).keys() == half.frozen.keys()


@pytest.mark.parametrize(
    ("model", "learner"),
    [
        pytest.param("clipseg", CoOp(depth=2), marks=pytest.mark.slow),
        ("clipseg", VPT(depth=2)),
        pytest.param("cris", CoOp(depth=2), marks=pytest.mark.slow),
    ],
)
def test_no_frozen_kernel_is_transposed_or_converted_in_the_step(model, learner):
    """In the compiled program each is an operand of a product, as it lies in memory, or a part of one is.

    The projection of a single sentence is the exception: XLA converts the kernel of a product of one row.
    """
    traced = programs.training(experiment(model, learner), sharding.mesh(), 4)
    program = traced.lower().compile().as_text()
    entry = program[program.index("\nENTRY ") :]
    parameters = re.findall(r"%(\S+) = bf16\[\d+,[\d,]+\]\S* parameter\(\d+\).*op_name=\"(.*?)\"", entry)
    held = {name for name, path in parameters if "text_tower/projection" not in path}
    assert len(held) > 20
    lines = re.findall(r"%(\S+) = (\w+)\[([\d,]*)\]\S* ([\w-]+)\((.*?)\)", entry)
    for name, _, _, kind, operands in lines:
        if kind == "bitcast" and held & set(re.findall(r"%([\w.-]+)", operands)):
            held.add(name)
    uses = [
        (name, dtype, kind)
        for name, dtype, _, kind, operands in lines
        if kind != "bitcast" and held & set(re.findall(r"%([\w.-]+)", operands))
    ]
    assert len(uses) >= len(held) / 2
    for name, dtype, kind in uses:
        # A library's product, or the part of a kernel that is the projection of the keys or of the values.
        assert kind == "fusion" and ("ynn" in name or ("slice" in name and dtype == "bf16")), (name, dtype, kind)


def logits(config: Config, model: Pretrained, images: np.ndarray, phrases: list[str]) -> np.ndarray:
    """(image, height, width): the model's answers without a learner, each image asked for its phrase."""
    experiment = build_experiment(config, model, trains=False)
    hyper = jax.tree.map(lambda values: values[0], experiment.hyper())
    params = {**experiment.frozen, **experiment.trainable}
    arguments = params, jnp.asarray(images), jnp.arange(len(images)), experiment.token_table(phrases), hyper
    return np.asarray(step.answer_step(*arguments, network=experiment.network).logits)


def differing(config: Config, model: Pretrained, images: np.ndarray, phrases: list[str], *, random: bool) -> float:
    """The share of pixels away from the threshold on which masks of bfloat16 and float32 differ.

    The logits of `random` weights are standardised, as if by the last bias and scale: half of the pixels are in a mask.
    """
    full, half = (
        logits(dataclasses.replace(config, train=Train(precision=precision)), model, images, phrases)
        for precision in ("float32", "bfloat16")
    )
    middle, spread = (np.median(full), full.std()) if random else (0.0, 1.0)
    full, half = (np.asarray(jax.nn.sigmoid((answers - middle) / spread)) for answers in (full, half))
    assert np.abs(full - half).max() > 0 and 0.005 < (full > 0.5).mean() < 0.995 and full.std() > 0.05
    return float((((full > 0.5) != (half > 0.5)) & (np.abs(full - 0.5) > 0.02)).mean())


ZERO_SHOT = Config(learner=ZeroShot(), upsampling="none")


def asked(size: int) -> tuple[np.ndarray, list[str]]:
    """Eight test images of the embedded scenes, and the phrase that each is asked for."""
    data = Data(name="scenes/photo", scenes=Scenes(train=0, val=0, test=8))
    records = registry.load(data, "test", (size, size))
    return records.images[records.image[:8]], [records.prompts[row][0] for row in records.prompt[:8]]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clipseg-tiny", "cris-tiny", "sam3-tiny"])
def test_masks_of_the_embedded_models_agree(name):
    model = load_pretrained(name)
    config = dataclasses.replace(ZERO_SHOT, model=Model(checkpoint=name))
    assert differing(config, model, *asked(model.config.image_size), random=False) < 0.001


@pytest.mark.slow
def test_masks_of_the_full_size_agree():
    """Random weights of ViT-B/16's size."""
    sizes = CLIPSegConfig()
    model = Pretrained(sizes, small_cris.random_weights(sizes), load_pretrained("clipseg-tiny").tokenizer, "")
    images, phrases = asked(sizes.image_size)
    assert differing(ZERO_SHOT, model, images[:2], phrases[:2], random=True) < 0.001
