"""Runs to export, and what their exports compute in a process without this package."""

import sys
from pathlib import Path

import numpy as np
import small

from tunevlseg_jax.config import Config, Model, Train
from tunevlseg_jax.data import registry
from tunevlseg_jax.data.settings import Data, Scenes
from tunevlseg_jax.exporting import write
from tunevlseg_jax.learners.contract import Learner, ZeroShot
from tunevlseg_jax.run import Run
from tunevlseg_jax.runs.card import make_card, save_learnt
from tunevlseg_jax.training.build import build_experiment

PHRASES = ("three", "the digit seven")
TEMPERATURE = 4.0
"""Of every run: probabilities are then neither 0 nor 1, so that differences show."""
CLOSE = 2e-5
"""Probabilities this near to the threshold may fall on either side of it."""
READ = """
import importlib.util, sys
for name in {blocked}:
    sys.modules[name] = None  # importing it fails
import numpy as np
spec = importlib.util.spec_from_file_location("reader", sys.argv[1] + "/read_model.py")
reader = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reader)
model = reader.Model(sys.argv[1])
given = np.load(sys.argv[2])
phrases, tasks = given["phrases"].tolist(), given["tasks"].tolist()
tokens = model.tokens(phrases)
whole = model(given["images"], tokens, *([tasks] if tasks else []))
one = model(given["images"][:1], tokens[:1], *([tasks[:1]] if tasks else []))
np.savez(sys.argv[3], whole=whole, one=one)
"""


def make_run(folder: Path, checkpoint: str, learner: Learner, seed: int = 0, **changes) -> Path:
    """What a run leaves behind that learnt something, as far as an export reads it."""
    changes.setdefault("train", Train(seed=seed, precision="float32"))
    config = Config(model=Model(checkpoint=checkpoint), learner=learner, **changes)
    experiment = build_experiment(config, trains=learner != ZeroShot() or config.train.tune != "prompts")
    random = np.random.default_rng(seed)
    learnt = {
        path: np.asarray(array) + random.normal(0, 0.02, array.shape).astype(np.float32)
        for path, array in experiment.trainable.items()
    }
    card = make_card(config, experiment.pretrained.sha256, experiment.image_size, {})
    save_learnt(folder, learnt, card | {"calibration": {"temperature": TEMPERATURE}})
    return folder


def images(size: tuple[int, int], count: int) -> np.ndarray:
    """Embedded scenes, (count, height, width, 3) uint8."""
    data = Data(name="scenes/photo", scenes=Scenes(train=count, val=1, test=1))
    return np.array(registry.load(data, "train", size).images[:count])


def asked(count: int) -> list[str]:
    return [PHRASES[number % 2] for number in range(count)]


def read(folder: Path, blocked: tuple[str, ...], pixels: np.ndarray, tasks: tuple[str, ...] = ()) -> np.ndarray:
    """The probabilities of an export's own reader, of a batch, whose first image alone has the same."""
    given, answer = folder.parent / "given.npz", folder.parent / "answer.npz"
    np.savez(given, images=pixels, phrases=asked(len(pixels)), tasks=np.asarray(tasks, str))
    process = small.start("-c", READ.format(blocked=blocked), folder, given, answer, PYTHONPATH="")
    assert small.finish(process, 600) == (0, "", ""), sys.argv
    found = np.load(answer)
    np.testing.assert_allclose(found["one"], found["whole"][:1], atol=1e-5)
    return found["whole"]


def check_masks(found: np.ndarray, run: Run, pixels: np.ndarray) -> None:
    """The masks of an export are those of `predict`, and its probabilities too, nearly."""
    expected = np.stack(run.probabilities(list(pixels), asked(len(pixels))))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    masks = np.stack(run.predict(list(pixels), asked(len(pixels))))
    differing = (found > 0.5) != masks
    assert (np.abs(expected[differing] - 0.5) < CLOSE).all(), f"{differing.sum()} pixels"
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-6)  # small ones too


def stablehlo(output: Path, *runs: Path, inputs: bool = False) -> Path:
    write.stablehlo(output, write.load(runs), "uint8", PHRASES[:1], inputs=inputs)
    return output


def onnx(output: Path, run: Path) -> Path:
    write.onnx(output, write.load([run])[0], "uint8", PHRASES[:1])
    return output
