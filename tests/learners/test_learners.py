"""The contract that every learner keeps, and its parts against PyTorch's."""

import dataclasses
import itertools
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pages
import pytest
import torch
from learner_cases import BATCH, CONTEXT, IMAGE, ROWS, TEXT, TOWERS, VISION, Step, embed_phrase, init
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from tunevlseg_jax.learners import (
    IVLP,
    VPT,
    CoCoOp,
    CoOp,
    KgCoOp,
    MaPLe,
    Projector,
    PromptSRC,
    SharedAttention,
    SharedSeparate,
)
from tunevlseg_jax.learners.base import ContextLearner
from tunevlseg_jax.learners.textual import TextContextLearner
from tunevlseg_jax.models.insertion import inject, insert
from tunevlseg_jax.models.parameters import flatten
from tunevlseg_jax.prompts import Prompts

LEARNERS = {
    "CoOp": CoOp(depth=ROWS),
    "CoCoOp": CoCoOp(depth=ROWS, projector=Projector(hidden=(8,)), normalize_image=True),
    "VPT": VPT(depth=ROWS),
    "MaPLe": MaPLe(depth=ROWS, projector=Projector(kind="low_rank", hidden=(3,))),
    "SharedSeparate": SharedSeparate(depth=ROWS, width=6),
    "SharedAttention": SharedAttention(depth=ROWS, heads=4, hidden=8),
    "IVLP": IVLP(depth=ROWS),
    "KgCoOp": KgCoOp(depth=ROWS),
    "PromptSRC": PromptSRC(depth=ROWS),
    "TiedVPT": pages.example_learners()["TiedVPT"](depth=ROWS),
}
pytestmark = pytest.mark.usefixtures("quick_compilation")
QUICK = ("CoOp", "CoCoOp", "VPT", "MaPLe", "SharedAttention")
each_learner = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in LEARNERS]
)


@cache
def fresh(name: str) -> dict:
    return init(LEARNERS[name])


@partial(jax.jit, static_argnums=0)
def _make_prompts(learner: ContextLearner, params: dict, dropout, key, pooled) -> Prompts:
    prompts = learner.prompts(params, jnp.int32(ROWS), dropout=dropout, key=key)
    return learner.condition(params, prompts, pooled)


def make_prompts(learner: ContextLearner, params: dict, *, dropout: float = 0.0, key=None) -> Prompts:
    """What the towers get: the prompts once the images are known."""
    pooled = np.random.default_rng(1).standard_normal((BATCH, IMAGE), np.float32)
    return jax.tree.map(np.asarray, _make_prompts(learner, params, np.float32(dropout), key, pooled))


# What a learner gives.


@each_learner
def test_prompts_are_those_that_the_class_announces(name):
    learner = LEARNERS[name]
    prompts = make_prompts(learner, fresh(name))
    images = BATCH if "condition" in learner.changes else 1
    for array, given, width in (
        (prompts.text, "text" in learner.changes, TEXT),
        (prompts.vision, "vision" in learner.changes, VISION),
    ):
        assert (array is not None) == given
        if given:
            assert array.shape == (ROWS, images, CONTEXT, width) and array.dtype == np.float32
            assert np.isfinite(array).all()
    assert prompts.depth == ROWS
    if "condition" in learner.changes:
        assert np.abs(prompts.text[:, 0] - prompts.text[:, 1]).max() > 1e-3


@each_learner
def test_parameters_are_float32(name):
    assert {array.dtype for array in jax.tree.leaves(fresh(name))} == {np.dtype(np.float32)}


@each_learner
def test_first_rows_do_not_depend_on_how_many_there_are(name):
    learner = dataclasses.replace(LEARNERS[name], depth=1)
    deep = dataclasses.replace(TOWERS, text_blocks=5, vision_blocks=5)
    few, many = (flatten(init(dataclasses.replace(learner, max_depth=rows), deep), "") for rows in (3, 5))
    assert few.keys() == many.keys()
    for path, array in few.items():
        shared = len(array) == 1  # by all rows
        assert shared or (len(array), len(many[path])) == (3, 5), path
        assert_array_equal(array, many[path][: len(array)], err_msg=path)
        if not shared and ("kernel" in path or "context" in path):
            assert len(np.unique(np.asarray(array)[:, 0, 0])) == 3, f"{path} is the same in several rows"


