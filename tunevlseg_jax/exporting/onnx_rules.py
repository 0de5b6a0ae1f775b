"""A rule for each operation of the models: the ONNX nodes that compute it."""

import string
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import export

from tunevlseg_jax.exporting.onnx_graph import Graph, Rule, Value, integers, unsupported

Equation = Any
"""A traced operation; jax's type says nothing of its arrays."""
Given = Sequence[Value]

SAME = ("stop_gradient", "copy", "copy_p", "optimization_barrier")
NODES = {
    **{name: name.title() for name in ("add", "sub", "mul", "div", "neg", "exp", "log", "sqrt", "sin", "cos", "tanh")},
    **{name: name.title() for name in ("max", "min", "pow", "erf", "abs", "sign", "floor", "and", "or", "not")},
    **{
        "logistic": "Sigmoid",
        "eq": "Equal",
        "lt": "Less",
        "le": "LessOrEqual",
        "gt": "Greater",
        "ge": "GreaterOrEqual",
    },
}
"""Operations that are one node without attributes."""


def _node(kind: str) -> Rule:
    return lambda graph, equation, given: [graph.add(kind, *given)]


def _same(graph: Graph, equation: Equation, given: Given) -> Given:
    return given


def _square(graph: Graph, equation: Equation, given: Given) -> Given:
    return [graph.add("Mul", given[0], given[0])]


def _integer_pow(graph: Graph, equation: Equation, given: Given) -> Given:
    return [graph.add("Pow", given[0], np.asarray(equation.params["y"], equation.invars[0].aval.dtype))]


def _rsqrt(graph: Graph, equation: Equation, given: Given) -> Given:
    return [graph.add("Reciprocal", graph.add("Sqrt", given[0]))]


def _erfc(graph: Graph, equation: Equation, given: Given) -> Given:
    return [graph.add("Sub", np.float32(1), graph.add("Erf", given[0]))]


def _not_equal(graph: Graph, equation: Equation, given: Given) -> Given:
    return [graph.add("Not", graph.add("Equal", *given))]


def _select(graph: Graph, equation: Equation, given: Given) -> Given:
    which, if_false, if_true = given
    return [graph.add("Where", which, if_true, if_false)]


def _clamp(graph: Graph, equation: Equation, given: Given) -> Given:
    low, x, high = given
    return [graph.add("Min", graph.add("Max", x, low), high)]


def _cast(graph: Graph, equation: Equation, given: Given) -> Given:
    return [_as_type(graph, given[0], equation.params["new_dtype"])]


