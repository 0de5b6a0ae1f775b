"""Tests of the report's gallery on a run that was really trained: what is shown is what was scored."""

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
from tunevlseg_jax.reporting.output.content import Content
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


def content(run: Run) -> Content:
    """A report on one run, without tables."""
    return Content(str(run.folder.parent), cells.choose([run]), (), (), ())


def test_the_masks_that_are_shown_have_the_dice_of_the_evaluation(evaluated):
    assert evaluated.own_test is not None
    who = ("model", "VPT")
    shown = pictures.predict({who: (evaluated, evaluated.own_test)}, 5)
    assert len(shown) == 5 and len({picture.id for picture in shown}) == 5
    for picture in shown:
        mask, truth = picture.predicted[who], picture.truth
        assert picture.image.shape == (small.IMAGE, small.IMAGE, 3)
        assert mask.shape == truth.shape == picture.image.shape[:2]
        dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
        np.testing.assert_allclose(picture.dice[who], dice, atol=1e-6)


def test_a_run_on_other_data_than_is_there_now_is_not_shown(evaluated):
    scenes = dataclasses.replace(evaluated.config.data.scenes, seed=1)
    config = dataclasses.replace(evaluated.config, data=dataclasses.replace(evaluated.config.data, scenes=scenes))
    changed = dataclasses.replace(evaluated, config=config)
    drawn = gallery.draw_figures(content(changed), 3, lambda message: None)
    assert not drawn.samples
    assert any("has changed since" in reason for reason in drawn.undrawn)


def test_every_figure_with_content_is_in_the_gallery(evaluated):
    drawn = gallery.draw_figures(content(evaluated), 6, lambda message: None)
    names = ["reliability_0", "curves", "parameters", "examples_0_0", "embeddings_0"]
    assert [figure.name for figure in drawn.figures] == names
    assert list(drawn.samples) == ["scenes/photo"]
    why = "three trends and importance need trials, four comparisons other methods, and two figures evaluations"
    assert len(drawn.undrawn) == 10, why
    none = gallery.draw_figures(content(evaluated), 0, lambda message: None)
    assert [figure.name for figure in none.figures] == names[:3] and not none.samples


def test_vectors_are_those_of_the_model_without_prompts(evaluated):
    stored = vectors(evaluated)
    assert stored.images.shape[0] <= 6 and stored.text.shape == (len(stored.phrases), stored.images.shape[1])
    assert np.isfinite(stored.images).all()
    assert len(np.unique(stored.text.round(5), axis=0)) == len(stored.phrases)
