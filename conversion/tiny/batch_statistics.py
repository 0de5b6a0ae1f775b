"""BatchNorms that normalise by the statistics of their input and store them, only for pre-training."""

from typing import TypeVar

from flax import nnx
from jax import Array

from tunevlseg_jax.models.resnet import BatchNorm

M = TypeVar("M", bound=nnx.Module)


class MeasuringBatchNorm(nnx.Module):
    """Shares the parameters of a BatchNorm, and sets its mean and variance to those of each input."""

    def __init__(self, norm: BatchNorm):
        self.scale, self.bias, self.mean, self.variance = norm.scale, norm.bias, norm.mean, norm.variance

    def __call__(self, x: Array) -> Array:
        """Like BatchNorm, by the mean and variance of `x` over all axes but the last (Ioffe and Szegedy 2015)."""
        axes = tuple(range(x.ndim - 1))
        self.mean[...], self.variance[...] = x.mean(axes), x.var(axes)
        return BatchNorm.__call__(self, x)  # pyright: ignore[reportArgumentType]


def measure(model: M) -> M:
    """Changes a model in place: each BatchNorm normalises by the statistics of its input and stores them."""
    for _, module in list(nnx.iter_graph(model)):
        if isinstance(module, nnx.Module):
            for name, child in list(vars(module).items()):
                if isinstance(child, BatchNorm):
                    setattr(module, name, MeasuringBatchNorm(child))
    return model