def _as_type(graph: Graph, value: Value, dtype: Any) -> Value:
    return graph.add("Cast", value, to=graph.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _reshape(graph: Graph, equation: Equation, given: Given) -> Given:
    return [graph.reshape(given[0], equation.outvars[0].aval.shape)]


def _broadcast(graph: Graph, equation: Equation, given: Given) -> Given:
    target, places = equation.outvars[0].aval.shape, equation.params["broadcast_dimensions"]
    source = equation.invars[0].aval.shape
    aligned: list[Any] = [1] * len(target)
    for place, size in zip(places, source, strict=True):
        aligned[place] = size
    value = given[0] if tuple(aligned) == tuple(source) else graph.reshape(given[0], aligned)
    return [value if tuple(aligned) == tuple(target) else graph.add("Expand", value, graph.shape(target))]


def _transpose(graph: Graph, equation: Equation, given: Given) -> Given:
    return [graph.add("Transpose", given[0], perm=equation.params["permutation"])]


def _concatenate(graph: Graph, equation: Equation, given: Given) -> Given:
    return [graph.add("Concat", *given, axis=equation.params["dimension"])]


def _stack(graph: Graph, equation: Equation, given: Given) -> Given:
    axis = equation.params.get("axis", equation.params.get("dimension"))
    return [graph.add("Concat", *(graph.add("Unsqueeze", one, integers([axis])) for one in given), axis=axis)]


def _split(graph: Graph, equation: Equation, given: Given) -> Given:
    sizes = equation.params["sizes"]
    found = graph.add("Split", given[0], integers(sizes), outputs=len(sizes), axis=equation.params["axis"])
    return found if len(sizes) > 1 else [found]


def _slice(graph: Graph, equation: Equation, given: Given) -> Given:
    starts, ends = equation.params["start_indices"], equation.params["limit_indices"]
    steps = equation.params["strides"] or (1,) * len(starts)
    shape = equation.invars[0].aval.shape
    cut = [axis for axis, size in enumerate(shape) if (starts[axis], ends[axis], steps[axis]) != (0, size, 1)]
    parts = (integers([part[axis] for axis in cut]) for part in (starts, ends, range(len(shape)), steps))
    return [graph.add("Slice", given[0], *parts)] if cut else given


def _pad(graph: Graph, equation: Equation, given: Given) -> Given:
    low, high, inner = zip(*equation.params["padding_config"], strict=True)
    if any(inner) or min(*low, *high) < 0:
        raise unsupported(f"padding by {equation.params['padding_config']}")
    return [graph.add("Pad", given[0], integers([*low, *high]), given[1], mode="constant")]


def _reduce(kind: str) -> Rule:
    def rule(graph: Graph, equation: Equation, given: Given) -> Given:
        axes = integers(equation.params["axes"])
        if equation.invars[0].aval.dtype != bool:
            return [graph.add(kind, given[0], axes, keepdims=0)]
        found = graph.add(kind, _as_type(graph, given[0], np.int32), axes, keepdims=0)
        return [_as_type(graph, found, bool)]

    return rule


def _argmax(graph: Graph, equation: Equation, given: Given) -> Given:
    (axis,) = equation.params["axes"]
    value = _as_type(graph, given[0], np.int32) if equation.invars[0].aval.dtype == bool else given[0]
    return [_as_type(graph, graph.add("ArgMax", value, axis=axis, keepdims=0), equation.params["index_dtype"])]


def _iota(graph: Graph, equation: Equation, given: Given) -> Given:
    shape, axis = equation.outvars[0].aval.shape, equation.params["dimension"]
    end = graph.reshape(graph.shape([shape[axis]]), ())
    numbers = graph.add("Range", np.int64(0), end, np.int64(1))
    aligned = [shape[axis] if number == axis else 1 for number in range(len(shape))]
    value = graph.reshape(_as_type(graph, numbers, equation.params["dtype"]), aligned)
    return [graph.add("Expand", value, graph.shape(shape))]


def _dim_as_value(graph: Graph, equation: Equation, given: Given) -> Given:
    size = graph.shape([equation.params["dim"]])
    return [_as_type(graph, graph.reshape(size, ()), equation.outvars[0].aval.dtype)]


def _dot(graph: Graph, equation: Equation, given: Given) -> Given:
    (left_sum, right_sum), (left_batch, right_batch) = equation.params["dimension_numbers"]
    left, right = (len(variable.aval.shape) for variable in equation.invars)
    if not left_batch and (tuple(left_sum), tuple(right_sum), right) == ((left - 1,), (0,), 2):
        return [graph.add("MatMul", *given)]
    letters = iter(string.ascii_lowercase)
    lefts = [next(letters) for _ in range(left)]
    rights = [""] * right
    for own, other in (*zip(right_sum, left_sum, strict=True), *zip(right_batch, left_batch, strict=True)):
        rights[own] = lefts[other]
    rights = [letter or next(letters) for letter in rights]
    shared = [lefts[axis] for axis in left_batch]
    inner = {*shared, *(lefts[axis] for axis in left_sum)}
    result = [*shared, *(one for one in lefts if one not in inner), *(one for one in rights if one not in inner)]
    written = f"{''.join(lefts)},{''.join(rights)}->{''.join(result)}"
    return [graph.add("Einsum", *given, equation=written)]


def _convolution(graph: Graph, equation: Equation, given: Given) -> Given:
    parameters = equation.params
    numbers = parameters["dimension_numbers"]
    if any(size != 1 for size in (*parameters["lhs_dilation"], parameters["batch_group_count"])):
        raise unsupported("a transposed convolution")
    image, kernel = (
        graph.add("Transpose", value, perm=spec)
        for value, spec in zip(given, (numbers.lhs_spec, numbers.rhs_spec), strict=True)
    )
    low, high = zip(*parameters["padding"], strict=True)
    found = graph.add(
        "Conv",
        image,
        kernel,
        strides=parameters["window_strides"],
        dilations=parameters["rhs_dilation"],
        pads=[*low, *high],
        group=parameters["feature_group_count"],
    )
    return [graph.add("Transpose", found, perm=[int(axis) for axis in np.argsort(numbers.out_spec)])]


def _gather(graph: Graph, equation: Equation, given: Given) -> Given:
    """A slice; or rows at indices: the indexed axes come first, the result's other axes go where they belong."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    shape = equation.invars[0].aval.shape
    indexed = list(numbers.start_index_map)
    others = [axis for axis in range(len(shape)) if axis not in indexed]
    result = equation.outvars[0].aval.shape
    if len(equation.invars[1].aval.shape) == 1:  # one slice
        starts = _as_type(graph, given[1], np.int64)
        ends = graph.add("Add", starts, integers([sizes[axis] for axis in indexed]))
        return [graph.reshape(graph.add("Slice", given[0], starts, ends, integers(indexed)), result)]
    whole = all(export.is_symbolic_dim(shape[axis]) or sizes[axis] == shape[axis] for axis in others)
    if sorted(indexed) != list(numbers.collapsed_slice_dims) or not whole or numbers.operand_batching_dims:
        raise unsupported(f"a gather with {numbers}")
    operand = graph.add("Transpose", given[0], perm=[*indexed, *others])
    found = graph.add("GatherND", operand, _as_type(graph, given[1], np.int64))
    rank = len(result)
    leading = [axis for axis in range(rank) if axis not in numbers.offset_dims]
    order = [int(axis) for axis in np.argsort([*leading, *numbers.offset_dims])]
    return [found if order == list(range(rank)) else graph.add("Transpose", found, perm=order)]


RULES: dict[str, Rule] = {
    **dict.fromkeys(SAME, _same),
    **{name: _node(kind) for name, kind in NODES.items()},
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), _reshape),
    **{"reduce_sum": _reduce("ReduceSum"), "reduce_max": _reduce("ReduceMax"), "reduce_min": _reduce("ReduceMin")},
    **{"reduce_or": _reduce("ReduceMax"), "reduce_and": _reduce("ReduceMin"), "argmax": _argmax},
    **{"square": _square, "integer_pow": _integer_pow, "rsqrt": _rsqrt, "erfc": _erfc, "ne": _not_equal},
    **{"select_n": _select, "clamp": _clamp, "convert_element_type": _cast, "broadcast_in_dim": _broadcast},
    **{"transpose": _transpose, "concatenate": _concatenate, "stack": _stack, "split": _split, "slice": _slice},
    **{"pad": _pad, "iota": _iota, "dim_as_value": _dim_as_value, "dot_general": _dot, "gather": _gather},
    "conv_general_dilated": _convolution,
}
"""By the name of the operation."""
