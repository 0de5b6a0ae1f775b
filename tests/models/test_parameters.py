"""Tests of the partition: what trains, what is frozen and what decays, decided by rules over paths."""

import jax
import jax.numpy as jnp
import mistakes
import pytest
import small

from tunevlseg_jax.learners import (
    IVLP,
    VPT,
    BitFit,
    CoCoOp,
    Combined,
    CoOp,
    LinearProbe,
    LoRA,
    MaPLe,
    NormTuning,
    Projector,
    SharedAttention,
    SharedSeparate,
    VLSMAdapter,
    ZeroShot,
)
from tunevlseg_jax.models.build import weight_shapes
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.models.parameters import DECAY, RULES, decide, flatten, nested, split, subtree
from tunevlseg_jax.network import Network
from tunevlseg_jax.training.build import build_experiment

PROJECTORS = [
    Projector(kind="linear"),
    Projector(kind="mlp", norm=False),
    Projector(kind="low_rank", hidden=(4,), shared=True),
]
LEARNERS = [
    ZeroShot(),
    CoOp(depth=3, init_phrase=None),
    VPT(depth=3),
    SharedAttention(depth=3, hidden=8),
    IVLP(depth=3, init_phrase=None),
    LoRA(depth=3),
    VLSMAdapter(depth=3),
    BitFit(depth=3, decoder=True),
    NormTuning(depth=3, decoder=True),
    LinearProbe(),
    Combined(of=(VPT(depth=3), LoRA(depth=3))),
    *(CoCoOp(depth=3, init_phrase=None, projector=projector) for projector in PROJECTORS),
    *(MaPLe(depth=3, init_phrase=None, projector=projector) for projector in PROJECTORS),
    *(SharedSeparate(depth=3, projector=projector) for projector in PROJECTORS),
]
NEVER_DECAY = {
    *("bias", "scale", "ratio", "logit_scale", "context", "text_context", "vision_context"),
    *("token_embedding", "position_embedding", "class_embedding"),
}


def parameters(learner=None, upsampling="blend") -> dict[str, jax.ShapeDtypeStruct]:
    """Every parameter of the small model with a learner, without making any."""
    experiment = small.build(small.config())
    network = Network(experiment.network.config, learner or VPT(depth=2), upsampling)
    return jax.eval_shape(
        lambda: network.init(jax.random.key(0), small.random_weights(experiment.pretrained.config), experiment.spec)
    )


@pytest.mark.parametrize("tune", RULES)
@pytest.mark.parametrize("learner", LEARNERS, ids=repr)
def test_every_parameter_is_either_trained_or_frozen(learner, tune):
    params = parameters(learner)
    trainable, frozen = split(params, tune)
    assert trainable and not trainable.keys() & frozen.keys()
    assert {**trainable, **frozen} == params


@pytest.mark.parametrize(
    ("tune", "starts"),
    [
        ("prompts", ("learner/", "upsampler/")),
        ("decoder", ("learner/", "upsampler/", "model/decoder/")),
        ("all", ("learner/", "upsampler/", "model/")),
    ],
)
def test_the_trained_parameters(tune, starts):
    params = parameters()
    trainable, _ = split(params, tune)
    assert set(trainable) == {path for path in params if path.startswith(starts)}
    assert all(any(path.startswith(start) for path in trainable) for start in starts)


def test_baselines_need_no_learner():
    params = parameters(ZeroShot(), "none")
    assert {path.split("/")[1] for path in split(params, "decoder")[0]} == {"decoder"}
    assert split(params, "all") == (params, {})


def test_a_path_without_a_rule_raises():
    with pytest.raises(ValueError, match=r"no rule in .* matches the parameter 'adapter/kernel': model"):
        split({**parameters(), "adapter/kernel": jnp.ones(1)}, "prompts")
    with pytest.raises(ValueError, match="matches the parameter 'learner/gate'"):
        decide(DECAY, ["learner/gate"])


@pytest.mark.parametrize("tune", RULES)
def test_a_rule_that_matches_nothing_raises(tune):
    without = {"prompts": "model/", "decoder": "model/decoder/", "all": "model/"}[tune]
    params = {path: array for path, array in parameters().items() if not path.startswith(without)}
    with pytest.raises(ValueError, match=f"of tune='{tune}' matches no parameter"):
        split(params, tune)


def test_nothing_to_train_raises():
    config = small.config(learner=ZeroShot(), upsampling="none")
    with mistakes.raises("nothing-to-train: train.tune is 'prompts'"):
        build_experiment(config)
    assert not build_experiment(config, trains=False).trainable


def test_the_first_rule_that_matches_decides():
    assert decide({"a/b": True, "a/.*": False}, ["a/b", "a/bc"]) == {"a/b": True, "a/bc": False}


@pytest.mark.parametrize("upsampling", ["blend", "add"])
@pytest.mark.parametrize("learner", LEARNERS, ids=repr)
def test_kernels_decay_and_nothing_else(learner, upsampling):
    params = parameters(learner, upsampling)
    for path, decays in decide(DECAY, params).items():
        name = path.rsplit("/", 1)[1]
        assert (name == "kernel") == decays and (name in NEVER_DECAY) != decays, path
        assert params[path].ndim >= 2 or not decays, path


def test_decay_rules_cover_the_full_size_model():
    paths = [f"model/{path}" for path in weight_shapes(CLIPSegConfig(complex_upsampling=True))]
    assert {path for path, decays in decide(DECAY, paths).items() if decays} == {
        path for path in paths if path.endswith("/kernel")
    }


def test_flat_and_nested_are_inverse():
    params = {"model/a/kernel": 1, "learner/a": 2, "model/b": 3}
    assert flatten(nested(subtree(params, "model")), "model") == {"model/a/kernel": 1, "model/b": 3}