@each_learner
def test_context_starts_from_words_or_gaussian(name):
    learner, params = LEARNERS[name], fresh(name)
    contexts = {path: array for path, array in params.items() if path.endswith("context")}
    assert len(contexts) == (2 if name == "SharedAttention" or isinstance(learner, IVLP) else 1)
    for path, context in contexts.items():
        assert all(0.01 < row.std() < 0.03 for row in context[1:])
        if isinstance(learner, TextContextLearner) and path != "vision_context":
            assert_array_equal(context[0], embed_phrase("a photo of a"))
        else:
            assert 0.01 < context[0].std() < 0.03


def test_gaussian_context():
    """N(0, 0.02²) in every row, without words the first one too."""
    learner = CoOp(depth=ROWS, init_phrase=None, num_context=400)
    context = learner.init(jax.random.key(0), TOWERS)["context"]
    assert_allclose(context.std((1, 2)), np.full(ROWS, 0.02), rtol=0.05)
    assert_allclose(context.mean((1, 2)), np.zeros(ROWS), atol=0.002)


# Depth as a value: one compiled program for every depth.


@cache
def step(name: str) -> Step:
    return Step(LEARNERS[name])


@each_learner
def test_another_depth_compiles_nothing(name):
    logits = [step(name).run(fresh(name), depth)[0] for depth in range(1, ROWS + 1)]
    assert step(name).programs == 1
    for shallower, deeper in itertools.pairwise(logits):
        assert np.abs(shallower - deeper).max() > 1e-6


@each_learner
@pytest.mark.parametrize("depth", range(1, ROWS + 1))
def test_prompts_beyond_the_depth_do_nothing(name, depth):
    params = fresh(name)
    logits, gradients = step(name).run(params, depth)
    for path, gradient in flatten(gradients, "").items():
        assert not gradient[depth:].any(), path
        if "bias" not in path:
            assert all(row.any() for row in gradient[:depth]), path
    others = jax.tree.map(lambda array: np.concatenate([array[:depth], -3 * array[depth:]]), params)
    assert_array_equal(step(name).run(others, depth)[0], logits)
    assert step(name).programs == 1


