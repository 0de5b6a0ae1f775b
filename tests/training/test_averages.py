"""Tests of averages of the parameters and of regularisers in the training that runs and sweeps use."""

import dataclasses

import compilation
import jax
import numpy as np
import pytest
import small
from numpy.testing import assert_allclose, assert_array_equal
from rich.console import Console

from tunevlseg_jax.config import Config, Train, check
from tunevlseg_jax.data.feeding.batch import WithFeatures
from tunevlseg_jax.learners import VPT, KgCoOp, PromptSRC
from tunevlseg_jax.runs import trainer
from tunevlseg_jax.runs.card import load_learnt
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.training import loop, step
from tunevlseg_jax.training.experiment import Experiment
from tunevlseg_jax.training.loop import Epoch, LoopState, TrainSetup

quick_compilation = small.quick_compilation

SHORT = {"depth": 2, "num_context": 2, "init_phrase": None}


def config(learner, **changes) -> Config:
    usual = {"epochs": 3, "batch_size": 4, "augment": False}
    return small.config(learner=learner, train=Train(**(usual | changes)))


def prepared(config: Config) -> tuple[Experiment, TrainSetup]:
    experiment = small.build(config)
    cache = experiment.feature_cache(sharding.mesh())
    return experiment, experiment.train_setup(experiment.splits(cache), cache)


def trained(config: Config, setup: TrainSetup, epochs: int = 1) -> tuple[LoopState, list[dict], list[Epoch]]:
    """The state after some epochs, the parameters after each step, and the epochs."""
    experiment = small.build(config)
    state = loop.begin(*experiment.for_trials(1), setup.mesh, averaged=setup.averaged)
    after, results, original = [], [], step.train_step

    def recorded(*arguments, **settings):
        done, sums = original(*arguments, **settings)
        after.append({path: np.asarray(array[0]) for path, array in done.trainable.items()})
        return done, sums

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "train_step", recorded)
        for number in range(1, epochs + 1):
            state, epoch = loop.train_epoch(setup, state, setup.batches(number), lambda *_: None)
            results.append(epoch)
    return state, after, results


def weighted(params: list[dict], weights: np.ndarray) -> dict:
    return {
        path: sum(w * p[path].astype(np.float64) for w, p in zip(weights, params, strict=True)) / weights.sum()
        for path in params[0]
    }


def test_the_exponential_average_is_validated_and_kept():
    averaged = config(VPT(depth=2, num_context=2), ema=0.6)
    _, setup = prepared(averaged)
    state, after, (epoch,) = trained(averaged, setup)
    expected = weighted(after, 0.6 ** np.arange(len(after))[::-1])
    for path, array in expected.items():
        assert_allclose(state.state.average[path][0], array, rtol=1e-5, atol=1e-6)
        assert_array_equal(state.best[path], state.state.average[path])
        assert (state.best[path] != state.state.trainable[path]).any()
    scores = loop.evaluate(setup.network, dict(state.state.average), setup.frozen, setup.val, state.state.hyper, 4)
    assert epoch.val["loss"] == [pytest.approx(float(scores.loss[0] / scores.samples[0]))]
    assert not dataclasses.replace(setup, config=config(VPT(depth=2, num_context=2))).averaged


