"""Tests of the statistics of scores: against scipy and scikit-posthocs, their properties, and what has no number."""

import itertools
import math

import numpy as np
import pytest
import scikit_posthocs
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import special, stats

from tunevlseg_jax.reporting.statistics import intervals, paired, rankings, units
from tunevlseg_jax.runtime.errors import UserError

FEW = intervals.resamples(12, 499)


def dice(*shape: int, seed: int = 0) -> np.ndarray:
    """Skewed scores, as Dice is."""
    return np.random.default_rng(seed).beta(5, 1.5, shape)


def level(number: int) -> float:
    """The level at which scipy takes the quantiles that we take for 95 %."""
    return 1 - 2 * stats.norm.sf(stats.t.ppf(0.975, number - 1) * math.sqrt(number / (number - 1)))


@pytest.mark.parametrize("number", [12, 60])
def test_the_interval_is_scipys(number):
    """Both draw the same samples from the same seed."""
    values = dice(number) ** 3
    expected = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=1999,
        method="BCa",
        confidence_level=level(number),
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert intervals.bca(values, intervals.resamples(number, 1999)) == pytest.approx([*expected], abs=1e-6)


def test_the_interval_of_a_difference_is_scipys():
    first, second = dice(30), dice(30, seed=1)
    expected = stats.bootstrap(
        (first, second),
        lambda a, b, axis: (a - b).mean(axis),
        paired=True,
        n_resamples=1999,
        method="BCa",
        confidence_level=level(30),
        rng=np.random.default_rng(0),
    ).confidence_interval
    mean, limits = intervals.difference(first, second, intervals.resamples(30, 1999))
    assert mean == pytest.approx(first.mean() - second.mean())
    assert limits == pytest.approx([*expected], abs=1e-6)


def test_intervals_of_many_methods_are_those_of_each():
    values = dice(2, 3, 12)
    many = intervals.bca(values, FEW)
    assert many.shape == (2, 2, 3)
    assert many[:, 1, 2] == pytest.approx(intervals.bca(values[1, 2], FEW))


def test_one_unit_and_equal_units():
    assert np.isnan(intervals.bca(np.array([0.5]))).all()
    assert intervals.bca(np.full(12, 0.1), FEW) == pytest.approx([0.1, 0.1])
    assert paired.wilcoxon(np.zeros(5)) == 1
    assert math.isnan(paired.false_outperformance(np.array([0.5])))
    for difference, expected in ((0.1, 0), (0.0, 0.5), (-0.1, 1)):
        assert paired.false_outperformance(np.full(5, difference)) == expected


def test_units_are_means_of_seeds_then_of_groups():
    mean, deviation = units.over_seeds(np.array([[0.0, 0.2, 0.4], [0.2, 0.4, 1.0]]))
    assert mean == pytest.approx([0.1, 0.3, 0.7]) and deviation == pytest.approx(math.sqrt(2) / 6)
    assert units.over_seeds(np.array([[0.1, 0.2]]))[1] is None
    assert units.unit_means(mean, ["a", "b", "a"]) == pytest.approx([0.4, 0.3])
    assert units.unit_means(mean) == pytest.approx(mean)


def test_two_groups_have_an_interval_and_no_significant_difference():
    first, second = (
        units.unit_means(dice(40, seed=seed) / scale, ["a"] * 20 + ["b"] * 20) for seed, scale in ((0, 1), (1, 2))
    )
    (pair,) = paired.pairs(["good", "bad"], np.stack([first, second]))
    assert pair.units == 2 and pair.first == "good" and pair.low <= pair.difference <= pair.high
    assert pair.p == pytest.approx(0.5) and not pair.distinguishable


