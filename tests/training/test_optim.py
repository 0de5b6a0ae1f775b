"""Tests of the optimizer, the schedule, early stopping and the plateau."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tunevlseg_jax.config import Optim, Train
from tunevlseg_jax.training import optim
from tunevlseg_jax.training.optim import Schedule, StoppingState

NAN = float("nan")


def follow(
    losses: list[list[float]], dices: list[list[float]] | None = None, optimizer=None, **train
) -> tuple[list[StoppingState], np.ndarray]:
    """The progress after each epoch, and (epochs, trials) whether it was the best; scores are a list for each trial."""
    dices = [[0.0] * len(row) for row in losses] if dices is None else dices
    progress, after, improved = optim.start(len(losses)), [], []
    for epoch, scores in enumerate(zip(*losses, *dices, strict=True), start=1):
        loss, dice = np.split(np.asarray(scores), 2)
        progress, better = optim.after_epoch(progress, epoch, loss, dice, optimizer or Optim(), Train(**train))
        after.append(progress)
        improved.append(better)
    return after, np.asarray(improved)


def scales(losses: list[float], **changes) -> list[float]:
    """The factor of the learning rate after each epoch of one trial."""
    return [float(progress.rate_scale[0]) for progress in follow([losses], **changes)[0]]


def stops(losses: list[float], **train) -> int | None:
    """The epoch after which one trial stops."""
    after, _ = follow([losses], **train)
    return next((number for number, progress in enumerate(after, start=1) if progress.stopped[0]), None)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        pytest.param([1.0] * 5, [1.0] * 5, id="four epochs without improvement"),
        pytest.param([1.0] * 6, [1.0] * 5 + [0.2], id="five"),
        pytest.param([1.0] * 11, [1.0] * 5 + [0.2] * 5 + [0.04], id="and five more"),
        pytest.param([1.0] * 5 + [0.5] + [0.5] * 5, [1.0] * 10 + [0.2], id="an improvement restarts the count"),
        pytest.param([1.0 - 0.01 * i for i in range(20)], [1.0] * 20, id="improving"),
        pytest.param([1.0 + i for i in range(6)], [1.0] * 5 + [0.2], id="worsening"),
        pytest.param([1.0] + [1.0 - 0.9e-4] * 5, [1.0] * 5 + [0.2], id="by less than min_delta"),
        pytest.param([1.0 - 0.6e-4 * i for i in range(10)], [1.0] * 10, id="by more than min_delta in two epochs"),
        pytest.param([1.0] + [NAN] * 5, [1.0] * 5 + [0.2], id="NaN is no improvement"),
        pytest.param([NAN] * 4 + [1.0] + [2.0] * 5, [1.0] * 9 + [0.2], id="NaN first"),
    ],
)
def test_plateau(losses, expected):
    assert_allclose(scales(losses), expected, rtol=1e-6)


def test_plateau_settings():
    assert_allclose(scales([1.0] * 4, optimizer=Optim(plateau_factor=0.5, plateau_patience=1)), [1, 0.5, 0.25, 0.125])
    assert scales([1.0] * 12, optimizer=Optim(plateau_factor=1.0)) == [1.0] * 12


@pytest.mark.parametrize(
    ("losses", "train", "expected"),
    [
        pytest.param([1.0] * 12, {}, None, id="eleven epochs without improvement"),
        pytest.param([1.0] * 13, {}, 13, id="twelve"),
        pytest.param([1.0] * 12 + [0.5] * 13, {}, 25, id="an improvement restarts the count"),
        pytest.param([1.0] * 3, {"patience": 2}, 3, id="patience"),
        pytest.param([1.0, 0.99, 0.98], {"patience": 1, "min_delta": 0.1}, 2, id="min_delta"),
        pytest.param([1.0, 0.9, 0.8], {"patience": 1, "min_delta": 0.05}, None, id="more than min_delta"),
        pytest.param([NAN] * 2, {"patience": 2}, 2, id="NaN"),
        pytest.param([1.0, 1.0, 0.5], {"patience": 2}, None, id="in the last epoch"),
    ],
)
def test_early_stopping(losses, train, expected):
    assert stops(losses, **train) == expected


def test_reducing_the_rate_does_not_delay_early_stopping():
    after, _ = follow([[1.0] * 13])
    assert_allclose(after[-1].rate_scale, [0.04], rtol=1e-6)
    assert after[-1].stopped[0] and not after[-2].stopped[0]


@pytest.mark.parametrize(
    ("dices", "best", "improved"),
    [
        pytest.param([0.1, 0.3, 0.2], 2, [True, True, False], id="highest"),
        pytest.param([0.3, 0.3, 0.3], 1, [True, False, False], id="the first of equals"),
        pytest.param([0.0, 0.0], 1, [True, False], id="zero is a score"),
        pytest.param([NAN, 0.1, NAN], 2, [False, True, False], id="NaN is none"),
        pytest.param([NAN, NAN], 0, [False, False], id="none at all"),
    ],
)
def test_the_best_epoch_is_chosen_by_dice(dices, best, improved):
    after, better = follow([[1.0 + i for i in range(len(dices))]], [dices])  # while the loss rises
    assert after[-1].best_epoch.tolist() == [best]
    assert better[:, 0].tolist() == improved


def test_a_stopped_trial_changes_no_more():
    losses, dices = [[1.0, 1.0, 0.1, 0.1], [1.0, 0.9, 0.8, 0.7]], [[0.2, 0.1, 0.9, 0.9], [0.1, 0.2, 0.3, 0.4]]
    after, improved = follow(losses, dices, patience=1)
    for early, late in zip(after[1], after[3], strict=True):
        assert_array_equal(early[0], late[0])
    assert after[3].best_epoch.tolist() == [1, 4] and after[3].stopped.tolist() == [True, False]
    assert improved.tolist() == [[True, True], [False, True], [False, True], [False, True]]


def test_an_epoch_changes_neither_types_nor_shapes():
    start, (after,) = optim.start(2), follow([[1.0], [NAN]])[0]
    for name, before, now in zip(StoppingState._fields, start, after, strict=True):
        assert (before.dtype, before.shape) == (now.dtype, now.shape), name


SCORES = st.lists(st.sampled_from([0.2, 0.5, 0.50005, 0.8, NAN]), min_size=30, max_size=30)


@settings(deadline=None)
@given(st.lists(st.tuples(SCORES, SCORES), min_size=2, max_size=4))
def test_trials_are_independent(trials):
    losses, dices = ([list(scores) for scores in part] for part in zip(*trials, strict=True))
    together, better = follow(losses, dices, patience=7)
    for number, (loss, dice) in enumerate(trials):
        alone, best = follow([list(loss)], [list(dice)], patience=7)
        assert_array_equal(better[:, number], best[:, 0])
        for many, one in zip(together[-1], alone[-1], strict=True):
            assert_array_equal(many[number], one[0])


def test_schedule():
    def rates(schedule, steps):
        return np.asarray([schedule(jnp.asarray(step)) for step in steps])

    assert_allclose(rates(Schedule(0, 0), (0, 7)), 1)
    assert_allclose(rates(Schedule(4, 0), range(6)), [0.25, 0.5, 0.75, 1, 1, 1])
    cosine = [0.5 * (1 + math.cos(math.pi * step / 10)) for step in range(11)]
    assert_allclose(rates(Schedule(0, 10), range(11)), cosine, atol=1e-7)
    assert_allclose(rates(Schedule(0, 10), [12]), 0, atol=1e-7)  # never up again
    assert_allclose(rates(Schedule(2, 10), (0, 5)), [0.5 * cosine[0], cosine[5]], atol=1e-7)


def test_adamw_is_torchs_with_decay_on_kernels_alone():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    shapes = {"learner/p/layer0/kernel": (2, 3, 4), "learner/p/layer0/bias": (2, 4), "learner/context": (2, 5)}
    shapes |= {"upsampler/ratio": (), "upsampler/kernel": (5, 5, 3), "learner/p/norm/scale": (2, 4)}
    params = {path: jnp.asarray(rng.normal(size=shape), jnp.float32) for path, shape in shapes.items()}
    theirs = {path: torch.nn.Parameter(torch.tensor(np.asarray(array))) for path, array in params.items()}
    decay = 0.3
    groups = [{"params": [leaf], "weight_decay": decay * path.endswith("kernel")} for path, leaf in theirs.items()]
    reference = torch.optim.AdamW(groups, lr=1.0)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def update(params, state, gradients, rate):
        updates, state = optim.adamw(rate, jnp.asarray(decay), params).update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    state = optim.adamw(jnp.asarray(0.0), jnp.asarray(decay), params).init(params)
    for rate in (1e-2, 1e-2, 1e-2, 2e-3, 2e-3):  # values of one program
        gradients = {path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()}
        params, state = update(params, state, gradients, jnp.asarray(rate))
        for path, leaf in theirs.items():
            leaf.grad = torch.tensor(gradients[path])
        for group in reference.param_groups:
            group["lr"] = rate
        reference.step()
    for path, leaf in theirs.items():
        assert_allclose(params[path], leaf.detach().numpy(), rtol=2e-6, atol=2e-7, err_msg=path)
