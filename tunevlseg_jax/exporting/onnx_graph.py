"""An ONNX graph from a traced program: what depends on constants alone is computed, and the rest becomes nodes."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import export
from jax.extend import core

from tunevlseg_jax.runtime.errors import UserError

OPSET = 18
CALLS = {"jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "remat2", "checkpoint"}
"""Primitives that call a program, which takes their place."""
BATCH = "batch"
Value = np.ndarray | np.generic | str
"""A constant, or the name of a node's output."""
Rule = Callable[["Graph", Any, Sequence[Value]], Sequence[Value]]


class Graph:
    """Nodes and constants, in the order in which they are added."""

    def __init__(self, onnx: Any, batch: Any):
        """`onnx` is the package; `batch` is the symbolic size of the first axis of every input."""
        self.helper, self.numpy_helper = onnx.helper, onnx.numpy_helper
        self.nodes, self.constants = [], []
        self._batch, self._names, self._shapes = batch, {}, {}
        self._count = 0

    def add(self, kind: str, *inputs: Value, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node, and returns the name of its output, or a list of several."""
        self._count += 1
        names = [f"{kind}_{self._count}_{number}" for number in range(outputs)]
        given = [self.name(value) for value in inputs]
        self.nodes.append(self.helper.make_node(kind, given, names, **attributes))
        return names[0] if outputs == 1 else names

    def name(self, value: Value) -> str:
        """The name of a value; equal constants are stored once."""
        if isinstance(value, str):
            return value
        array = np.asarray(value, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._names:
            self._names[key] = f"constant_{len(self._names)}"
            self.constants.append(self.numpy_helper.from_array(array, self._names[key]))
        return self._names[key]

    def shape(self, shape: Sequence[Any]) -> Value:
        """A shape as int64, of which multiples of the batch size are computed."""
        if not any(map(export.is_symbolic_dim, shape)):
            return integers(shape)
        key = tuple(map(str, shape))
        if key not in self._shapes:
            self._shapes[key] = self.add("Concat", *map(self._size, shape), axis=0)
        return self._shapes[key]

    def _size(self, size: Any) -> Value:
        """(1,) int64, the length of an axis."""
        if not export.is_symbolic_dim(size):
            return integers([size])
        times = size // self._batch
        if times * self._batch != size:
            raise unsupported(f"an axis of length {size}")
        return BATCH if times == 1 else self.add("Mul", BATCH, integers([int(times)]))

    def reshape(self, value: Value, shape: Sequence[Any]) -> Value:
        """A value in another shape, of which one axis may depend on the batch size."""
        symbolic = [export.is_symbolic_dim(size) for size in shape]
        if sum(symbolic) > 1:
            return self.add("Reshape", value, self.shape(shape))
        fixed = [-1 if is_symbolic else size for size, is_symbolic in zip(shape, symbolic, strict=True)]
        return self.add("Reshape", value, integers(fixed))

    def run(self, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Value], rules: dict[str, Rule]) -> list[Value]:
        """Adds a program, and returns its results.

        Raises:
          UserError: there is no rule for a primitive.
        """
        values: dict[Any, Value] = dict(zip(jaxpr.constvars, map(np.asarray, constants), strict=True))
        values |= zip(jaxpr.invars, inputs, strict=True)

        def read(variable: Any) -> Value:
            is_constant = isinstance(variable, core.Literal)
            return np.asarray(variable.val, variable.aval.dtype) if is_constant else values[variable]  # pyright: ignore[reportAttributeAccessIssue]

        for equation in jaxpr.eqns:
            given = [read(variable) for variable in equation.invars]
            values |= zip(equation.outvars, self._results(equation, given, rules), strict=True)
        return [read(variable) for variable in jaxpr.outvars]

    def _results(self, equation: Any, given: list[Value], rules: dict[str, Rule]) -> Sequence[Value]:
        name = equation.primitive.name
        if name in CALLS:
            called = next(
                equation.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in equation.params
            )
            inner, constants = (called.jaxpr, called.consts) if hasattr(called, "consts") else (called, ())
            return self.run(inner, constants, given, rules)
        sizes = [size for variable in equation.outvars for size in variable.aval.shape]
        if not any(map(export.is_symbolic_dim, sizes)) and _is_constant(name, given):
            return _computed(equation, given)
        if name not in rules:
            raise unsupported(f"the operation {name}")
        return rules[name](self, equation, given)


def _is_constant(name: str, given: Sequence[Value]) -> bool:
    """Whether an operation depends on constants alone, and not on the batch size."""
    return name != "dim_as_value" and not any(isinstance(value, str) for value in given)


def _computed(equation: Any, given: Sequence[Any]) -> list[np.ndarray]:
    """The results of an operation on constants."""
    found = equation.primitive.bind(*given, **equation.params)
    return [np.asarray(one) for one in (found if equation.primitive.multiple_results else [found])]


def integers(values: Sequence[Any]) -> np.ndarray:
    """(values,) int64, as ONNX wants sizes and axes."""
    return np.asarray([int(value) for value in values], np.int64)


def unsupported(what: str) -> UserError:
    """The error about a part of the program that can't be written."""
    return UserError(f"ONNX export doesn't know {what}; take --format stablehlo, and report it", "not-convertible")


def trace(function: Callable[..., Any], shapes: Sequence[tuple[tuple[int, ...], np.dtype]]) -> tuple[Any, Any]:
    """The program of a function of arrays with a symbolic first axis, and that axis's size."""
    (batch,) = export.symbolic_shape(BATCH)
    inputs = [jax.ShapeDtypeStruct((batch, *shape), dtype) for shape, dtype in shapes]
    return jax.make_jaxpr(function)(*inputs), batch
