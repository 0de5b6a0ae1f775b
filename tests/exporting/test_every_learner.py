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
from tunevlseg_jax.models.platforms import only_plain
from tunevlseg_jax.run import Run, load_model

quick_compilation = small.quick_compilation
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("exports")]
MODELS = ("clipseg-tiny", "cris-tiny", "sam3-tiny")
HUNDRED = {VPT}
"""The learners that are asked for 100 images, and for one; the others for 7."""
TAKEN = {
    model: {type(learner): learner for learner in (ZeroShot(), *learners_for(load_model(model).spec))}
    for model in MODELS
}
CASES = [
    (model, TAKEN[model][cls])
    for number, cls in enumerate((ZeroShot, *LEARNERS))
    for model in [next(model for model in (*MODELS[number % 3 :], *MODELS) if cls in TAKEN[model])]
]
"""Each learner on one of the models that take it, in turn: all pairs would take five minutes."""


@pytest.mark.parametrize(
    ("model", "learner"), [pytest.param(*case, id=f"{case[0]}-{type(case[1]).__name__}") for case in CASES]
)
def test_masks_are_those_of_predict(model, learner, tmp_path):
    # a run without a learner has nothing else to learn
    upsampling = "none" if isinstance(learner, ZeroShot) else "blend"
    run = exported.make_run(tmp_path / "run", model, learner.at_depth(2), upsampling=upsampling)
    (task,) = write.load([run])
    learnt = {path: value for path, value in task.values.items() if path not in (program.DEPTH, program.TEMPERATURE)}
    loaded = Run(task.experiment, learnt, {}, None, AS_THEY_ARE, exported.TEMPERATURE)
    counts = (100, 1) if type(learner) in HUNDRED else (7,)
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


def test_one_program_for_eight_tasks_costs_no_more_operations(tmp_path):
    """And its file is an eighth as large as eight programs, nearly."""
    count = 8
    tasks = write.load(
        [exported.make_run(tmp_path / name, "clipseg-tiny", VPT(depth=2), upsampling="none") for name in "ab"]
    )
    images, tokens = (
        jax.ShapeDtypeStruct((count, *shape), dtype) for shape, dtype in stablehlo.shapes(tasks[0], "uint8")
    )
    rows = {path: jax.ShapeDtypeStruct((count, *value.shape), value.dtype) for path, value in tasks[0].values.items()}
    with only_plain():
        shared = jax.jit(program.with_values(tasks[0].experiment)).lower(images, tokens, rows).cost_analysis()
        alone = jax.jit(program.folded(tasks[0])).lower(images, tokens).cost_analysis()
    assert shared["flops"] <= 1.01 * alone["flops"]
    shared_bytes, alone_bytes = (len(stablehlo.serialize(tasks, "uint8", as_inputs=inputs)) for inputs in (True, False))
    assert shared_bytes < 1.05 * alone_bytes
