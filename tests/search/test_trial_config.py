"""Tests of search spaces: the paper's table, overrides, and the configurations of trials."""

import dataclasses

import jax
import mistakes
import numpy as np
import optuna
import pytest
import small
from numpy.testing import assert_array_equal
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from tunevlseg_jax.config import Train
from tunevlseg_jax.learners import VPT, CoCoOp, Combined, CoOp, LoRA, MaPLe, Projector, SharedAttention, SharedSeparate
from tunevlseg_jax.learners.base import ContextLearner
from tunevlseg_jax.learners.space import OPTIMIZER
from tunevlseg_jax.models.parameters import nested, subtree
from tunevlseg_jax.search import slots, trial_config
from tunevlseg_jax.search.sampler import START_UP, Sampler
from tunevlseg_jax.training.experiment import Experiment

quick_compilation = small.quick_compilation

MAPLE = small.config(learner=MaPLe(depth=1, num_context=2, init_phrase=None))


def experiment(config=MAPLE) -> Experiment:
    return small.build(trial_config.shallow(config))


@pytest.mark.parametrize(
    ("learner", "fields"),
    [
        (CoOp, {}),
        (VPT, {}),
        (
            CoCoOp,
            {
                "projector.hidden": CategoricalDistribution((32, 64, 96, 128)),
                "projector.kind": CategoricalDistribution(("mlp", "low_rank")),
            },
        ),
        (
            MaPLe,
            {
                "projector.hidden": CategoricalDistribution((32, 64, 96)),
                "projector.kind": CategoricalDistribution(("mlp", "low_rank")),
            },
        ),
        (SharedSeparate, {"width": CategoricalDistribution((32, 64))}),
        (
            SharedAttention,
            {
                "heads": CategoricalDistribution((16, 20, 32)),
                "dropout": FloatDistribution(0.1, 0.55),
                "hidden": CategoricalDistribution((1280, 1420)),
                "norm_first": CategoricalDistribution((True, False)),
            },
        ),
    ],
)
def test_the_papers_table(learner, fields):
    assert dict(learner.space) == {"depth": IntDistribution(1, 11)} | fields
    assert {
        "optim.learning_rate": FloatDistribution(1e-5, 5e-3, log=True),
        "optim.weight_decay": FloatDistribution(1e-5, 1e-2, log=True),
    } == OPTIMIZER


def test_what_doesnt_fit_the_model_is_left_out():
    """Of the usual space: three blocks a tower, and 64 channels in all."""
    learner = SharedAttention(depth=1, heads=4, hidden=16)
    space = trial_config.space(
        small.config(learner=learner), experiment(small.config(learner=learner)), ["hidden=8,16"]
    )
    assert space["learner.depth"] == IntDistribution(1, small.BLOCKS)
    assert space["learner.heads"] == CategoricalDistribution((16, 32))
    assert space["learner.hidden"] == CategoricalDistribution((8, 16))


