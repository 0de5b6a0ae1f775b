"""Many runs with evaluations of many records, as a large benchmark leaves them, for tests of a report's cost."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import fake_runs
import numpy as np

from tunevlseg_jax.config import Train
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.learners import VPT, CoCoOp, CoOp, MaPLe, SharedAttention, SharedSeparate

LEARNERS = (VPT(), CoOp(), CoCoOp(), MaPLe(), SharedSeparate(), SharedAttention())
SETS = ("camus", "kvasir", "busi", "dfu2022", "clinicdb", "bkai", "isic2016", "chexlocalize", "cityscapes", "voc2012")


def write(
    root: Path,
    sets: Sequence[str] = SETS[:6],
    methods: int = 4,
    seeds: int = 2,
    records: int = 40,
    *,
    gaps: Sequence[float] = (0, 0.01, 0.04, 0.1, 0.11, 0.12, 0.13, 0.14, 0.15, 0.16),
) -> int:
    """Writes a run with an evaluation for each set, method and seed, and returns how many there are.

    Args:
      root: folder of the runs.
      sets: names of data sets.
      methods: how many; from the seventh on they are those before with another model.
      seeds: of each method.
      records: test records of each set; two are of one patient.
      gaps: how far each method's Dice is below the first's.
    """
    number = 0
    for place, data in enumerate(sets):
        random = np.random.default_rng(place)
        ease = random.beta(5, 1.5, records)
        for method, seed in itertools.product(range(methods), range(seeds)):
            dice = np.clip(ease - gaps[method % len(gaps)] + 0.05 * random.standard_normal(records), 0, 1)
            config = fake_runs.config(
                learner=LEARNERS[method % len(LEARNERS)],
                data=Data(name=data),
                train=Train(epochs=2, batch_size=4, seed=seed),
            )
            if method >= len(LEARNERS):
                config = dataclasses.replace(config, model=dataclasses.replace(config.model, checkpoint="cris-tiny"))
            folder = fake_runs.run(root / f"run{number:04}", config, (0.5, 0.5), float(np.round(dice, 2).mean()))
            samples = [fake_runs.sample(f"{row}", round(100 * value), 100, 100) for row, value in enumerate(dice)]
            units = [dataclasses.replace(each, unit=f"patient {row // 2}") for row, each in enumerate(samples)]
            fake_runs.evaluation(folder, data, units)
            number += 1
    return number