@pytest.mark.slow
def test_fewer_rows_are_the_same_as_a_smaller_depth():
    """What a block beyond the depth does with its prompt tokens is to carry them."""
    logits, _ = step("MaPLe").run(fresh("MaPLe"), 1)
    short = Step(dataclasses.replace(LEARNERS["MaPLe"], depth=1))
    cut = jax.tree.map(lambda array: array[:1], fresh("MaPLe"))
    assert_allclose(short.run(cut, 1)[0], logits, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_each_tower_has_its_own_depth():
    params, ran = fresh("IVLP"), Step(LEARNERS["IVLP"])  # its own: two depths are another program than one
    for text, vision in ((1, 2), (2, 1)):
        _, gradients = ran.run(params, np.array([text, vision], np.int32))
        reached = {name: [bool(row.any()) for row in rows] for name, rows in gradients.items()}
        assert reached == {"text_context": [True, text == 2], "vision_context": [True, vision == 2]}
    learner = IVLP(depth=1, vision_depth=2)
    assert learner.rows == 2 and learner.traced_values()[0] == (1, 2)
    assert learner.static_part() == IVLP(depth=2, max_depth=2).static_part()
    with pytest.raises(ValueError, match=r"learner\.vision_depth .*1 to learner\.max_depth, 2, got 3"):
        IVLP(depth=1, vision_depth=3, max_depth=2).init(jax.random.key(0), TOWERS)


@pytest.mark.parametrize("images", [1, BATCH])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_depth_touches_only_the_blocks_below_it(images, depth):
    random = np.random.default_rng(0)
    prompts = random.standard_normal((4, images, 3, 5), np.float32)
    tokens = random.standard_normal((BATCH, 6, 5), np.float32)
    x = np.asarray(insert(jnp.asarray(tokens), jnp.asarray(prompts), 2))
    assert_array_equal(np.concatenate([x[:, :2], x[:, 5:]], axis=1), tokens)
    for block in range(6):
        before = x
        if block > 0:
            x = np.asarray(inject(jnp.asarray(x), jnp.asarray(prompts), jnp.int32(depth), block, 2))
        given = np.broadcast_to(prompts[block], (BATCH, 3, 5)) if block < depth else before[:, 2:5]
        assert_array_equal(x[:, 2:5], given)
        assert_array_equal(x[:, :2], before[:, :2])
        assert_array_equal(x[:, 5:], before[:, 5:])
        x = 2 * x + 1  # whatever a block does


@each_learner
def test_learners_that_differ_in_values_share_a_program(name):
    learner = dataclasses.replace(LEARNERS[name], max_depth=ROWS)
    assert dataclasses.replace(learner, depth=1).static_part() == learner.static_part()
    assert hash(dataclasses.replace(learner, depth=1).static_part()) == hash(learner.static_part())
    assert set(np.ravel(dataclasses.replace(learner, depth=2).traced_values()[0])) == {2}
    for field in learner.traced_fields:
        assert dataclasses.replace(learner, **{field: 2.0}).static_part() == learner.static_part()
    assert dataclasses.replace(learner, max_depth=ROWS + 1).static_part() != learner.static_part()


# Dropout.


@each_learner
def test_without_a_key_nothing_is_dropped(name):
    learner = LEARNERS[name]
    sure, unsure = (make_prompts(learner, fresh(name), dropout=rate) for rate in (0.0, 0.5))
    jax.tree.map(assert_array_equal, sure, unsure)


@each_learner
def test_dropout_is_shared_attentions_alone(name):
    learner = LEARNERS[name]
    plain = make_prompts(learner, fresh(name))
    first, same, second = (
        make_prompts(learner, fresh(name), dropout=0.5, key=jax.random.key(seed)) for seed in (1, 1, 2)
    )
    none = make_prompts(learner, fresh(name), dropout=0.0, key=jax.random.key(1))
    jax.tree.map(assert_array_equal, first, same)
    jax.tree.map(assert_array_equal, none, plain)
    if name == "SharedAttention":
        assert np.abs(first.text - plain.text).max() > 1e-3 and np.abs(first.text - second.text).max() > 1e-3
        assert np.abs(first.vision - plain.vision).max() > 1e-3
        shared = dataclasses.replace(learner, dropout=0.3)
        assert shared.traced_values()[1] == 0.3 and shared.static_part() == learner.static_part()
    else:
        jax.tree.map(assert_array_equal, first, plain)


def test_dropout_keeps_the_mean():
    learner, params = LEARNERS["SharedAttention"], fresh("SharedAttention")
    ones = {**params, "qkv": jax.tree.map(np.zeros_like, params["qkv"])}  # all that is left is the output's bias
    ones["out"] = {"kernel": params["out"]["kernel"], "bias": np.ones((ROWS, TEXT + VISION), np.float32)}
    ones["down"] = jax.tree.map(np.zeros_like, params["down"])

    @jax.jit
    @jax.vmap
    def draw(key):
        return learner.prompts(ones, jnp.int32(ROWS), dropout=jnp.float32(0.25), key=key).vision

    draws, start = np.asarray(draw(jax.random.split(jax.random.key(0), 2000))), params["vision_context"][:, None]
    kept = np.abs(draws - start - 1 / 0.75) < 1e-5
    dropped = np.abs(draws - start) < 1e-5
    assert (kept | dropped).all()
    assert kept.mean() == pytest.approx(0.75, abs=0.01)
    rows, places = kept[:, :, 0, 0, 0], kept[:, 0, 0, :, 0]
    for several in (rows, places):
        assert np.abs(np.corrcoef(several.T) - np.eye(several.shape[1])).max() < 0.1  # each draws for itself


# What can't be.


@each_learner
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 0}, r"learner\.depth .*1, .*0"),
        ({"depth": 3}, r"learner\.depth .*2, the (text|vision) .*3"),
        ({"max_depth": 3}, r"learner\.max_depth .*2, the (text|vision) .*3"),
        ({"depth": 2, "max_depth": 1}, r"learner\.depth .*learner\.max_depth, 1, .*2"),
        ({"num_context": 0}, r"learner\.num_context .*1, .*0"),
    ],
    ids=str,
)
def test_sizes_that_do_not_fit(name, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(LEARNERS[name], **change).init(jax.random.key(0), TOWERS)


@each_learner
def test_a_tower_that_takes_no_prompts(name):
    learner = LEARNERS[name]
    towers = dataclasses.replace(TOWERS, vision_width=None)
    if "vision" in learner.changes:
        with pytest.raises(ValueError, match=rf"CoOp, CoCoOp or KgCoOp, .*{name}: .*vision tower"):
            learner.init(jax.random.key(0), towers)
    else:
        learner.check(towers)


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (CoOp(depth=1, init_phrase="a photo"), r"learner\.init_phrase .*learner\.num_context, 4, .*'a photo' .*2"),
        (MaPLe(depth=1, num_context=5), r"learner\.init_phrase .*learner\.num_context, 5, .*'a photo of a' .*4"),
        (SharedAttention(depth=1, heads=3), r"learner\.heads .*20, .*3"),
        (MaPLe(depth=1, projector=Projector(kind="low_rank", hidden=(3, 4))), r"projector\.hidden .*\(3, 4\)"),
        (CoCoOp(depth=1, projector=Projector(kind="mlp", hidden=())), r"projector\.hidden .*\(\)"),
    ],
    ids=str,
)
def test_hyperparameters_that_do_not_fit(learner, message):
    with pytest.raises(ValueError, match=message):
        learner.init(jax.random.key(0), TOWERS)