def test_overrides():
    overrides = (
        *("depth=1..2", "learning-rate=1e-4..1e-3", "learner.projector.hidden=4,8", "projector.kind=mlp"),
        *("learner.init_phrase=None", "optim.plateau_factor=0.1..0.5", "optim.warmup_steps=0..3"),
        *("optim.weight_decay=0.1", "train.min_delta=log:1e-5..1e-3", "optim.cosine=true,false"),
    )
    assert trial_config.space(MAPLE, experiment(), overrides) == {
        "optim.learning_rate": FloatDistribution(1e-4, 1e-3, log=True),
        "optim.weight_decay": CategoricalDistribution((0.1,)),
        "learner.depth": IntDistribution(1, 2),
        "learner.projector.hidden": CategoricalDistribution((4, 8)),
        "learner.projector.kind": CategoricalDistribution(("mlp",)),
        "learner.init_phrase": CategoricalDistribution((None,)),
        "optim.plateau_factor": FloatDistribution(0.1, 0.5),
        "optim.warmup_steps": IntDistribution(0, 3),
        "train.min_delta": FloatDistribution(1e-5, 1e-3, log=True),
        "optim.cosine": CategoricalDistribution((True, False)),
    }


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("depht=1..2", "unknown-field: 'depht'.*'depth'"),
        ("optim.lerning_rate=1..2", "unknown-field: 'optim.lerning_rate'.*'optim.learning_rate'"),
        ("train.seed=0..3", r"unknown-field: 'train\.seed'"),
        ("num_context=0", "learner-unfit: learner.num_context: .*0"),
        ("depth", r"search-space: 'depth' .*NAME=LOW\.\.HIGH"),
        ("depth=", "search-space: 'depth='"),
        ("depth=3..1", r"search-space: learner.depth: .*3\.\.1"),
        ("depth=1..2.5", "search-space: learner.depth: .*'2.5'"),
        ("depth=1..9", "learner-unfit: learner.depth: .*3, .*text.*9"),
        ("depth=0..2", "learner-unfit: learner.depth: learner.depth .*0"),
        ("learning_rate=1e-2..1e-3", r"search-space: optim.learning_rate: .*0.01\.\.0.001"),
        ("learning_rate=0..1e-3", r"search-space: optim.learning_rate: .*logarithmic.*0\.\.0.001"),
        ("weight_decay=a..b", "search-space: optim.weight_decay: .*'a'"),
        ("kind=mlp,mlp", "search-space: learner.projector.kind: .*mlp, mlp"),
        ("kind=mpl", r"unknown-choice: learner\.projector\.kind.*'mpl'.*'mlp'"),
        ("hidden=0", r"learner-unfit: learner.projector.hidden: .*\(0,\)"),
        ("optim.plateau_factor=0.5..2", r"out-of-range: optim\.plateau_factor.*2"),
        ("optim.cosine=maybe", "search-space: optim.cosine: .*'maybe'"),
        ("optim.cosine=0..1", "search-space: optim.cosine: .*False"),
        ("learner.init_phrase=1..2", "search-space: learner.init_phrase: .*None"),
        ("depth=log:0..2", r"search-space: learner.depth: .*logarithmic.*0\.\.2"),
        ("hidden=8..6.5", "search-space: learner.projector.hidden: .*'6.5'"),
        ("train.augmented_views=2,4", r"unknown-field: 'train\.augmented_views'"),
        ("train.recompute=nothing,blocks", r"unknown-field: 'train\.recompute'"),
        ("train.shard_frozen=true,false", r"unknown-field: 'train\.shard_frozen'"),
        ("learner.projector.class=Projector", r"unknown-field: 'learner\.projector\.class'"),
    ],
)
def test_mistakes_are_one_line(override, says):
    with mistakes.raises(says) as error:
        trial_config.space(MAPLE, experiment(), [override])
    assert "\n" not in str(error.value)


def test_a_field_may_be_given_once():
    with mistakes.raises("search-space: learner.depth is given twice"):
        trial_config.space(MAPLE, experiment(), ["depth=1..2", "learner.depth=1..3"])


def test_whole_numbers_have_ranges_where_the_paper_has_choices():
    """On either scale; trials of any width share the program of the widest."""
    overrides = ("depth=log:1..3", "hidden=4..8", "optim.warmup_steps=log:1..100")
    space = trial_config.space(MAPLE, experiment(), overrides)
    assert space["learner.depth"] == IntDistribution(1, 3, log=True)
    assert space["learner.projector.hidden"] == IntDistribution(4, 8)
    assert space["optim.warmup_steps"] == IntDistribution(1, 100, log=True)
    params = {"learner.depth": 1, "learner.projector.hidden": 5}
    program = trial_config.program(MAPLE, trial_config.apply(MAPLE, space, params), space)
    assert isinstance(program.learner, MaPLe) and program.learner.projector.hidden == (8,)
    drawn = Sampler({"optim.warmup_steps": IntDistribution(1, 10**6, log=True)}, 0).start_up
    assert all(isinstance(params["optim.warmup_steps"], int) for params in drawn)
    assert sum(params["optim.warmup_steps"] < 1000 for params in drawn) > 1


def test_an_ablation_may_be_wider_than_the_space():
    space = trial_config.space(MAPLE, experiment(), ["hidden=4..8"])
    wide = trial_config.apply(MAPLE, {}, {"learner.projector.hidden": 12})
    program = trial_config.program(MAPLE, wide, space)
    assert isinstance(program.learner, MaPLe) and program.learner.projector.hidden == (12,)


def test_the_parts_of_a_combined_learner_have_their_own_spaces():
    """Each with its own largest depth, and a name that is short only where it means one field."""
    config = small.config(learner=Combined(of=(VPT(depth=1, num_context=2), LoRA(depth=1))))
    space = trial_config.space(config, experiment(config), ["of.0.depth=1..2", "rank=2,3"])
    assert space["learner.of.0.depth"] == IntDistribution(1, 2)
    assert space["learner.of.1.depth"] == IntDistribution(1, small.BLOCKS)
    assert space["learner.of.1.rank"] == CategoricalDistribution((2, 3))
    assert space["learner.of.1.dropout"] == FloatDistribution(0.0, 0.5)
    params = {"learner.of.0.depth": 1, "learner.of.1.depth": 3, "learner.of.1.rank": 2, "learner.of.1.dropout": 0.1}
    trial = trial_config.apply(config, space, params)
    vpt, lora = VPT(depth=1, max_depth=2, num_context=2), LoRA(depth=3, max_depth=small.BLOCKS, rank=2, dropout=0.1)
    assert trial.learner == Combined(of=(vpt, lora))
    other = {"learner.of.0.depth": 2, "learner.of.1.rank": 3, "learner.of.1.dropout": 0.2}
    program = trial_config.program(config, trial, space)
    assert program == trial_config.program(config, trial_config.apply(config, space, params | other), space)
    with mistakes.raises(
        r"unknown-field: more than one depth: learner\.of\.0\.depth and learner\.of\.1\.depth; give one"
    ):
        trial_config.space(config, experiment(config), ["depth=1..2"])


