"""Tests of the report's gallery on a run that was really trained: what is shown is what was scored."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import small

from tunevlseg_jax import evaluate
from tunevlseg_jax.reporting import cells, pictures, runs
from tunevlseg_jax.reporting.figures.embeddings import vectors
from tunevlseg_jax.reporting.output import gallery
from tunevlseg_jax.reporting.runs import Run

quick_compilation = small.quick_compilation


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> Run:
    """The run of `small`, evaluated on its test split."""
    folder: Path = tmp_path_factory.mktemp("runs") / "run"
    shutil.copytree(small.finished(), folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        small.run(monkeypatch, evaluate.main, "--run", folder)
    (run,), skipped = runs.gather(folder.parent)
    assert not skipped
    return run


def test_the_masks_that_are_shown_have_the_dice_that_is_told(evaluated):
    told = evaluated.own_test
    assert told is not None
    who = ("model", "VPT")
    seen = pictures.look({who: (evaluated, told)}, 5)
    assert len(seen) == 5 and len({picture.id for picture in seen}) == 5
    for picture in seen:
        found, truth = picture.found[who], picture.truth
        assert (
            picture.image.shape == (small.IMAGE, small.IMAGE, 3)
            and found.shape == truth.shape == picture.image.shape[:2]
        )
        np.testing.assert_allclose(
            picture.dice[who], 2 * (found & truth).sum() / (found.sum() + truth.sum()), atol=1e-6
        )


def test_a_run_on_other_data_than_is_there_now_is_not_shown(evaluated):
    scenes = dataclasses.replace(evaluated.config.data.scenes, seed=1)
    config = dataclasses.replace(evaluated.config, data=dataclasses.replace(evaluated.config.data, scenes=scenes))
    changed = dataclasses.replace(evaluated, config=config)
    made = gallery.draw_figures([changed], cells.choose([changed]), 3, lambda words: None)
    assert not made.samples
    assert any("has changed since" in reason for reason in made.undrawn)


def test_everything_that_there_is_hangs_in_the_gallery(evaluated):
    found = cells.choose([evaluated])
    made = gallery.draw_figures([evaluated], found, 6, lambda words: None)
    assert [figure.name for figure in made.figures] == ["curves", "parameters", "examples_0_0", "embeddings_0"]
    assert list(made.samples) == ["scenes/photo"]
    assert len(made.undrawn) == 4, "three trends and importance need trials"
    none = gallery.draw_figures([evaluated], found, 0, lambda words: None)
    assert [figure.name for figure in none.figures] == ["curves", "parameters"] and not none.samples


def test_vectors_are_those_of_the_model_without_prompts(evaluated):
    found = vectors(evaluated)
    assert found.images.shape[0] <= 6 and found.words.shape == (len(found.phrases), found.images.shape[1])
    assert np.isfinite(found.images).all() and len(np.unique(found.words.round(5), axis=0)) == len(found.phrases)
