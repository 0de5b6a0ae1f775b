"""Tests of the training step: frozen parameters, trials, and compilation."""

import dataclasses
from functools import cache

import compilation
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from numpy.testing import assert_allclose, assert_array_equal

from tunevlseg_jax.config import Config, Optim, Train
from tunevlseg_jax.data.feeding.batch import Source, gather
from tunevlseg_jax.learners import SharedAttention, ZeroShot
from tunevlseg_jax.models.parameters import split
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.training import loop, step
from tunevlseg_jax.training.experiment import Experiment
from tunevlseg_jax.training.losses import dice_ce
from tunevlseg_jax.training.optim import Schedule
from tunevlseg_jax.training.step import Hyperparameters, TrainState

quick_compilation = small.quick_compilation

BATCH = 4
LEARNER = SharedAttention(depth=2, max_depth=small.BLOCKS, num_context=2, heads=4, hidden=16)
CONFIG = small.config(learner=LEARNER)


@cache
def batches() -> tuple[Source, ...]:
    """Every batch of an epoch; the last one is half empty."""
    return tuple(small.build(CONFIG).split("train").feed.training(BATCH, seed=0, epoch=1, augment=False))


@cache
def table() -> jax.Array:
    return small.build(CONFIG).split("train").table


def hyper(trials: int, **values) -> Hyperparameters:
    """The same for every trial but for what is given, a value or a list."""
    usual = {"learning_rate": 1e-2, "weight_decay": 1e-2, "depth": 2, "dropout": 0.0, "seed": 0}
    types = (jnp.float32, jnp.float32, jnp.int32, jnp.float32, jnp.uint32)
    fields = ((usual | values)[name] for name in Hyperparameters._fields if name in usual)
    return Hyperparameters(
        *(jnp.broadcast_to(jnp.asarray(value, kind), trials) for value, kind in zip(fields, types, strict=True))
    )


def begin(experiment: Experiment, values: Hyperparameters) -> TrainState:
    """All trials start from the same parameters."""
    trials = len(values.seed)
    trainable = {path: jnp.broadcast_to(array, (trials, *array.shape)) for path, array in experiment.trainable.items()}
    return loop.begin(trainable, values, sharding.mesh()).state


def train(experiment: Experiment, state: TrainState, steps: int = 3, using=None) -> tuple[TrainState, np.ndarray]:
    """The state after some steps, and (steps, trials) losses."""
    mesh, losses = sharding.mesh(), []
    frozen = sharding.replicate(experiment.frozen, mesh)
    for number in range(steps):
        source = (using or batches())[number % len(using or batches())]
        state, sums = step.train_step(
            state, frozen, source, table(), network=experiment.network, schedule=Schedule(0, 0)
        )
        losses.append(np.asarray(sums.loss / sums.samples))
    return state, np.asarray(losses)


def baseline(tune) -> Config:
    """Fine-tuning: no prompts, no upsampler."""
    return small.config(learner=ZeroShot(), upsampling="none", train=Train(tune=tune))


@pytest.mark.parametrize(
    "config",
    [CONFIG, *(pytest.param(baseline(part), marks=pytest.mark.slow) for part in ("decoder", "all"))],
    ids=["prompts", "decoder", "all"],
)
def test_training_changes_only_trainable_parameters(config):
    experiment = small.build(config)
    before = {path: np.array(array) for path, array in {**experiment.frozen, **experiment.trainable}.items()}
    same = (batches()[0],)
    state, losses = train(experiment, begin(experiment, hyper(1, learning_rate=3e-3, depth=small.BLOCKS)), 8, same)
    assert np.isfinite(losses).all() and losses[-1] < losses[0] - 0.02
    after = {**experiment.frozen, **{path: array[0] for path, array in state.trainable.items()}}
    assert after.keys() == before.keys()
    changed = {path for path in before if np.asarray(after[path]).tobytes() != before[path].tobytes()}
    # The temperature is kept for conversion alone, and the pooled image vector is CoCoOp's alone.
    unread = {
        f"model/{name}" for name in ("logit_scale", "vision_tower/post_norm/bias", "vision_tower/post_norm/scale")
    }
    assert changed == set(split(before, config.train.tune)[0]) - unread


