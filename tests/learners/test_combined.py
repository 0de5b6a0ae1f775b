"""Several learners at once: each does what it does alone, and two for the same place are refused."""

import dataclasses
from typing import get_args

import jax
import numpy as np
import pytest
from learner_cases import ROWS, TOWERS, Step, init
from numpy.testing import assert_allclose

from tunevlseg_jax.learners import (
    VPT,
    BitFit,
    Combined,
    CoOp,
    KgCoOp,
    LinearProbe,
    LoRA,
    MaPLe,
    NormTuning,
    VLSMAdapter,
)
from tunevlseg_jax.learners.combined import Part
from tunevlseg_jax.models.parameters import flatten

pytestmark = pytest.mark.usefixtures("quick_compilation")
COOP = CoOp(depth=ROWS, init_phrase=None)
LEARNER = Combined(of=(COOP, VPT(depth=ROWS), LoRA(depth=ROWS, start="last"), BitFit(depth=1, max_depth=ROWS)))


def trained(learner: Combined) -> dict:
    random = np.random.default_rng(3)
    return jax.tree.map(lambda x: x + random.normal(0, 0.2, x.shape).astype(np.float32), init(learner))


def test_each_part_has_its_own_depth_in_one_program():
    """Logits and gradients of a part are zero beyond its depth alone, whatever the depths of the others."""
    step, params = Step(LEARNER), trained(LEARNER)
    logits = {}
    for depths in ((1, 2, 1, 2), (2, 1, 2, 1), (2, 2, 2, 2)):
        logits[depths], gradients = step.run(params, np.array(depths), np.zeros(4, np.float32))
        for path, gradient in flatten(gradients, "").items():
            depth = depths[int(path.split("/")[2])]
            assert "outside" in path or not gradient[depth:].any(), path
            assert all(row.any() for row in gradient[:depth]), path
    assert step.programs == 1
    assert np.abs(logits[1, 2, 1, 2] - logits[2, 2, 2, 2]).max() > 1e-4


@pytest.mark.parametrize("alone", [pytest.param(VPT(depth=ROWS), marks=pytest.mark.slow), COOP], ids=["VPT", "CoOp"])
def test_a_part_beside_one_that_changes_nothing_is_the_part_alone(alone):
    pair = Combined(of=(LoRA(depth=ROWS), alone))
    params = init(pair)
    logits, _ = Step(pair).run(params, np.array([ROWS, 1]), np.zeros(2, np.float32))
    expected, _ = Step(alone).run(params["of"]["1"], 1)
    assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((VPT(depth=1), MaPLe(depth=1)), r"of\.0 \(VPT\) and learner\.of\.1 \(MaPLe\) .*the vision tower's prompts"),
        ((LoRA(depth=1), LoRA(depth=1, start="last")), r"both change low-rank paths in the text tower"),
        ((BitFit(depth=1), NormTuning(depth=1)), r"both change the bias of norm1 in the text tower's blocks"),
        ((VLSMAdapter(depth=1), VLSMAdapter(depth=1)), r"both change the sentence vector's adapter"),
        ((LinearProbe(), LinearProbe()), r"both change the linear head"),
    ],
    ids=str,
)
def test_two_for_the_same_place_are_refused(parts, message):
    learner = Combined(of=parts)
    params = jax.eval_shape(lambda: learner.init(jax.random.key(0), dataclasses.replace(TOWERS)))
    with pytest.raises(ValueError, match=message):
        learner.check_changes(params)


def test_mistakes_name_the_part():
    with pytest.raises(ValueError, match=r"learner\.of\.1\.depth must be at most 2, .*got 9"):
        Combined(of=(VPT(depth=1), LoRA(depth=9))).init(jax.random.key(0), TOWERS)
    with pytest.raises(ValueError, match=r"learner\.of must be two or more learners, got 1"):
        Combined(of=(VPT(depth=1),)).init(jax.random.key(0), TOWERS)
    with pytest.raises(ValueError, match=r"learner\.of\.0 must be one of CoOp, .*; got KgCoOp"):
        Combined(of=(KgCoOp(depth=1), LoRA(depth=1))).init(jax.random.key(0), TOWERS)


def test_no_part_has_what_combined_leaves_out():
    assert not any(part.traced_fields or part.compared or part.averages_epochs for part in get_args(Part))


def test_what_it_is_made_of():
    assert LEARNER.name == "CoOp with VPT with LoRA with BitFit"
    assert LEARNER.changes == {"text", "vision"} and LEARNER.text_tokens == 4
    assert LEARNER.traced_values() == ((2, 2, 2, 1), (0.0, 0.0, 0.25, 0.0))
    deeper = dataclasses.replace(LEARNER, of=(*LEARNER.of[:3], BitFit(depth=2, max_depth=ROWS)))
    assert LEARNER.static_part() == deeper.static_part() != LEARNER
