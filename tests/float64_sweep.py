"""Trains trials together, then each alone, in float64: `python tests/float64_sweep.py FOLDER LEARNER SPACE...`."""

import sys

import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)
jnp.float32 = jnp.float64  # before the modules below take it for the type of what they compute


def main() -> None:
    """A sweep in FOLDER of a learner that `tests/search/sweep_cases.py` names, and a run of each of its trials."""
    import sweep_cases
    from rich.console import Console

    from tunevlseg_jax import sweep
    from tunevlseg_jax.runtime import sharding
    from tunevlseg_jax.search import run_sweep
    from tunevlseg_jax.search.options import Replay

    sharding.num_cores = lambda: 1  # all in one program
    folder, learner, *space = sys.argv[1:]
    quiet = Console(quiet=True)
    run_sweep.sweep(sweep_cases.three_trials(folder, learner, space), quiet)
    for trial in range(3):
        sweep.replay(Replay(study="s", trial=trial, folder=folder, as_train=True), quiet)


if __name__ == "__main__":
    main()