def test_one_method_has_no_pairs():
    assert paired.pairs(["only"], dice(1, 12)) == []
    assert rankings.rank_frequencies(dice(1, 12), FEW) == pytest.approx(np.ones((1, 1)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: intervals.bca(np.array([0.5, math.nan])), "scores must be finite, got nan at the index (1,)"),
        (lambda: paired.wilcoxon(np.array([])), "scores must have at least one number, got the shape (0,)"),
        (lambda: units.unit_means(dice(3), ["a"]), "groups must name the unit of each of 3 cases, got 1"),
        (lambda: units.matrix({}), "scores must be of at least one method, got none"),
        (lambda: units.matrix({"A": {"1": 0.5}, "B": {"1": 0.5, "2": 0.1}}), "1 are of one alone, such as 2"),
        (lambda: rankings.over_sets(dice(4, 3)), "at least 5 sets and 3 methods, got 4 and 3"),
        (lambda: rankings.kendall(dice(3), dice(4)), "two rankings must be of the same methods, got 3 and 4"),
        (lambda: paired.pairs(["A"], dice(2, 5)), "names must be 2 different ones, got 1"),
    ],
)
def test_what_has_no_number_is_said(call, message):
    with pytest.raises(UserError) as raised:
        call()
    assert message in str(raised.value)


@pytest.mark.parametrize("number", [8, 30, 80])
def test_wilcoxon_is_scipys(number):
    apart = dice(3, number) - dice(3, number, seed=1)
    apart[1, :3] = 0
    expected = [stats.wilcoxon(row).pvalue for row in apart]
    assert paired.wilcoxon(apart) == pytest.approx(expected, abs=1e-6)


def test_holm_by_hand():
    """The second of four: 3 times 0.01 is 0.03, less than nothing before it; the last can't be below the third."""
    assert paired.holm(np.array([0.04, 0.01, 0.03, 0.005])) == pytest.approx([0.06, 0.03, 0.06, 0.02])


def test_pairs_are_those_of_scikit_posthocs():
    scores = dice(4, 25) + np.array([[0.0], [0.02], [0.1], [0.3]])
    expected = scikit_posthocs.posthoc_wilcoxon(list(scores), p_adjust="holm").to_numpy()
    for pair in paired.pairs("0123", scores):
        assert pair.p == pytest.approx(expected[int(pair.first), int(pair.second)], abs=1e-6)


def test_a_false_claim_is_as_likely_as_the_one_sided_t_test_says():
    """The posterior under this prior has the frequentist test's tail."""
    apart = dice(20) - dice(20, seed=1)
    expected = stats.ttest_1samp(apart, 0, alternative="greater").pvalue
    assert paired.false_outperformance(apart) == pytest.approx(expected, abs=1e-6)


def test_ranks_over_sets_are_those_of_scipy_and_scikit_posthocs():
    scores = dice(6, 4)
    found = rankings.over_sets(scores)
    assert found.p == pytest.approx(stats.friedmanchisquare(*scores.T).pvalue, abs=1e-6)
    assert found.nemenyi == pytest.approx(scikit_posthocs.posthoc_nemenyi_friedman(scores).to_numpy(), abs=1e-6)
    assert found.critical_difference == pytest.approx(2.569 * math.sqrt(4 * 5 / 36), abs=1e-3)  # q of Demsar's Table 5
    assert rankings.over_sets(np.full((5, 3), 0.5)).p == 1


def test_rank_frequencies_by_hand():
    """Of two units drawn twice, one method wins on the first and the other on the second."""
    counts = np.array([[2, 0], [1, 1], [0, 2], [0, 2]], float)
    found = rankings.rank_frequencies(np.array([[0.6, 0.2], [0.4, 0.4]]), counts)
    assert found == pytest.approx(np.array([[1.5, 2.5], [2.5, 1.5]]) / 4)


def r_uniform(seed: int, number: int) -> np.ndarray:
    """The first numbers of R's `runif` after `set.seed(seed)`: a Mersenne Twister whose state a congruential generator
    fills."""
    states = []
    for step in range(50 + 625):
        seed = (69069 * seed + 1) % 2**32
        states += [seed] * (step >= 50)
    generator = np.random.RandomState()
    generator.set_state(("MT19937", np.array(states[1:], np.uint32), 624, 0, 0.0))
    return generator.randint(0, 2**32, number, np.uint32) * 2.3283064365386963e-10


def challenger_example() -> dict[str, np.ndarray]:
    """The three simulated tasks of challengeR's README, (method, case) each, drawn as its lines of R say."""
    uniform = r_uniform(4, 300)[50:].reshape(5, 50)
    lowest, width = np.array([[0.9, 0.8, 0.7, 0.6, 0.5], [0.1, 0.09, 0.09, 0.09, 0.09]])[..., None]
    high, low = r_uniform(1, 500).reshape(250, 2).T  # R's normal numbers are made of two uniform ones
    normal = stats.norm.ppf((np.floor(2**27 * high) + low) / 2**27).reshape(5, 50)
    orders = np.array([*itertools.permutations(range(5))])
    worst = np.zeros((5, len(orders)))
    np.put_along_axis(worst, orders.T, np.linspace(0.8, 1, 5)[:, None], axis=0)
    return {"c_ideal": lowest + width * uniform, "c_random": special.expit(1.5 + normal), "c_worstcase": worst}