@cache
def gradient_program(recompute="nothing"):
    """(loss, logits) and the gradient as a function of the trainable parameters and of the depth."""
    experiment = small.build(CONFIG)
    network = dataclasses.replace(experiment.network, recompute=recompute)
    batch, phrases = gather(batches()[0]), table()

    def loss(trainable, depth):
        logits = network.logits(
            {**experiment.frozen, **trainable}, batch.images, batch.phrase, phrases, depth=depth, dropout=jnp.zeros(())
        )
        return dice_ce(logits, batch.masks).sum(), logits

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_only_blocks_up_to_the_depth_use_a_prompt(depth):
    """In both towers, and whatever the prompts of the later blocks are."""
    experiment, program = small.build(CONFIG), gradient_program()
    (_, logits), gradients = program(experiment.trainable, jnp.asarray(depth))
    learnt = {path: gradient for path, gradient in gradients.items() if path.startswith("learner/")}
    for path, gradient in learnt.items():
        assert gradient.shape[0] == small.BLOCKS
        assert not gradient[depth:].any(), path
    for path in learnt:
        if path.endswith("context"):
            assert all(row.any() for row in learnt[path][:depth]), path

    rubbish = {path: experiment.trainable[path].at[depth:].set(7.0) for path in learnt}
    with compilation.counted() as compiled:
        (_, same), _ = program(experiment.trainable | rubbish, jnp.asarray(depth))
        if depth > 1:
            (_, other), _ = program(experiment.trainable, jnp.asarray(depth - 1))
            assert (np.asarray(other) != logits).any()
    assert_array_equal(same, logits)
    assert compiled["loss"] == 0


def test_other_values_need_no_compilation():
    experiment = small.build(CONFIG)
    train(experiment, begin(experiment, hyper(1)), 1)
    others = ({"depth": 1}, {"depth": 3}, {"learning_rate": 1e-4}, {"weight_decay": 0.1}, {"dropout": 0.5}, {"seed": 9})
    with compilation.counted() as compiled:
        for values in others:
            train(experiment, begin(experiment, hyper(1, **values)), 1)
    assert compiled["train_step"] == 0


def test_configurations_that_differ_in_values_share_a_program():
    experiment = small.build(CONFIG)
    other = dataclasses.replace(
        CONFIG,
        learner=dataclasses.replace(LEARNER, depth=3, dropout=0.6),
        optim=Optim(learning_rate=1e-4, weight_decay=0.5, plateau_factor=0.9, plateau_patience=2),
        train=Train(epochs=7, patience=3, seed=5),
    )
    again = small.build(other)
    assert again.network == experiment.network and hash(again.network) == hash(experiment.network)
    assert (again.hyper().depth.item(), experiment.hyper().depth.item()) == (3, 2)
    assert again.hyper().dropout.item() == pytest.approx(0.6)
    fits = [
        loop.TrainSetup(c, m.network, m.frozen, *[m.split("train")] * 2, sharding.mesh())
        for c, m in ((CONFIG, experiment), (other, again))
    ]
    assert fits[0].schedule == fits[1].schedule


TRIALS = {
    "learning_rate": [1e-2, 1e-3, 5e-3],
    "weight_decay": [0.0, 0.5, 1e-2],
    "depth": [1, 2, 3],
    "dropout": [0.0, 0.4, 0.25],
    "seed": [0, 1, 2],
}


def trial(number: int) -> Hyperparameters:
    """One of the trials alone."""
    return hyper(1, **{name: column[number] for name, column in TRIALS.items()})


def first_gradient(state: TrainState) -> dict[str, jax.Array]:
    """The gradient of the first step: a tenth of it is Adam's first moment."""
    return {path: 10 * moment for path, moment in state.optimizer[0].mu.items()}


def distance(one, other) -> float:
    """Of two arrays as vectors, in lengths of the second."""
    return float(np.linalg.norm(np.asarray(one) - np.asarray(other)) / max(np.linalg.norm(other), 1e-12))


