"""The quickstart's first losses are those it has always had."""

import json

import pytest
import small

LOSSES = [(1.04209, 0.99406), (0.96355, 0.92695)]
"""Of training and validation in the first two epochs, in float32 on a CPU."""
ROUNDING = (5e-3, 2e-2)
"""How far they may be apart, as a share: processors round in another order, and each step enlarges the difference."""


@pytest.mark.slow
def test_the_losses_of_two_epochs(tmp_path):
    """In a process with the settings of a user, not those of the tests."""
    quickstart = small.ROOT / "configs" / "quickstart.py"
    options = ("--config", quickstart, "--workdir", tmp_path / "run", "--train.epochs", 2)
    settings = {
        "JAX_DEFAULT_MATMUL_PRECISION": "default",
        "JAX_NUMPY_RANK_PROMOTION": "allow",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",
    }
    status, _, err = small.finish(small.start("-m", "tunevlseg_jax.train", *options, **settings), 600)
    assert (status, err) == (0, "")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()]
    losses = [(row["train"]["loss"], row["val"]["loss"]) for row in rows]
    assert losses == [pytest.approx(pair, rel=share) for pair, share in zip(LOSSES, ROUNDING, strict=True)]
