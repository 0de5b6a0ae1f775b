"""Tests of CRIS and its encoder: shapes, BatchNorm, prompts, training steps, and agreement with torch."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import mistakes
import numpy as np
import pytest
import small
import small_cris
import torch
from flax import nnx
from numpy.testing import assert_allclose
from torch.nn import functional

from tunevlseg_jax.config import Config, Model, Optim, Train
from tunevlseg_jax.data.feeding.batch import Rows, Source
from tunevlseg_jax.learners import (
    IVLP,
    VPT,
    CoCoOp,
    CoOp,
    KgCoOp,
    MaPLe,
    PromptSRC,
    SharedAttention,
    SharedSeparate,
    ZeroShot,
)
from tunevlseg_jax.models.build import fill_module, weight_shapes
from tunevlseg_jax.models.cris import CRIS, CRISConfig, convolve_each
from tunevlseg_jax.models.features import Decoded, ImageFeatures
from tunevlseg_jax.models.insertion import inject
from tunevlseg_jax.models.parameters import module_parameters
from tunevlseg_jax.models.resize import resize_matrix
from tunevlseg_jax.models.resnet import RN50, RN101, ModifiedResNet
from tunevlseg_jax.network import Network
from tunevlseg_jax.prompts import Prompts
from tunevlseg_jax.training import step
from tunevlseg_jax.training.build import build_experiment
from tunevlseg_jax.training.experiment import Experiment
from tunevlseg_jax.training.optim import Schedule

quick_compilation = small.quick_compilation


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_cris.write_folder(tmp_path_factory.mktemp("cris"))


@cache
def model() -> CRIS:
    return fill_module(
        small_cris.sizes().build, {path: jnp.asarray(array) for path, array in small_cris.weights().items()}
    )


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((*shape, 3)).astype(np.float32)


@cache
def forward():
    """From images and tokens to image features and the decoder's output, compiled."""
    experiment = model()

    def run(x: jax.Array, table: jax.Array) -> tuple[ImageFeatures, Decoded]:
        features = experiment.vision(x, Prompts())
        return features, experiment.decode(features, experiment.text(table, Prompts()))

    return jax.jit(run)


def tokens(*phrases: str) -> jax.Array:
    return jnp.asarray(small_cris.tokenizer().table(phrases, 12))