def test_gradients_of_parallel_trials_are_those_of_single_trials():
    experiment = small.build(CONFIG)
    together, _ = train(experiment, begin(experiment, hyper(3, **TRIALS)), 1)
    for number in range(3):
        alone, _ = train(experiment, begin(experiment, trial(number)), 1)
        for path, gradient in first_gradient(alone).items():
            assert distance(first_gradient(together)[path][number], gradient[0]) <= 1e-5, path


def test_parallel_trials_train_as_single_trials():
    experiment = small.build(CONFIG)
    together, losses = train(experiment, begin(experiment, hyper(3, **TRIALS)))
    for number in range(3):
        alone, expected = train(experiment, begin(experiment, trial(number)))
        assert_allclose(losses[:, number], expected[:, 0], rtol=1e-5)
        # Only parameters whose gradient is more than rounding, which Adam would turn into full steps.
        for path in ("learner/text_context", "learner/vision_context", "upsampler/kernel"):
            assert distance(together.trainable[path][number], alone.trainable[path][0]) <= 1e-5, path
    assert len({loss.tobytes() for loss in losses.T}) == 3


def test_seeds_differ_by_dropout_alone():
    experiment = small.build(CONFIG)
    _, dropped = train(experiment, begin(experiment, hyper(3, dropout=0.25, seed=[0, 1, 2])), 2)
    _, kept = train(experiment, begin(experiment, hyper(3, dropout=0.0, seed=[0, 1, 2])), 2)
    assert len(set(dropped[0].tolist())) == 3 and len(set(kept[0].tolist())) == 1
    _, again = train(experiment, begin(experiment, hyper(3, dropout=0.25, seed=[0, 1, 2])), 2)
    assert_array_equal(dropped, again)


@pytest.mark.slow
def test_padding_changes_no_gradient():
    experiment = small.build(small.config())
    full = batches()[0]
    real = jax.tree.map(lambda part: part[:3], full)
    everywhere = {name: getattr(full.rows, name).at[3].set(0) for name in ("bits", "value", "weight")}
    padded = full._replace(images=full.images.at[3].set(255), rows=full.rows._replace(**everywhere))
    states = [train(experiment, begin(experiment, hyper(1)), 1, (batch,)) for batch in (real, padded)]
    assert_allclose(states[1][1], states[0][1], rtol=1e-6)
    real, padded = (first_gradient(state) for state, _ in states)
    for path, gradient in real.items():
        assert distance(padded[path], gradient) <= 1e-5, path


@pytest.mark.slow
def test_half_precision_is_for_frozen_parameters():
    full = small.build(small.config())
    experiment = small.build(small.config(train=Train(precision="bfloat16")))
    assert experiment.network.dtype == jnp.bfloat16
    assert {array.dtype for array in full.frozen.values()} == {jnp.dtype(jnp.float32)}
    state, losses = train(experiment, begin(experiment, hyper(1)))
    assert {array.dtype for array in state.trainable.values()} == {jnp.dtype(jnp.float32)}
    moments = (state.optimizer[0].mu, state.optimizer[0].nu)
    assert {array.dtype for array in jax.tree.leaves(moments)} == {jnp.dtype(jnp.float32)}
    _, expected = train(full, begin(full, hyper(1)))
    assert losses.dtype == np.float32
    assert_allclose(losses, expected, rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("recompute", ["elementwise", "blocks"])
def test_rematerialised_activations_change_nothing(recompute):
    """Neither the loss nor its gradient; the program has more operations."""
    experiment, depth = small.build(CONFIG), jnp.asarray(2)
    programs = [gradient_program(), gradient_program(recompute)]
    (usual, gradients), (other, others) = (program(experiment.trainable, depth) for program in programs)
    assert_allclose(other[0], usual[0], rtol=1e-6)
    largest = max(float(abs(gradient).max()) for gradient in gradients.values())
    for path, gradient in gradients.items():
        assert_allclose(others[path], gradient, rtol=1e-4, atol=1e-6 * largest)
    less, more = (program.lower(experiment.trainable, depth).cost_analysis()["flops"] for program in programs)
    assert more > less * (1.1 if recompute == "blocks" else 1)
