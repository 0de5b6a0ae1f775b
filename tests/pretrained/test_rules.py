"""Conversion rules: strict about names and shapes, and exact both ways."""

import dataclasses

import chex
import jax
import mistakes
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from conversion.published.tensors import from_published, published_rules, to_published, trained_shapes
from tunevlseg_jax.learners import VPT, CoCoOp, CoOp, MaPLe, Projector, SharedAttention, SharedSeparate, ZeroShot
from tunevlseg_jax.models.build import weight_shapes
from tunevlseg_jax.models.clip import TextConfig, VisionConfig
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.network import Network
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.clipseg_tensors import clipseg_rules
from tunevlseg_jax.pretrained.rules import Rule

LISTED = [
    Rule("both/kernel", ("first.weight", "second.weight"), rules.concatenated(2, transpose=True)),
    Rule("norm/scale", ("norm.weight",), rules.COPY),
    Rule("left", ("whole",), rules.columns(0, 2)),
    Rule("right", ("whole",), rules.columns(2, None)),
    Rule("depths/kernel", ("depth.0", "depth.1"), rules.stacked(rules.LINEAR)),
]
SHAPES = {"both/kernel": (3, 8), "norm/scale": (5,), "left": (7, 2), "right": (7, 3), "depths/kernel": (2, 3, 4)}


def their_tensors() -> dict[str, np.ndarray]:
    shapes = {"first.weight": (4, 3), "second.weight": (4, 3), "norm.weight": (5,), "whole": (7, 5)}
    shapes |= {"depth.0": (4, 3), "depth.1": (4, 3)}
    random = np.random.default_rng(0)
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def assert_same(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    chex.assert_trees_all_equal(actual, expected, strict=True)


def test_to_ours_follows_the_rules():
    theirs = their_tensors()
    ours = rules.to_ours(LISTED, theirs, SHAPES)
    assert {name: tensor.shape for name, tensor in ours.items()} == SHAPES
    assert all(tensor.flags.c_contiguous for tensor in ours.values())
    assert_array_equal(ours["both/kernel"][:, 4:], theirs["second.weight"].T)
    assert_array_equal(ours["right"], theirs["whole"][:, 2:])
    assert_array_equal(ours["depths/kernel"][1], theirs["depth.1"].T)


def test_to_theirs_inverts_to_ours():
    theirs = their_tensors()
    ours = rules.to_ours(LISTED, theirs, SHAPES)
    assert_same(rules.to_theirs(LISTED, ours), theirs)
    assert_same(rules.to_ours(LISTED, rules.to_theirs(LISTED, ours), SHAPES), ours)


def test_join_names_what_is_missing():
    theirs = their_tensors()
    del theirs["second.weight"], theirs["depth.0"]
    with mistakes.raises(r"wrong-weights: lacks second\.weight, depth\.0 \["):
        rules.to_ours(LISTED, theirs, SHAPES)


def test_join_names_what_is_left_over():
    theirs = their_tensors() | {"z.bias": np.zeros(1), "a.bias": np.zeros(1)}
    with mistakes.raises(r"wrong-weights: a\.bias, z\.bias \["):
        rules.to_ours(LISTED, theirs, SHAPES)


def test_join_names_what_no_rule_fills():
    with mistakes.raises(r"wrong-weights: fills other/bias \["):
        rules.to_ours(LISTED, their_tensors(), SHAPES | {"other/bias": (1,)})


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("norm.weight", (6,), r"wrong-weights: norm\.weight \(6,\) gives \(6,\), not \(5,\)"),
        ("first.weight", (4, 9), r"wrong-weights: first\.weight \(4, 9\), second\.weight \(4, 3\)"),
        ("depth.1", (4, 5), r"wrong-weights: depth\.0 \(4, 3\), depth\.1 \(4, 5\)"),
        (
            "whole",
            (7, 6),
            r"wrong-weights: whole \(7, 6\) gives \(7, 4\), not \(7, 3\)",
        ),  # columns too many are no rule's
    ],
)
def test_join_names_what_has_another_shape(name, shape, message):
    with mistakes.raises(message):
        rules.to_ours(LISTED, their_tensors() | {name: np.zeros(shape, np.float32)}, SHAPES)


def test_long_lists_are_cut():
    theirs = their_tensors() | {f"spare.{number}": np.zeros(1) for number in range(rules.SHOWN + 3)}
    with mistakes.raises(r"wrong-weights: spare\.0, .* 3 more \["):
        rules.to_ours(LISTED, theirs, SHAPES)


def test_part_names_what_is_missing_and_what_is_unknown():
    ours = rules.to_ours(LISTED, their_tensors(), SHAPES)
    with mistakes.raises(r"wrong-weights: takes other/bias \["):
        rules.to_theirs(LISTED, ours | {"other/bias": np.zeros(1)})
    del ours["left"]
    with mistakes.raises(r"wrong-weights: model lacks left \["):
        rules.to_theirs(LISTED, ours)


