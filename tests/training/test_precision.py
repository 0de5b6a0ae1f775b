"""Tests of the types that a run computes in: they are chosen, kept from its beginning, and named in its files."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
import small

from tunevlseg_jax.config import Train
from tunevlseg_jax.learners import CoOp
from tunevlseg_jax.runs import history
from tunevlseg_jax.runs.card import CARD_FILE, CONFIG_FILE, precision_of_card
from tunevlseg_jax.runtime import cpu_products
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import write_json
from tunevlseg_jax.training import precision

FULL, HALF = np.dtype(jnp.float32), np.dtype(jnp.bfloat16)


@pytest.fixture(autouse=True)
def pays(monkeypatch):
    """A machine on which bfloat16 pays for models of 512 and more."""
    monkeypatch.setattr(cpu_products, "verdict", lambda width: (width >= 512, f"measured for {width}"))


@pytest.mark.parametrize(
    ("asked", "platform", "width", "kept", "types", "reason"),
    [
        ("float32", "tpu", 512, None, (FULL, FULL), "as asked for"),
        ("float32", "cpu", 512, "bfloat16", (FULL, FULL), "as asked for"),
        ("bfloat16", "cpu", 64, None, (HALF, FULL), "as asked for"),
        ("bfloat16", "tpu", 512, None, (HALF, HALF), "as asked for"),
        ("auto", "gpu", 64, "float32", (HALF, HALF), "auto, on a gpu"),
        ("auto", "cpu", 512, None, (HALF, FULL), "auto: measured for 512"),
        ("auto", "cpu", 64, None, (FULL, FULL), "auto: measured for 64"),
        ("auto", "cpu", 512, "float32", (FULL, FULL), "auto, as the run began"),
        ("auto", "cpu", 64, "bfloat16", (HALF, FULL), "auto, as the run began"),
        ("auto", "cpu", 64, "float32", (FULL, FULL), "auto: measured for 64"),  # a card says the same again
    ],
)
def test_types(asked, platform, width, kept, types, reason):
    """On a CPU only kernels are bfloat16, since only their products are faster in it."""
    chosen = precision.choose(asked, platform, width, kept)
    assert (chosen.kernels, chosen.activations, chosen.reason) == (*types, reason)
    assert str(chosen) == f"{types[0].name} ({reason})"


def test_an_experiment_has_the_types_that_it_says(monkeypatch):
    monkeypatch.setattr(cpu_products, "verdict", lambda width: (True, "fast"))
    config = small.config(learner=CoOp(depth=1), train=Train(precision="auto"))
    experiment = small.build(config)
    assert experiment.network.dtype == HALF and experiment.network.activation_dtype == FULL
    expected = {"precision": "bfloat16", "activations": "float32", "platform": "cpu", "reason": "auto: fast"}
    assert experiment.computed.for_card() == expected


def test_a_run_keeps_its_precision(tmp_path):
    """From its beginning to its card, whatever the machine prefers later; runs of earlier versions are in float32."""
    runs, tmp_path = tmp_path, tmp_path / "run"
    tmp_path.mkdir()
    assert history.kept_precision(tmp_path) is None
    write_json(tmp_path / CONFIG_FILE, {})
    assert history.kept_precision(tmp_path) == "float32"
    history.keep_precision(tmp_path, precision.choose("auto", "cpu", 64))
    assert not (tmp_path / history.HISTORY_FILE).exists()
    history.write(tmp_path, history.History((3,)))
    half = precision.choose("auto", "cpu", 512)
    history.keep_precision(tmp_path, half)
    assert history.kept_precision(tmp_path) == "bfloat16" and history.read(tmp_path).earlier_epochs == (3,)
    write_json(tmp_path / CARD_FILE, {})
    assert history.kept_precision(tmp_path) == "float32"
    write_json(tmp_path / CARD_FILE, {"computed": half.for_card()})
    assert history.kept_precision(tmp_path) == "bfloat16"
    assert history.precision_of_runs(runs) == "bfloat16"
    (tmp_path / CARD_FILE).unlink()
    assert history.precision_of_runs(tmp_path) is None
    (tmp_path / history.HISTORY_FILE).write_text(json.dumps({"precision": "float8"}))
    with pytest.raises(UserError, match="must have the history"):
        history.kept_precision(tmp_path)


def test_a_run_of_another_device_chooses_anew():
    computed = dataclasses.replace(precision.choose("auto", "tpu", 512)).for_card()
    assert precision_of_card({"computed": computed}) is None
