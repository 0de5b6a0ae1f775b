"""Simulated studies of known truth: how often intervals contain it, and how often a test finds what isn't there."""

import numpy as np
import pytest

from tunevlseg_jax.reporting.statistics import intervals, paired, units

STUDIES = 2000


def scores(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Dice-like: most cases are good, some poor, and 3 % are missed altogether."""
    return rng.beta(5, 1.5, shape) * (rng.random(shape) > 0.03)


TRUTH = 5 / 6.5 * 0.97


def unit_scores(rng: np.random.Generator, number: int, grouped: bool) -> np.ndarray:
    """(studies, units); grouped, each unit is a patient of five images, whose difficulty is mostly the patient's."""
    if not grouped:
        return scores(rng, STUDIES, number)
    cases = 0.7 * np.repeat(scores(rng, STUDIES, number), 5, -1) + 0.3 * scores(rng, STUDIES, 5 * number)
    return units.unit_means(cases, np.repeat(np.arange(number), 5).tolist())


@pytest.mark.slow
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(("number", "least"), [(20, 0.91), (50, 0.93), (100, 0.93), (400, 0.93)])
def test_intervals_cover_the_truth(number, least, grouped):
    rng = np.random.default_rng(number)
    low, high = intervals.bca(unit_scores(rng, number, grouped), intervals.resamples(number, 1999))
    covered = ((low <= TRUTH) & (high >= TRUTH)).mean()
    print(f"{number} units, grouped {grouped}: {covered:.4f}")
    assert least <= covered <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("number", [20, 50, 400])
def test_at_most_six_percent_of_studies_find_a_difference_between_equals(number):
    """Four methods that are alike, and share the difficulty of each unit."""
    rng = np.random.default_rng(number)
    methods = [0.5 * scores(rng, STUDIES, number)] * 4
    methods = [shared + 0.5 * scores(rng, STUDIES, number) for shared in methods]
    p = [paired.wilcoxon(methods[a] - methods[b]) for a in range(4) for b in range(a)]
    wrong = (paired.holm(np.stack(p, -1)) < paired.SIGNIFICANCE).any(-1).mean()
    print(f"{number} units: {wrong:.4f}")
    assert 0.01 <= wrong <= 0.06