# Parts against PyTorch's.

PROJECTORS = [
    (Projector(kind="linear", norm=False), True, lambda: [nn.Linear(5, 7)]),
    (Projector(kind="linear"), True, lambda: [nn.Linear(5, 7), nn.LayerNorm(7)]),
    (Projector(kind="mlp", hidden=(6,), norm=False), True, lambda: [nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 7)]),
    (
        Projector(kind="mlp", hidden=(6, 4)),
        True,
        lambda: [
            nn.Linear(5, 6),
            nn.ReLU(),
            nn.Linear(6, 4),
            nn.ReLU(),
            nn.Linear(4, 7, bias=False),
            nn.LayerNorm(7),
        ],
    ),
    (
        Projector(kind="low_rank", hidden=(3,)),
        True,
        lambda: [nn.Linear(5, 3, bias=False), nn.Linear(3, 7, bias=False), nn.LayerNorm(7)],
    ),
    (Projector(kind="low_rank", hidden=(3,), norm=False), True, lambda: [nn.Linear(5, 3, bias=False), nn.Linear(3, 7)]),
    # CoCoOp's: nothing at the end has a bias.
    (
        Projector(kind="mlp", hidden=(6,)),
        False,
        lambda: [nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 7, bias=False), nn.LayerNorm(7, bias=False)],
    ),
    (
        Projector(kind="low_rank", hidden=(3,), norm=False),
        False,
        lambda: [nn.Linear(5, 3, bias=False), nn.Linear(3, 7, bias=False)],
    ),
]