@pytest.mark.slow
def test_promptsrc_keeps_the_gaussian_average_of_epochs():
    asked = config(PromptSRC(**SHORT, average_epoch=2.0, average_spread=0.8))
    _, setup = prepared(asked)
    state, after, _ = trained(asked, setup, 3)
    ends = after[len(after) // 3 - 1 :: len(after) // 3]
    expected = weighted(ends, np.exp(-((np.arange(1, 4) - 2.0) ** 2) / (2 * 0.8**2)))
    for path, array in expected.items():
        assert_allclose(state.state.average[path][0], array, rtol=1e-5, atol=1e-6)


def run(setup: TrainSetup, experiment: Experiment, values: dict[str, float], text=None) -> dict[str, np.ndarray]:
    """The trained parameters after two steps with these values of the regulariser."""
    trainable, hyper = experiment.for_trials(1)
    given = {name: np.full_like(array, values.get(name, 0.0)) for name, array in hyper.values.items()}
    state = step.init(jax.tree.map(np.copy, trainable), hyper._replace(values=given))
    for _, source in zip(range(2), setup.batches(1), strict=False):
        state, _ = step.train_step(
            state,
            setup.frozen,
            source,
            setup.train.table,
            text or setup.frozen_text,
            network=setup.network,
            schedule=setup.schedule,
        )
    return {path: np.asarray(array[0]) for path, array in state.trainable.items()}


@pytest.mark.slow
@pytest.mark.parametrize("regularised", [KgCoOp, PromptSRC])
def test_weights_are_values(regularised):
    """Without them the frozen targets don't matter, to the bit; nothing is compiled for other weights."""
    experiment, setup = prepared(config(regularised(**SHORT)))
    text = setup.frozen_text
    assert text is not None
    off = run(setup, experiment, {})
    with compilation.counted() as compiled:
        other = run(setup, experiment, {}, text._replace(sentence=-3 * text.sentence[:, ::-1]))
        on = {name: run(setup, experiment, {name: 50.0}) for name in regularised.traced_fields if "weight" in name}
    assert compiled["train_step"] == 0
    for path, array in off.items():
        assert_array_equal(other[path], array)
    for name, params in on.items():
        assert any((params[path] != off[path]).any() for path in off), name


def test_the_frozen_sentence_is_the_mean_over_templates():
    templates = ("a photo of a {}.", "{}")
    experiment, setup = prepared(config(KgCoOp(**SHORT, templates=templates)))
    network, _ = experiment.zero_shot()
    bare = [phrase.rstrip(".") for phrase in setup.train.records.phrases]
    expected = np.mean(
        [
            step.encode_text_step(
                experiment.frozen, experiment._tokens([t.replace("{}", p) for p in bare], 0), network=network
            ).sentence
            for t in templates
        ],
        axis=0,
    )
    assert setup.frozen_text is not None
    assert_allclose(setup.frozen_text.sentence, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_frozen_features_are_cached_beside_the_images():
    params = []
    for cached in (True, False):
        experiment, setup = prepared(config(PromptSRC(**SHORT), cache_features=cached))
        source = next(iter(setup.batches(1)))
        assert isinstance(source.images, WithFeatures) == cached
        params.append(run(setup, experiment, {"image_weight": 10.0, "mask_weight": 1.0}))
    for path, array in params[0].items():
        assert_allclose(params[1][path], array, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("learner", "ema"), [(VPT(depth=2, num_context=2), 0.7), (PromptSRC(**SHORT, average_epoch=2.0), None)], ids=str
)
def test_resumed_is_the_same_to_the_bit(tmp_path, learner, ema):
    for name, counts in (("whole", (3,)), ("resumed", (1, 3))):
        asked = dataclasses.replace(config(learner, ema=ema), workdir=str(tmp_path / name))
        for epochs in counts:
            train = dataclasses.replace(asked.train, epochs=epochs)
            trainer.train(dataclasses.replace(asked, train=train), Console(quiet=True))
    for name in ("prompts.safetensors", "results.json"):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert small.metrics(tmp_path / "resumed") == small.metrics(tmp_path / "whole")
    _, _, card = load_learnt(tmp_path / "whole")
    assert card["config"]["train"]["ema"] == ema and "average" in card["protocol"]["parameters"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (config(KgCoOp(**SHORT), tune="decoder"), "train.tune must be prompts with KgCoOp"),
        (config(PromptSRC(**SHORT), ema=0.9), "train.ema must be None with PromptSRC"),
        (config(VPT(), ema=1.0), "train.ema must be at least 0 and below 1, got 1.0"),
    ],
    ids=["decoder", "two averages", "decay"],
)
def test_options_that_do_not_go_together(asked, message):
    with pytest.raises(UserError, match=message):
        check(asked)