@pytest.mark.parametrize("size", [(64, 64), (32, 96)])
def test_any_multiple_of_32(size):
    features, decoded = jax.eval_shape(forward(), images(2, *size), tokens("a cat.", "a dog."))
    widths = small_cris.sizes().neck_widths
    for grid, stride, width in zip(features.states, (16, 16, 32), widths, strict=True):
        assert grid.shape == (2, size[0] // stride, size[1] // stride, width)
    assert decoded.logits.shape == (2, *size)
    assert decoded.features.shape == (2, size[0] // 16, size[1] // 16, 64)


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="64x48 pixels is not a multiple of 32"):
        model().vision(jnp.asarray(images(1, 64, 48)), Prompts())


@pytest.mark.parametrize(
    "changes", [{"neck_widths": (16, 32, 32)}, {"decoder_heads": 3}], ids=["words of another width", "heads"]
)
def test_sizes_that_do_not_go_together(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        weight_shapes(dataclasses.replace(small_cris.sizes(), **changes))


def test_presets_have_the_sizes_of_clip():
    """RN50's visual tower in CLIP has 38,316,896 parameters and RN101's 56,259,936 (OpenAI's checkpoints)."""
    for preset, published in ((RN50, 38_316_896), (RN101, 56_259_936)):
        encoder = module_parameters(nnx.eval_shape(lambda preset=preset: ModifiedResNet(preset, nnx.Rngs(0))))
        learnt = [
            leaf.size
            for path, leaf in encoder.items()
            if "connect" not in path and not path.endswith(("mean", "variance"))
        ]
        assert sum(learnt) == published


@pytest.mark.slow
def test_padding_changes_nothing():
    x, short = images(1, 64, 64), tokens("a cat.")
    long = jnp.concatenate([short, jnp.repeat(short[:, -1:], 5, axis=1)], axis=1)
    logits = [forward()(x, table)[1].logits for table in (short, long)]
    assert_allclose(logits[1], logits[0], rtol=1e-5, atol=1e-5)
    other = forward()(x, tokens("a dog."))[1].logits
    assert np.abs(other - logits[0]).max() > 1e-2


def test_folding_gives_the_same_outputs():
    config, weights = small_cris.sizes().for_frozen_encoder(small_cris.weights())
    assert config.folded
    assert {path: array.shape for path, array in weights.items()} == weight_shapes(config)
    assert not any("vision_tower" in path and "/norm/" in path for path in weights)
    kept = {path for path in small_cris.weights() if not path.startswith("vision_tower/")}
    assert all(weights[path] is small_cris.weights()[path] for path in kept)

    folded = fill_module(config.build, {path: jnp.asarray(array) for path, array in weights.items()})
    x = jnp.asarray(images(2, 64, 64))
    after, before = (jax.jit(encoder)(x) for encoder in (folded.vision_tower, model().vision_tower))
    for ours, theirs in zip(after, before, strict=True):
        assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_encoder_agrees_with_torch():
    """Torch's convolutions, norms, pools and attention on the published tensors, at a size unlike the stored."""
    tensors = {name: torch.tensor(x) for name, x in small_cris.published().items()}
    x = images(2, 64, 96)
    expected = torch_encoder(tensors, torch.tensor(x.transpose(0, 3, 1, 2)))
    for ours, theirs in zip(jax.jit(model().vision_tower)(x), expected, strict=True):
        theirs = theirs.numpy().transpose(0, 2, 3, 1)
        assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def torch_encoder(tensors: dict[str, torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    """C3, C4 and C5, as the papers describe them."""

    def conv(x, name, norm, stride=1):
        kernel = tensors[f"backbone.visual.{name}.weight"]
        x = functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        parts = [
            tensors[f"backbone.visual.{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        ]
        return functional.batch_norm(x, *parts, eps=1e-5)

    for number in (1, 2, 3):
        x = functional.relu(conv(x, f"conv{number}", f"bn{number}", stride=2 if number == 1 else 1))
    x = functional.avg_pool2d(x, 2)
    grids = []
    for stage, blocks in enumerate(small_cris.sizes().vision.layers, start=1):
        for block in range(blocks):
            name, pool = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = functional.relu(conv(x, f"{name}.conv1", f"{name}.bn1"))
            y = functional.avg_pool2d(functional.relu(conv(y, f"{name}.conv2", f"{name}.bn2")), pool)
            y = conv(y, f"{name}.conv3", f"{name}.bn3")
            if block == 0:
                x = conv(functional.avg_pool2d(x, pool), f"{name}.downsample.0", f"{name}.downsample.1")
            x = functional.relu(x + y)
        grids.append(x)

    pool = {name.removeprefix("backbone.visual.attnpool."): tensor for name, tensor in tensors.items()}
    batch, width, rows, columns = x.shape
    side = small_cris.sizes().vision.image_size // 32
    stored = pool["positional_embedding"][1:].T.reshape(1, width, side, side)
    places = functional.interpolate(stored, (rows, columns), mode="bicubic", align_corners=False)
    cells = (x + places).flatten(2).permute(2, 0, 1)
    mixed, _ = functional.multi_head_attention_forward(
        cells,
        cells,
        cells,
        width,
        width // 64,
        None,
        torch.cat([pool[f"{letter}_proj.bias"] for letter in "qkv"]),
        None,
        None,
        False,
        0.0,
        pool["c_proj.weight"],
        pool["c_proj.bias"],
        use_separate_proj_weight=True,
        q_proj_weight=pool["q_proj.weight"],
        k_proj_weight=pool["k_proj.weight"],
        v_proj_weight=pool["v_proj.weight"],
        training=False,
        need_weights=False,
    )
    mixed = mixed.permute(1, 2, 0).reshape(batch, -1, rows, columns)
    return [*grids[1:3], functional.relu(mixed + conv(x, "attnpool.connect.0", "attnpool.connect.1"))]


@pytest.mark.parametrize(("source", "target"), [(16, 64), (5, 7), (7, 5), (1, 4), (4, 1), (6, 6)])
@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_aligned_corners_are_torchs(source, target, method):
    rows = np.random.default_rng(0).standard_normal((2, 3, source)).astype(np.float32)
    square = torch.tensor(rows)[..., None].expand(2, 3, source, source)
    expected = functional.interpolate(square, (target, source), mode=method, align_corners=True)[..., 0]
    ours = rows @ resize_matrix(source, target, method, align_corners=True).T
    assert_allclose(ours, expected, atol=1e-5)


def test_a_kernel_for_each_sample_is_torchs_grouped_convolution():
    rng = np.random.default_rng(0)
    x, kernels = rng.standard_normal((2, 5, 7, 3)), rng.standard_normal((2, 3, 3, 3))
    grouped = torch.tensor(x.transpose(0, 3, 1, 2).reshape(1, 6, 5, 7))
    expected = functional.conv2d(grouped, torch.tensor(kernels), padding=1, groups=2)[0]
    ours = convolve_each(jnp.asarray(x, jnp.float32), jnp.asarray(kernels, jnp.float32))
    assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("offset", [0, 1])
def test_offset_of_prompts(offset):
    """Block k > 0 takes prompt k - offset while there is one; without one it carries what is there."""
    prompts = jnp.arange(1.0, 4)[:, None, None, None] * jnp.ones((3, 1, 2, 4))
    carried = jnp.full((1, 6, 4), 9.0)
    taken = [float(inject(carried, prompts, 2, block, 1, offset=offset)[0, 1, 0]) for block in range(1, 5)]
    assert taken == ([2, 9, 9, 9] if offset == 0 else [1, 2, 9, 9])


@pytest.mark.parametrize("learner", [VPT, MaPLe, SharedSeparate, SharedAttention, IVLP, PromptSRC])
def test_vision_prompts_are_refused_by_name(learner, folder):
    config = Config(model=Model(checkpoint=str(folder)), learner=learner(depth=2))
    with mistakes.raises(f"learner-unfit: CoOp, CoCoOp or KgCoOp, .*{learner.__name__}.* vision tower"):
        build_experiment(config)
    with pytest.raises(ValueError, match="takes no vision prompts"):
        model().vision(jnp.asarray(images(1, 32, 32)), Prompts(vision=jnp.zeros((1, 1, 2, 8))))


@pytest.mark.parametrize("upsampling", ["none", pytest.param("blend", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "learner",
    [CoOp(depth=2), *(pytest.param(each(depth=3), marks=pytest.mark.slow) for each in (CoCoOp, KgCoOp))],
    ids=["coop", "cocoop", "kgcoop"],
)
def test_training_step(learner, upsampling, folder):
    config = Config(
        model=Model(checkpoint=str(folder), prompt_offset=1),
        learner=learner,
        upsampling=upsampling,
        optim=Optim(learning_rate=1e-3),
    )
    experiment = build_experiment(config)
    assert experiment.network.config.folded and experiment.network.config.prompt_offset == 1
    assert not any(path.startswith("model/") for path in experiment.trainable)
    losses, after = train(experiment, 3)
    assert losses[-1] < losses[0]
    for path, before in experiment.trainable.items():
        assert np.abs(after[path] - before).max() > 0, path


@pytest.mark.slow
@pytest.mark.parametrize("tune", ["decoder", "all"])
def test_baselines_keep_statistics(tune, folder):
    config = Config(model=Model(checkpoint=str(folder)), learner=ZeroShot(), train=Train(tune=tune))
    experiment = build_experiment(config)
    statistics = {path for path in experiment.frozen if path.endswith(("/mean", "/variance"))}
    assert any(path.startswith("model/decoder/") for path in statistics)
    assert experiment.network.config.folded == (tune == "decoder")
    if tune == "all":
        assert set(experiment.frozen) == statistics
        assert "model/vision_tower/stem/0/norm/scale" in experiment.trainable
    else:
        assert all(path.startswith("model/decoder/") for path in experiment.trainable)
    losses, _ = train(experiment, 2)
    assert np.isfinite(losses).all()


@pytest.mark.slow
def test_full_size_training_step():
    """RN50 at 416 pixels, random weights, a batch of two; CoCoOp is CoOp and a projector."""
    learner = CoCoOp(depth=2, init_phrase=None)
    config, weights = CRISConfig().for_frozen_encoder(small_cris.random_weights(CRISConfig()))
    net = Network(config, learner, "blend")
    params = net.init(jax.random.key(0), weights, config.spec(lambda phrase: jnp.zeros((4, 512))))
    trainable = {path: array for path, array in params.items() if not path.startswith("model/")}
    frozen = {path: array for path, array in params.items() if path.startswith("model/")}
    table = jnp.asarray([[49406, 320, 2368, 269, 49407], [49406, 320, 1929, 269, 49407]])
    batch = batch_of(2, config.image_size)
    hyper = step.Hyperparameters(*(jnp.asarray([value]) for value in (1e-2, 1e-3, 2, 0.0, 0)))
    state = step.init(jax.tree.map(lambda array: array[None], trainable), hyper)
    state, sums = step.train_step(state, frozen, batch, table, network=net, schedule=Schedule(0, 0))
    assert np.isfinite(sums.loss).all()
    for path, before in trainable.items():
        assert np.abs(state.trainable[path][0] - before).max() > 0, path


def test_encoder_agrees_with_open_clip():
    """RN50 up to its attention pool, random weights."""
    pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    from conversion import cris_verify

    config = CRISConfig()
    ours, theirs = cris_verify.grids(config, small_cris.random_weights(config), images(1, 64, 64))
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


def train(experiment: Experiment, steps: int) -> tuple[list[float], dict[str, np.ndarray]]:
    """The loss before each of some steps on one batch, and the parameters after them."""
    table, frozen_text = experiment.token_table(["cat", "dog"]), experiment.frozen_text(["cat", "dog"])
    batch = batch_of(2, experiment.image_size[0])
    losses = []
    state = step.init(jax.tree.map(lambda array: jnp.array(array)[None], experiment.trainable), experiment.hyper())
    for _ in range(steps):
        state, sums = step.train_step(
            state, experiment.frozen, batch, table, frozen_text, network=experiment.network, schedule=Schedule(0, 0)
        )
        losses.append(float(sums.loss[0] / sums.samples[0]))
    return losses, {path: np.asarray(array[0]) for path, array in state.trainable.items()}


def batch_of(count: int, side: int) -> Source:
    rng = np.random.default_rng(5)
    one = jnp.ones(count, jnp.uint8)
    return Source(
        jnp.asarray(rng.integers(0, 256, (count, side, side, 3), np.uint8)),
        jnp.asarray(rng.random((count, side, side)) < 0.3, jnp.uint8),
        Rows(None, None, bits=one, value=one, phrase=jnp.arange(count) % 2, weight=jnp.ones(count)),
    )
