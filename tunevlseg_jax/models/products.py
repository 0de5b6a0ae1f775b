"""Layers that multiply by a kernel: products of operands of the kernel's type, with results of the inputs' type.

In float32, and on an accelerator in bfloat16, both types are the same. On a CPU bfloat16 kernels meet float32 inputs:
only products of bfloat16 operands with float32 results are fast there, and what lies between the products isn't faster
in bfloat16.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jax.nn.initializers import Initializer

KERNEL, TRANSPOSED = "kernel", "transposed"
"""Last parts of the paths of a layer's kernel and of its transposed copy, see `Product`."""


LECUN = nnx.initializers.lecun_normal()


class Product(nnx.Module):
    """A layer with a kernel, which is a matrix to a product: (rows, columns) after `summed` axes became rows.

    Attributes:
      kernel: the weights.
      transposed: the matrix's transposed copy, (columns, rows), for the gradient of the inputs; None to transpose the
        kernel within the program. A CPU's bfloat16 products are slow if an operand is transposed within the program.
    """

    summed: int = 1

    def __init__(self, shape: tuple[int, ...], rngs: nnx.Rngs, initial: Initializer = LECUN):
        self.kernel = nnx.Param(initial(rngs.params(), shape))
        self.transposed: Array | None = nnx.data(None)

    def multiply(self, x: Array) -> Array:
        """From (..., rows) to (..., columns), in the type of `x`."""
        rows = math.prod(self.kernel.shape[: self.summed])
        return product(x, self.kernel[...].reshape(rows, -1), self.transposed)


class Linear(Product):
    """A linear layer; its kernel is (inputs, outputs)."""

    def __init__(self, inputs: int, outputs: int, *, use_bias: bool = True, rngs: nnx.Rngs):
        super().__init__((inputs, outputs), rngs)
        self.bias = _bias(outputs, rngs) if use_bias else nnx.data(None)

    def __call__(self, x: Array) -> Array:
        """From (..., inputs) to (..., outputs)."""
        return _add(self.multiply(x), self.bias)

    def parts(self, inputs: tuple[Array, ...]) -> list[Array]:
        """For each of the arrays its own part of the outputs, all parts equally wide: (..., outputs / arrays) each."""
        kernels = jnp.split(self.kernel[...], len(inputs), axis=1)
        copies = [None] * len(inputs) if self.transposed is None else jnp.split(self.transposed, len(inputs))
        biases = [None] * len(inputs) if self.bias is None else jnp.split(self.bias[...], len(inputs))
        arrays = zip(inputs, kernels, copies, biases, strict=True)
        return [_add(product(x, kernel, copy), bias) for x, kernel, copy, bias in arrays]


class Conv(Product):
    """A convolution over a grid with zeros beyond its borders; its kernel is (size, size, inputs, outputs)."""

    summed = 3

    def __init__(self, inputs: int, outputs: int, size: int, *, stride: int = 1, use_bias: bool = True, rngs: nnx.Rngs):
        super().__init__((size, size, inputs, outputs), rngs)
        self.stride = stride
        self.bias = _bias(outputs, rngs) if use_bias else nnx.data(None)

    def __call__(self, x: Array) -> Array:
        """From (batch, rows, columns, inputs) to (batch, rows / stride, columns / stride, outputs)."""
        size, stride = self.kernel.shape[0], self.stride
        if x.dtype != self.kernel.dtype:  # a CPU's bfloat16 convolutions are slower than products
            return _add(self.multiply(_neighbours(x, size, stride)), self.bias)
        border = (size // 2, size // 2)
        dimensions = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(x, self.kernel[...], (stride, stride), (border, border), None, None, dimensions)
        return _add(y, self.bias)


@jax.custom_vjp
def product(x: Array, kernel: Array, transposed: Array | None = None) -> Array:
    """The product of (..., rows) and (rows, columns), in the type of `x`.

    Its operands and those of its gradients have the type of the kernel.

    Args:
      x: (..., rows).
      kernel: (rows, columns).
      transposed: (columns, rows), a copy of `kernel` for the gradient of `x`, or None.
    """
    return jnp.matmul(x.astype(kernel.dtype), kernel, preferred_element_type=x.dtype)


def _forward(x: Array, kernel: Array, transposed: Array | None) -> tuple[Array, tuple[Any, ...]]:
    return product(x, kernel, transposed), (x.astype(kernel.dtype), kernel, transposed)


def _backward(residuals: tuple[Any, ...], gradient: Array) -> tuple[Array, Array, Array | None]:
    x, kernel, transposed = residuals
    narrow = gradient.astype(kernel.dtype)
    back = kernel.T if transposed is None else transposed
    of_x = jnp.matmul(narrow, back, preferred_element_type=gradient.dtype)
    # Removed by the compiler where the kernel is frozen.
    of_kernel = jnp.matmul(x.reshape(-1, x.shape[-1]).T, narrow.reshape(-1, narrow.shape[-1]))
    return of_x, of_kernel, None if transposed is None else jnp.zeros_like(transposed)


product.defvjp(_forward, _backward)


def _neighbours(x: Array, size: int, stride: int) -> Array:
    """The square of cells around each cell: (batch, rows / stride, columns / stride, size * size * width)."""
    if size == 1 and stride == 1:
        return x
    _, rows, columns, _ = x.shape
    border = (size // 2, size // 2)
    wide = jnp.pad(x, ((0, 0), border, border, (0, 0)))
    shifted = [wide[:, i : i + rows : stride, j : j + columns : stride] for i in range(size) for j in range(size)]
    return jnp.concatenate(shifted, axis=-1)


def _bias(width: int, rngs: nnx.Rngs) -> nnx.Param:
    rngs.params()  # as Flax's layers draw, so that a seed gives the same weights
    return nnx.Param(jnp.zeros(width))


def _add(x: Array, bias: Any) -> Array:
    return x if bias is None else x + bias[...].reshape((1,) * (x.ndim - 1) + (-1,))
