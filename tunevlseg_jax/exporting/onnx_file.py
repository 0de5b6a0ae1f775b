"""The ONNX file of a run, whose first axis is of any length."""

from typing import Any

import numpy as np

from tunevlseg_jax.exporting import program
from tunevlseg_jax.exporting.onnx_graph import BATCH, OPSET, Graph, integers, trace
from tunevlseg_jax.exporting.onnx_rules import RULES
from tunevlseg_jax.exporting.program import Task
from tunevlseg_jax.exporting.stablehlo import check_size, shapes
from tunevlseg_jax.models.platforms import only_plain

FILE = "model.onnx"
INPUTS, OUTPUT = ("images", "tokens"), "probabilities"
IR_VERSION = 10
"""Of ONNX 1.16 and later; older runtimes refuse a newer one."""


def serialize(task: Task, pixels: str, onnx: Any) -> bytes:
    """The file's content.

    Args:
      task: the run.
      pixels: type of the images, "uint8" or "float32".
      onnx: the package.

    Raises:
      UserError: the weights are too large for one file, or ONNX can't say an operation.
    """
    check_size(task)
    described = shapes(task, pixels)
    with only_plain():
        traced, batch = trace(program.folded(task), described)
    graph = Graph(onnx, batch)
    helper = onnx.helper
    size = helper.make_node("Slice", ["input_shape", graph.name(integers([0])), graph.name(integers([1]))], [BATCH])
    graph.nodes += [helper.make_node("Shape", [INPUTS[0]], ["input_shape"]), size]
    (result,) = graph.run(traced.jaxpr, traced.consts, INPUTS, RULES)
    graph.nodes.append(helper.make_node("Identity", [graph.name(result)], [OUTPUT]))
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), [BATCH, *shape])
        for name, (shape, dtype) in zip(INPUTS, described, strict=True)
    ]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(np.float32))
    output = helper.make_tensor_value_info(OUTPUT, kind, [BATCH, *task.experiment.image_size])
    content = helper.make_graph(graph.nodes, "tunevlseg_jax", inputs, [output], graph.constants)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(content, opset_imports=opset, ir_version=IR_VERSION, producer_name="tunevlseg_jax")
    onnx.checker.check_model(model)
    return model.SerializeToString()