def test_the_largest_value_of_a_field():
    usual = MAPLE.train.epochs
    largest = {(): usual, ("depth=1..2",): usual, ("epochs=5",): 5, ("train.epochs=3..7",): 7, ("epochs=9,4",): 9}
    assert {overrides: trial_config.largest(MAPLE, overrides, "train.epochs") for overrides in largest} == largest


def test_between_the_ends_of_a_range_every_value_fits():
    config = small.config(learner=SharedAttention(depth=1, heads=4, hidden=16))
    assert trial_config.space(config, experiment(config), ["heads=1..2", "hidden=8..9"])[
        "learner.heads"
    ] == IntDistribution(1, 2)
    with mistakes.raises("learner-unfit: learner.heads: .*64, .*3"):
        trial_config.space(config, experiment(config), ["heads=2..4", "hidden=8..9"])


def test_trials_have_the_studys_order():
    train = Train(epochs=3, batch_size=4, seed=1, order_seed=5, order_skip=2)
    config = dataclasses.replace(MAPLE, train=train)
    trial = dataclasses.replace(config, train=dataclasses.replace(train, seed=2, order_seed=7, order_skip=4))
    assert trial_config.program(config, trial, {}).train == train


def test_trials_that_differ_in_values_and_widths_share_a_program():
    space = trial_config.space(MAPLE, experiment(), ["hidden=4,8"])
    params = {
        "optim.learning_rate": 1e-4,
        "optim.weight_decay": 1e-3,
        "learner.depth": 2,
        "learner.projector.hidden": 4,
        "learner.projector.kind": "mlp",
    }
    trial = trial_config.apply(MAPLE, space, params)
    assert trial.learner == MaPLe(
        depth=2, max_depth=small.BLOCKS, num_context=2, init_phrase=None, projector=Projector(hidden=(4,))
    )
    assert (trial.optim.learning_rate, trial.optim.weight_decay) == (1e-4, 1e-3)
    program = trial_config.program(MAPLE, trial, space)
    same = {"learner.depth": 3, "learner.projector.hidden": 8, "optim.learning_rate": 1e-5}
    assert trial_config.program(MAPLE, trial_config.apply(MAPLE, space, params | same), space) == program
    assert isinstance(program.learner, MaPLe) and program.learner.projector.hidden == (8,)
    other = trial_config.apply(MAPLE, space, params | {"learner.projector.kind": "low_rank"})
    assert trial_config.program(MAPLE, other, space) != program


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        (MaPLe(projector=Projector(hidden=(9,)), init_phrase=None), {"projector": Projector(hidden=(5,))}),
        (
            CoCoOp(projector=Projector("low_rank", (9,)), init_phrase=None),
            {"projector": Projector("low_rank", (5,))},
        ),
        (SharedSeparate(width=7), {"width": 3}),
        pytest.param(SharedAttention(heads=4, hidden=9, dropout=0.4), {"hidden": 5}, marks=pytest.mark.slow),
    ],
    ids=lambda value: type(value).__name__,
)
def test_padding_with_zeros_changes_nothing(wide, narrow):
    """Prompts are the same, and so are the gradients, which are zero where parameters are padded."""
    config = small.config(learner=dataclasses.replace(wide, depth=3, num_context=2))
    narrow_config = dataclasses.replace(config, learner=dataclasses.replace(config.learner, **narrow))
    assert {field.split(".")[0] for field in wide.padded_fields} == set(narrow)
    wide_experiment = small.build(config)
    fresh = wide_experiment.init_params(narrow_config)
    filled = slots.padded(fresh, wide_experiment.trainable)

    def loss_of(learner: ContextLearner, params):
        """A number that depends on every prompt, in training."""
        own_params = learnt(params)
        prompts = learner.prompts(own_params, 2, dropout=np.float32(0.4), key=jax.random.key(3))
        if "condition" in learner.changes:
            prompts = learner.condition(own_params, prompts, jax.random.normal(jax.random.key(4), (2, 32)))
        return sum(
            (array * jax.random.normal(jax.random.key(5), array.shape)).sum()
            for array in (prompts.text, prompts.vision)
            if array is not None
        )

    values = [
        jax.value_and_grad(loss_of, argnums=1)(c.learner, p) for c, p in ((narrow_config, fresh), (config, filled))
    ]
    np.testing.assert_allclose(values[1][0], values[0][0], rtol=1e-5)
    for path, gradient in values[0][1].items():
        if not path.startswith("learner/"):
            continue
        whole = np.array(values[1][1][path])
        inside = tuple(slice(side) for side in gradient.shape)
        np.testing.assert_allclose(whole[inside], gradient, rtol=1e-4, atol=1e-5)
        whole[inside] = 0
        assert_array_equal(whole, 0)
    assert any(filled[path].shape != fresh[path].shape for path in fresh)