def test_ranks_of_challengers_example():
    """Its data are the published ones, and its ranks and their bootstrap are computed again as challengeR describes
    them: cases are drawn with replacement, and each sample is aggregated by means and then ranked."""
    tasks = challenger_example()
    published = {("c_ideal", 0, 0): 0.938860999816097, ("c_ideal", 4, 49): 0.51589159184834}
    published |= {("c_random", 0, 0): 0.705483050079144, ("c_random", 2, 4): 0.699604525315967}
    for (task, method, case), value in published.items():
        assert tasks[task][method, case] == pytest.approx(value, abs=1e-13)
    counts = intervals.resamples(50, 1000, seed=1)
    draws = [np.repeat(np.arange(50), row.astype(int)) for row in counts]
    for task, stable in (("c_ideal", True), ("c_random", False)):
        means = np.stack([tasks[task][:, cases].mean(1) for cases in draws])
        ranks = 1 + (means[:, None, :] > means[:, :, None]).sum(2)  # no two means are equal
        expected = np.stack([(ranks == rank).mean(0) for rank in range(1, 6)], 1)
        found = rankings.rank_frequencies(tasks[task], counts)
        assert np.abs(found - expected).max() < 1e-6
        assert np.array_equal(found, np.eye(5)) == stable, "the ideal task has one ranking, the random one many"
    assert stats.rankdata(-tasks["c_random"].mean(1)).tolist() == [1, 2, 5, 3, 4]
    everything = np.ones((1, tasks["c_worstcase"].shape[1]))
    assert rankings.rank_frequencies(tasks["c_worstcase"], everything) == pytest.approx(np.full((5, 5), 0.2))


def test_kendall():
    assert rankings.kendall(np.array([1, 2, 3]), np.array([0.1, 0.3, 0.2])) == pytest.approx(1 / 3)
    assert rankings.kendall(np.array([1, 2]), np.array([5, 5])) is None


SCORES = arrays.arrays(float, (3, 12), elements=st.integers(0, 100).map(lambda number: number / 100))


@settings(max_examples=8, deadline=None)
@given(SCORES, st.permutations(range(3)), st.floats(-1, 1))
def test_order_and_a_constant_change_nothing_that_they_should_not(scores, order, constant):
    names = ["A", "B", "C"]
    there = paired.pairs(names, scores, FEW)
    for other in (
        paired.pairs([names[place] for place in order], scores[order], FEW),
        paired.pairs(names, scores + constant, FEW),
    ):
        for first, second in zip(there, other, strict=True):
            assert (first.first, first.second, first.units) == (second.first, second.second, second.units)
            for name in ("difference", "low", "high", "p", "false_claim"):
                assert getattr(first, name) == pytest.approx(getattr(second, name), abs=1e-6)
    moved = intervals.bca(scores + constant, FEW)
    assert moved == pytest.approx(intervals.bca(scores, FEW) + constant, abs=1e-6)
    frequencies = rankings.rank_frequencies(scores, FEW)
    assert frequencies.sum(1) == pytest.approx(np.ones(3)) and frequencies.sum(0) == pytest.approx(np.ones(3))
    assert rankings.rank_frequencies(scores[order], FEW) == pytest.approx(frequencies[order])


@settings(max_examples=8, deadline=None)
@given(st.permutations([f"case {number}" for number in range(12)]))
def test_names_of_cases_and_groups_change_nothing(names):
    values = dice(12)
    groups = [place % 4 for place in range(12)]
    renamed = [names[group] for group in groups]
    assert units.unit_means(values, renamed) == pytest.approx(units.unit_means(values, groups))
    cases, matrix = units.matrix({"A": dict(zip(names, values, strict=True))})
    assert cases == sorted(names)
    assert intervals.bca(matrix[0][[cases.index(name) for name in names]], FEW) == pytest.approx(
        intervals.bca(values, FEW)
    )
