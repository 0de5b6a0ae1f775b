"""The embedded models do what the README says, and every configuration in the repository can be used."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from tunevlseg_jax import config as configuration
from tunevlseg_jax.config import Config, Model
from tunevlseg_jax.data import scenes
from tunevlseg_jax.data.records import resized
from tunevlseg_jax.data.settings import Data, Scenes
from tunevlseg_jax.pretrained.load import EMBEDDED, load_pretrained
from tunevlseg_jax.studies import grid
from tunevlseg_jax.training import loop, metrics, step
from tunevlseg_jax.training.build import build_experiment
from tunevlseg_jax.training.experiment import Experiment

ROOT = Path(__file__).parents[2]
RECORDS = 100
PARAMETERS = {"clipseg-tiny": 1_500_000, "cris-tiny": 2_000_000, "sam3-tiny": 2_000_000}
"""At most, of each embedded model."""
DICE = {"clipseg-tiny": 0.70, "cris-tiny": 0.82, "sam3-tiny": 0.82}
"""At least, on photographs."""


@pytest.fixture(
    scope="module",
    params=["clipseg-tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cris-tiny", "sam3-tiny"))],
)
def experiment(request) -> Experiment:
    """An embedded model as it is; an upsampler, since something must be trainable."""
    model = Model(checkpoint=request.param)
    return build_experiment(Config(model=model, upsampling="blend", data=Data(scenes=Scenes(test=RECORDS))))


def zero_shot_dice(experiment: Experiment, domain: str) -> float:
    network, params = experiment.zero_shot()
    split = experiment.split("test", dataclasses.replace(experiment.config.data, name=f"scenes/{domain}"))
    sums = loop.evaluate(network, {}, params, split, experiment.hyper(), 50)
    return metrics.means(sums)["dice"][0]


def test_every_embedded_model_is_tested():
    assert {path.name for path in EMBEDDED.iterdir()} == PARAMETERS.keys()


def test_an_embedded_model_is_small(experiment):
    name = experiment.config.model.checkpoint
    assert sum(array.size for array in load_pretrained(name).weights.values()) <= PARAMETERS[name]
    assert sum(path.stat().st_size for path in (EMBEDDED / name).iterdir()) <= 4_000_000


def test_the_model_works_on_photographs_and_not_on_other_domains(experiment):
    dice = {domain: zero_shot_dice(experiment, domain) for domain in scenes.DOMAINS}
    assert dice["photo"] >= DICE[experiment.config.model.checkpoint]
    assert all(dice["photo"] - dice[domain] >= 0.20 for domain in scenes.DOMAINS if domain != "photo")


def test_masks_follow_the_prompt(experiment):
    """The digit that is asked for is marked, and the others of the same scene are not: no blind model passes."""
    records = resized(scenes.load("photo", "test", 50, prompts_per_image=len(scenes.CLASSES)), experiment.image_size)
    network, params = experiment.zero_shot()
    hyper = jax.tree.map(lambda values: values[0], experiment.hyper())
    phrases = np.zeros(len(records.images), np.int32)
    predicted = np.stack(
        [
            jax.nn.sigmoid(
                step.answer_step(
                    params, records.images, phrases, experiment.token_table([name]), hyper, network=network
                ).logits
            )
            for name in scenes.CLASSES
        ],
        axis=1,
    )
    true = np.zeros(predicted.shape, bool)
    true[records.image, records.prompt] = records.masks
    others = true.any(axis=1, keepdims=True) & ~true
    assert predicted[true].mean() > 0.6
    assert predicted[others].mean() < 0.2


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/*.py")), ids=lambda path: path.stem)
def test_configurations_load(path):
    if path.stem.startswith("study_"):
        grid.load(str(path))
    else:
        configuration.check(configuration.load(str(path)))
    assert path.name in path.read_text(encoding="utf-8").split('"""')[1], "its docstring gives the command"
