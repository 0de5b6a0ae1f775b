"""Layers that multiply by a kernel: products of operands of the kernel's type, with results of the inputs' type.

In float32, and on an accelerator in bfloat16, both types are the same. On a CPU bfloat16 kernels meet float32 inputs:
only products of bfloat16 operands with float32 results are fast there, and what lies between the products isn't faster
in bfloat16. Neither are convolutions of few channels, so their kernels stay float32 there.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jax.nn.initializers import Initializer

from tunevlseg_jax.models import doubled

KERNEL, TRANSPOSED = "kernel", "transposed"
"""Last parts of the paths of a layer's kernel and of its transposed copy, see `Product`."""


LECUN = nnx.initializers.lecun_normal()
WIDE = 256
"""Least number of channels, of inputs and of outputs, from which a CPU's convolution gains by bfloat16."""


class Product(nnx.Module):
    """A layer with a kernel, whose last two axes are (inputs, outputs).

    Attributes:
      kernel: the weights.
      transposed: what `transpose` makes of the kernel, for the gradient of the inputs; None to transpose it within the
        program. A CPU's bfloat16 products are slow if an operand is transposed within the program.
    """

    halves = True
    """Whether a CPU in mixed precision holds the kernel in bfloat16."""

    def __init__(self, shape: tuple[int, ...], rngs: nnx.Rngs, initial: Initializer = LECUN):
        self.kernel = nnx.Param(initial(rngs.params(), shape))
        self.transposed: Array | None = nnx.data(None)

    @staticmethod
    def transpose(kernel: Array) -> Array:
        """From (inputs, outputs) to (outputs, inputs)."""
        return kernel.T


class Linear(Product):
    """A linear layer; its kernel is (inputs, outputs)."""

    def __init__(self, inputs: int, outputs: int, *, use_bias: bool = True, rngs: nnx.Rngs):
        super().__init__((inputs, outputs), rngs)
        self.bias = _bias(outputs, rngs) if use_bias else nnx.data(None)

    def __call__(self, x: Array) -> Array:
        """From (..., inputs) to (..., outputs)."""
        return linear(x, *self.weights)

    @property
    def weights(self) -> tuple[Array, Array | None, Array | None]:
        """The arguments of `linear` after the first."""
        return self.kernel[...], self.transposed, None if self.bias is None else self.bias[...]

    def parts(self, inputs: tuple[Array, ...]) -> list[Array]:
        """For each of the arrays its own part of the outputs, all parts equally wide: (..., outputs / arrays) each."""
        kernels = jnp.split(self.kernel[...], len(inputs), axis=1)
        copies = [None] * len(inputs) if self.transposed is None else jnp.split(self.transposed, len(inputs))
        biases = [None] * len(inputs) if self.bias is None else jnp.split(self.bias[...], len(inputs))
        arrays = zip(inputs, kernels, copies, biases, strict=True)
        return [_add(product(x, kernel, copy), bias) for x, kernel, copy, bias in arrays]