SMALL = CLIPSegConfig(
    text=TextConfig(width=8, blocks=4, heads=2, hidden=12, vocabulary=32, context_length=16),
    vision=VisionConfig(width=12, blocks=4, heads=2, hidden=16, patch=16, image_size=32),
    embedding_width=10,
    taps=(0, 2),
    decoder_width=4,
    decoder_heads=2,
    decoder_hidden=6,
)


@pytest.mark.parametrize("complex_upsampling", [False, True])
def test_clipseg_round_trip_is_exact(complex_upsampling):
    config = dataclasses.replace(SMALL, complex_upsampling=complex_upsampling)
    ours = random_tensors(weight_shapes(config))
    theirs = rules.to_theirs(clipseg_rules(config), ours)
    assert_same(rules.to_ours(clipseg_rules(config), theirs, weight_shapes(config)), ours)


PROJECTORS = [
    Projector(kind="linear", norm=False),
    Projector(kind="linear"),
    Projector(kind="mlp", hidden=(5,), norm=False),
    Projector(kind="mlp", hidden=(5, 6)),
    Projector(kind="low_rank", hidden=(3,)),
    Projector(kind="low_rank", hidden=(3,), norm=False, shared=True),
]
LEARNERS = [
    ZeroShot(),
    CoOp(depth=3),
    VPT(depth=2, num_context=5),
    *(cls(depth=3, projector=projector) for cls in (CoCoOp, MaPLe, SharedSeparate) for projector in PROJECTORS),
    SharedAttention(depth=2, heads=2, hidden=7),
]


@pytest.mark.parametrize("learner", LEARNERS, ids=str)
@pytest.mark.parametrize("upsampling", ["none", "blend", "add"])
def test_published_round_trip_is_exact(learner, upsampling):
    net = Network(SMALL, learner, upsampling)
    ours = random_tensors(trained_shapes(net))
    if upsampling == "add":
        ours["upsampler/ratio"] = np.asarray(0.5, np.float32)  # the published code has none to keep
    assert {rule.ours for rule in published_rules(net)} == ours.keys()
    theirs = to_published(ours, net)
    assert_same(from_published(theirs, net), ours)
    assert_same(to_published(from_published(theirs, net), net), theirs)


@pytest.mark.parametrize(
    ("projector", "names"),
    [
        (Projector(kind="linear", norm=False), {"1.weight", "1.bias"}),
        (Projector(kind="linear"), {"1.0.weight", "1.0.bias", "1.1.weight", "1.1.bias"}),
        (
            Projector(kind="mlp", hidden=(5, 6)),
            {"1.0.weight", "1.0.bias", "1.2.weight", "1.2.bias", "1.4.weight", "1.5.weight", "1.5.bias"},
        ),
        (Projector(kind="low_rank", hidden=(3,)), {"1.0.weight", "1.1.weight", "1.2.weight", "1.2.bias"}),
        (Projector(kind="low_rank", hidden=(3,), norm=False), {"1.0.weight", "1.1.weight", "1.1.bias"}),
    ],
    ids=["linear", "linear-norm", "mlp-norm", "low_rank-norm", "low_rank"],
)
def test_published_names_of_a_projector(projector, names):
    for shared in (False, True):
        net = Network(SMALL, MaPLe(depth=2, projector=dataclasses.replace(projector, shared=shared)))
        names_of_rules = {name for rule in published_rules(net) for name in rule.theirs}
        names_of_rules.remove("context_learner.context_vectors")
        depths = ("0",) if shared else ("0", "1")
        whole = {f"context_learner.projection_layers.{depth}{name[1:]}" for depth in depths for name in names}
        assert names_of_rules == whole


def test_prompts_beyond_the_depth_stay_behind():
    net = Network(SMALL, MaPLe(depth=2, max_depth=4, projector=Projector(hidden=(5,))), "blend")
    exact = Network(SMALL, MaPLe(depth=2, projector=Projector(hidden=(5,))), "blend")
    ours = random_tensors(trained_shapes(net))
    back = from_published(to_published(ours, net), exact)
    for path, tensor in back.items():
        assert_array_equal(tensor, ours[path][:2] if path.startswith("learner/") else ours[path], err_msg=path)


def test_published_tensors_of_another_learner_are_refused():
    theirs = to_published(random_tensors(trained_shapes(Network(SMALL, CoOp(depth=3)))), Network(SMALL, CoOp(depth=3)))
    with mistakes.raises(r"wrong-weights: context_vectors \(3, 4, 8\) .*\(3, 4, 8\), not \(2, 4, 8\)"):
        from_published(theirs, Network(SMALL, CoOp(depth=2)))
    with mistakes.raises(r"wrong-weights: lacks context_learner\.projection_layers\.0\.0\.weight"):
        from_published(theirs, Network(SMALL, MaPLe(depth=3)))


@pytest.mark.usefixtures("quick_compilation")
def test_trained_shapes_are_those_of_init():
    net = Network(SMALL, SharedAttention(depth=2, heads=2, hidden=7), "blend")
    params = jax.jit(lambda key: net.init(key, {}, SMALL.spec(None)))(jax.random.key(0))
    assert trained_shapes(net) == {path: array.shape for path, array in params.items()}


def random_tensors(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {path: random.standard_normal(shape, np.float32) for path, shape in shapes.items()}
