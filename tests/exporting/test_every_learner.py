"""Slow tests: exports of every learner, and of every embedded model, give the masks of `predict`."""

import exported
import jax
import numpy as np
import onnx
import onnxruntime
import pytest
import small
from jax import export

from tunevlseg_jax.data.preprocessing import AS_THEY_ARE
from tunevlseg_jax.exporting import onnx_file, program, stablehlo, write
from tunevlseg_jax.learners import LEARNERS, VPT, learners_for
from tunevlseg_jax.learners.contract import ZeroShot
from tunevlseg_jax.run import Run, load_model

quick_compilation = small.quick_compilation
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("exports")]
MODELS = ("clipseg-tiny", "cris-tiny", "sam3-tiny")
HUNDRED = {VPT}
"""The learners that are asked for 100 images, and for one; the others for 7."""
DEEP = {cls: {"depth": 2} for cls in LEARNERS if "depth" in cls.__dataclass_fields__}
TAKEN = {model: (ZeroShot, *learners_for(load_model(model).spec)) for model in MODELS}
CASES = [
    (next(model for model in (*MODELS[number % 3 :], *MODELS) if cls in TAKEN[model]), cls)
    for number, cls in enumerate((ZeroShot, *LEARNERS))
]
"""Each learner on one of the models that take it, in turn: all pairs would take five minutes."""


@pytest.mark.parametrize(("model", "cls"), [pytest.param(*case, id=f"{case[0]}-{case[1].__name__}") for case in CASES])
def test_masks_are_those_of_predict(model, cls, tmp_path):
    upsampling = "none" if cls is ZeroShot else "blend"  # a run without a learner has nothing else to learn
    run = exported.make_run(tmp_path / "run", model, cls(**DEEP.get(cls, {})), upsampling=upsampling)
    (task,) = write.load([run])
    learnt = {path: value for path, value in task.values.items() if path not in (program.DEPTH, program.TEMPERATURE)}
    loaded = Run(task.experiment, learnt, {}, None, AS_THEY_ARE, exported.TEMPERATURE)
    counts = (100, 1) if cls in HUNDRED else (7,)
    pixels = exported.images(task.experiment.image_size, counts[0])
    tokens = task.tokens(exported.asked(counts[0]))
    call = jax.jit(export.deserialize(bytearray(stablehlo.serialize([task], "uint8", as_inputs=False))).call)
    session = onnxruntime.InferenceSession(onnx_file.serialize(task, "uint8", onnx))
    for count in counts:
        given = pixels[:count], tokens[:count]
        found = np.asarray(call(*given))
        exported.check_masks(found, loaded, given[0])
        (same,) = session.run(None, dict(zip(onnx_file.INPUTS, given, strict=True)))
        np.testing.assert_allclose(same, found, atol=1e-4)