@pytest.mark.parametrize(("projector", "bias", "layers"), PROJECTORS, ids=[str(case[0]) for case in PROJECTORS])
@pytest.mark.parametrize("shared", [False, True])
def test_projectors_are_torch_sequentials(projector, bias, layers, shared):
    projector = dataclasses.replace(projector, shared=shared)
    theirs = [torch_module(nn.Sequential(*layers()), seed) for seed in range(1 if shared else ROWS)]
    params = stack([sequential_params(module) for module in theirs])
    fresh = projector.init(jax.random.key(0), ROWS, 5, 7, bias=bias)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, fresh)

    x = np.random.default_rng(0).standard_normal((ROWS, CONTEXT, 5), np.float32)
    expected = [theirs[0 if shared else row](torch.tensor(x[row])).detach().numpy() for row in range(ROWS)]
    assert_allclose(jax.jit(projector)(params, x), np.stack(expected), rtol=1e-5, atol=1e-6)


def test_projectors_start_as_the_published_ones():
    """Kaiming-normal before a ReLU, PyTorch's default elsewhere."""
    params = Projector(kind="mlp", hidden=(300,)).init(jax.random.key(0), 1, 200, 250)
    assert params["layer0"]["kernel"].std() == pytest.approx((2 / 200) ** 0.5, rel=0.02)
    last = np.abs(params["layer1"]["kernel"])
    assert last.max() <= 300**-0.5 and last.mean() == pytest.approx(300**-0.5 / 2, rel=0.02)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("attends_across_tokens", [False, True])
def test_shared_attention_is_torch_encoder_layers(norm_first, attends_across_tokens):
    learner = dataclasses.replace(
        LEARNERS["SharedAttention"], norm_first=norm_first, attends_across_tokens=attends_across_tokens
    )
    width = TEXT + VISION
    layers = [
        torch_module(
            nn.TransformerEncoderLayer(
                width, learner.heads, learner.hidden, dropout=0.0, norm_first=norm_first, batch_first=True
            ),
            seed,
        )
        for seed in range(ROWS)
    ]
    context = np.random.default_rng(0).standard_normal((ROWS, CONTEXT, width), np.float32)
    params = stack([encoder_params(layer) for layer in layers])
    params |= {"text_context": context[..., :TEXT], "vision_context": context[..., TEXT:]}
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, fresh("SharedAttention"))

    # The published code gives the layer a batch of tokens, each a separate sequence.
    rows = torch.tensor(context)[:, None] if attends_across_tokens else torch.tensor(context)[:, :, None]
    expected = np.stack([layer(row).detach().numpy() for layer, row in zip(layers, rows, strict=True)])
    expected = expected.reshape(ROWS, CONTEXT, width)
    prompts = make_prompts(learner, params)
    assert_allclose(prompts.text[:, 0], expected[..., :TEXT], rtol=1e-4, atol=1e-5)
    assert_allclose(prompts.vision[:, 0], expected[..., TEXT:], rtol=1e-4, atol=1e-5)


def torch_module(module: nn.Module, seed: int) -> nn.Module:
    """With every parameter random, norms and biases too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return module


def stack(rows: list[dict]) -> dict:
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *rows)


def linear_params(layer: nn.Linear) -> dict:
    params = {"kernel": layer.weight.detach().numpy().T}
    return params if layer.bias is None else params | {"bias": layer.bias.detach().numpy()}


def norm_params(layer: nn.LayerNorm) -> dict:
    params = {"scale": layer.weight.detach().numpy()}
    return params if layer.bias is None else params | {"bias": layer.bias.detach().numpy()}


def sequential_params(module: nn.Sequential) -> dict:
    linears = [layer for layer in module if isinstance(layer, nn.Linear)]
    params = {f"layer{number}": linear_params(layer) for number, layer in enumerate(linears)}
    return params | {"norm": norm_params(module[-1])} if isinstance(module[-1], nn.LayerNorm) else params


def encoder_params(layer: nn.TransformerEncoderLayer) -> dict:
    attention = layer.self_attn
    return {
        "qkv": {"kernel": attention.in_proj_weight.detach().numpy().T, "bias": attention.in_proj_bias.detach().numpy()},
        "out": linear_params(attention.out_proj),
        "up": linear_params(layer.linear1),
        "down": linear_params(layer.linear2),
        "norm1": norm_params(layer.norm1),
        "norm2": norm_params(layer.norm2),
    }