def learnt(params):
    return nested(subtree(params, "learner"))


def test_start_up_trials_are_those_of_a_sequential_study():
    space = trial_config.space(MAPLE, experiment(), [])
    rng = np.random.default_rng(0)

    def objective(trial: optuna.Trial) -> float:
        for name, distribution in space.items():
            if isinstance(distribution, CategoricalDistribution):
                trial.suggest_categorical(name, distribution.choices)
            elif isinstance(distribution, IntDistribution):
                trial.suggest_int(name, distribution.low, distribution.high)
            else:
                trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
        return rng.random()

    plain = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=5, multivariate=True), direction="maximize")
    plain.optimize(objective, n_trials=START_UP)
    ours = optuna.create_study(sampler=Sampler(space, 5), direction="maximize")
    assert [ours.ask(space).params for _ in range(START_UP)] == [trial.params for trial in plain.trials]
    # TPE takes over when they have ended, and asked twice it doesn't give the same.
    for number in range(START_UP):
        ours.tell(number, plain.trials[number].value)
    later = [ours.ask(space).params for _ in range(2)]
    assert later[0] != later[1] and later[0].keys() == later[1].keys() == space.keys()
    # A running trial counts as a bad one: its parameters matter to the next trial.
    beside = []
    for seed in range(5):
        storage = optuna.storages.InMemoryStorage()
        study = optuna.create_study(storage=storage, study_name="s", sampler=Sampler(space, seed), direction="maximize")
        study.add_trials(ours.get_trials()[:START_UP])
        study.ask(space)
        other = optuna.load_study(storage=storage, study_name="s", sampler=Sampler(space, 5))
        beside.append(other.ask(space).params)
    assert any(params != beside[0] for params in beside)
    # A later trial depends on the seed, its number and the finished trials, not on who asks.
    again = optuna.create_study(sampler=Sampler(space, 5), direction="maximize")
    again.add_trials(ours.get_trials()[:START_UP])
    assert again.ask(space).params == later[0]


def test_suggestions_are_those_of_version_0_1_0():
    """Of every kind of distribution, in the random start and by TPE."""
    space = {
        "optim.learning_rate": FloatDistribution(1e-5, 5e-3, log=True),
        "optim.weight_decay": FloatDistribution(1e-5, 1e-2, log=True),
        "learner.depth": IntDistribution(1, 11),
        "learner.dropout": FloatDistribution(0.1, 0.55),
        "learner.heads": CategoricalDistribution((16, 20, 32)),
        "learner.norm_first": CategoricalDistribution((True, False)),
        "train.min_delta": CategoricalDistribution((1e-4,)),
        "optim.warmup_steps": IntDistribution(1, 1000, log=True),
    }
    study = optuna.create_study(sampler=Sampler(space, 5), direction="maximize")
    for _ in range(14):
        trial = study.ask(space)
        study.tell(trial, -abs(trial.params["learner.dropout"] - 0.3))
    suggested = {number: study.trials[number].params for number in SUGGESTED}
    assert [list(params) for params in suggested.values()] == [list(space)] * len(SUGGESTED)
    for number, params in SUGGESTED.items():
        assert list(suggested[number].values()) == pytest.approx(params, rel=1e-12)


SUGGESTED = {
    0: [3.9733142052744154e-05, 0.00409446269461076, 3, 0.5133749085720648, 32, True, 0.0001, 2],
    9: [0.0020908510753164617, 2.1544293090315417e-05, 6, 0.4824910145737872, 32, False, 0.0001, 11],
    10: [0.0007439014183386835, 2.668809236074769e-05, 9, 0.15450685896814004, 32, True, 0.0001, 10],
    13: [0.001518646182758086, 0.00017589795054999928, 9, 0.3987655904490783, 32, True, 0.0001, 1],
}
"""What version 0.1.0 suggested for these trials."""