class Conv(Product):
    """A convolution over a grid with zeros beyond its borders; its kernel is (size, size, inputs, outputs)."""

    def __init__(self, inputs: int, outputs: int, size: int, *, stride: int = 1, use_bias: bool = True, rngs: nnx.Rngs):
        super().__init__((size, size, inputs, outputs), rngs)
        self.stride = stride
        self.halves = stride == 1 and (size == 1 or min(inputs, outputs) >= WIDE)
        self.bias = _bias(outputs, rngs) if use_bias else nnx.data(None)

    def __call__(self, x: Array) -> Array:
        """From (batch, rows, columns, inputs) to (batch, rows / stride, columns / stride, outputs)."""
        size, stride = self.kernel.shape[0], self.stride
        if x.dtype != self.kernel.dtype:
            return _add(convolution(x, self.kernel[...], self.transposed), self.bias)
        border = (size // 2, size // 2)
        dimensions = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(x, self.kernel[...], (stride, stride), (border, border), None, None, dimensions)
        return _add(y, self.bias)

    @staticmethod
    def transpose(kernel: Array) -> Array:
        """From (size, size, inputs, outputs) to (size, size, outputs, inputs), with rows and columns reversed."""
        return kernel[::-1, ::-1].mT

    def of_doubled(self, x: Array, doubling: doubled.Doubling = "bilinear", *, use_bias: bool = True) -> Array:
        """The convolution of size 3 of a grid with twice the rows and columns, see `doubled.gather`.

        From (batch, rows, columns, inputs) to (batch, 2 * rows, 2 * columns, outputs).
        """
        maps = products_by_cell(x, self.kernel[...], self.transposed)
        y = doubled.gather((maps[:3], maps[3:6], maps[6:]), doubling)
        return _add(y, self.bias if use_bias else None)


class Unfold(Product):
    """A transposed convolution whose stride is its size: each cell becomes a separate square."""

    def __init__(self, width: int, channels: int, size: int, rngs: nnx.Rngs):
        super().__init__((width, size, size, channels), rngs, nnx.initializers.normal(width**-0.5))
        self.bias = nnx.Param(jnp.zeros(channels))

    @staticmethod
    def transpose(kernel: Array) -> Array:
        """From (width, size, size, channels) to (size * size * channels, width)."""
        return kernel.reshape(len(kernel), -1).T

    def __call__(self, x: Array) -> Array:
        """From (batch, rows, columns, width) to (batch, rows * size, columns * size, channels)."""
        batch, rows, columns, _ = x.shape
        _, size, _, channels = self.kernel.shape
        squares = product(x, self.kernel[...].reshape(len(self.kernel[...]), -1), self.transposed)
        squares = squares.reshape(batch, rows, columns, size, size, channels).transpose(0, 1, 3, 2, 4, 5)
        full = squares.reshape(batch, rows * size, columns * size, channels)
        return (full + self.bias[...].reshape(1, 1, 1, channels)).astype(x.dtype)


def _with_residuals(multiply: Callable[..., Any]) -> Callable[..., tuple[Any, tuple[Any, ...]]]:
    """The forward pass of a function of inputs, kernel and copy, which keeps the three for its gradient."""

    def forward(x: Array, kernel: Array, transposed: Array | None) -> tuple[Any, tuple[Any, ...]]:
        return multiply(x, kernel, transposed), (x.astype(kernel.dtype), kernel, transposed)

    return forward


@jax.custom_vjp
def product(x: Array, kernel: Array, transposed: Array | None = None) -> Array:
    """The product of (..., inputs) and (inputs, outputs), in the type of `x`.

    Its operands and those of its gradients have the type of the kernel.

    Args:
      x: (..., inputs).
      kernel: (inputs, outputs).
      transposed: (outputs, inputs), a copy of the kernel for the gradient of `x`, or None.
    """
    return _multiply(x, kernel)


def linear(x: Array, kernel: Array, transposed: Array | None, bias: Array | None) -> Array:
    """A `product` with a bias, (outputs,) or None."""
    return _add(product(x, kernel, transposed), bias)


def _backward(residuals: tuple[Any, ...], gradient: Array) -> tuple[Array, Array, Array | None]:
    x, kernel, transposed = residuals
    of_x = _multiply(gradient, Product.transpose(kernel) if transposed is None else transposed)
    # Removed by the compiler where the kernel is frozen.
    return of_x, _of_kernel(x, gradient, kernel), _no_gradient(transposed)


product.defvjp(_with_residuals(product), _backward)


@jax.custom_vjp
def convolution(x: Array, kernel: Array, transposed: Array | None = None) -> Array:
    """A convolution with zeros beyond the borders, as a sum of products: a CPU has no convolution of bfloat16.

    Its operands and those of its gradients have the type of the kernel; the result has the type of `x`.

    Args:
      x: (batch, rows, columns, inputs).
      kernel: (size, size, inputs, outputs), size odd.
      transposed: `Conv.transpose` of the kernel, for the gradient of `x`, or None.
    """
    return _sum_of_products(x, kernel)


def _convolution_backward(residuals: tuple[Any, ...], gradient: Array) -> tuple[Array, Array, Array | None]:
    x, kernel, transposed = residuals
    of_x = _sum_of_products(gradient, Conv.transpose(kernel) if transposed is None else transposed)
    of_kernel = [_of_kernel(cells, gradient, kernel) for cells in _neighbours(x, kernel.shape[0])]
    return of_x, jnp.stack(of_kernel).reshape(kernel.shape), _no_gradient(transposed)


convolution.defvjp(_with_residuals(convolution), _convolution_backward)


@jax.custom_vjp
def products_by_cell(x: Array, kernel: Array, transposed: Array | None = None) -> tuple[Array, ...]:
    """The product with the matrix of each cell of a kernel, in rows; types and arguments are those of `convolution`."""
    return tuple(_multiply(x, matrix) for matrix in _matrices(kernel))


def _by_cell_backward(residuals: tuple[Any, ...], gradients: tuple[Array, ...]) -> tuple[Array, Array, Array | None]:
    x, kernel, transposed = residuals
    back = Conv.transpose(kernel) if transposed is None else transposed
    # One product: with several, a CPU's compiler would compute what the gradients share once for each.
    wide = jnp.concatenate([gradient.astype(kernel.dtype) for gradient in reversed(gradients)], axis=-1)
    of_x = jnp.matmul(wide, back.reshape(-1, back.shape[-1]), preferred_element_type=gradients[0].dtype)
    of_kernel = jnp.stack([_of_kernel(x, gradient, kernel) for gradient in gradients])
    return of_x, of_kernel.reshape(kernel.shape), _no_gradient(transposed)


products_by_cell.defvjp(_with_residuals(products_by_cell), _by_cell_backward)


def _multiply(x: Array, kernel: Array) -> Array:
    return jnp.matmul(x.astype(kernel.dtype), kernel, preferred_element_type=x.dtype)


def _sum_of_products(x: Array, kernel: Array) -> Array:
    cells = _neighbours(x.astype(kernel.dtype), kernel.shape[0])
    products = [
        jnp.matmul(each, matrix, preferred_element_type=x.dtype)
        for each, matrix in zip(cells, _matrices(kernel), strict=True)
    ]
    return sum(products[1:], start=products[0])


def _matrices(kernel: Array) -> list[Array]:
    """(inputs, outputs) of each cell, in rows."""
    rows, columns = kernel.shape[:2]
    return [kernel[i, j] for i in range(rows) for j in range(columns)]


def _neighbours(x: Array, size: int) -> list[Array]:
    """For each cell of a kernel, in rows, the grid that it reads: (batch, rows, columns, width), zeros beyond."""
    _, rows, columns, _ = x.shape
    border = (size // 2, size // 2)
    wide = jnp.pad(x, ((0, 0), border, border, (0, 0)))
    return [wide[:, i : i + rows, j : j + columns] for i in range(size) for j in range(size)]


def _of_kernel(x: Array, gradient: Array, kernel: Array) -> Array:
    narrow = gradient.astype(kernel.dtype)
    return jnp.matmul(x.reshape(-1, x.shape[-1]).T, narrow.reshape(-1, narrow.shape[-1]))


def _no_gradient(transposed: Array | None) -> Array | None:
    return None if transposed is None else jnp.zeros_like(transposed)


def _bias(width: int, rngs: nnx.Rngs) -> nnx.Param:
    rngs.params()  # as Flax's layers draw, so that a seed gives the same weights
    return nnx.Param(jnp.zeros(width))


def _add(x: Array, bias: Any) -> Array:
    return x if bias is None else (x + bias[...].reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)
