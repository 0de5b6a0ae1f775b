"""Resizing and the learnable upsampler against PyTorch's operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch.nn import functional

from tunevlseg_jax.models.clipseg import Decoded
from tunevlseg_jax.models.resize import resize_grid, resize_matrix
from tunevlseg_jax.models.upsampler import Upsampler

SIZES = st.integers(1, 40)
METHODS = st.sampled_from(["bilinear", "bicubic"])


@settings(max_examples=100, deadline=None)
@given(height=SIZES, width=SIZES, target_height=SIZES, target_width=SIZES, method=METHODS)
def test_matrices_resize_as_torch_does(height, width, target_height, target_width, method):
    """Torch in double: in single precision its positions are off by 1e-5 of a pixel."""
    grid = np.random.default_rng(0).standard_normal((height, width, 2))
    expected = functional.interpolate(
        torch.from_numpy(grid).permute(2, 0, 1)[None], (target_height, target_width), mode=method, align_corners=False
    )
    rows = resize_matrix(height, target_height, method)
    columns = resize_matrix(width, target_width, method)
    resized = np.einsum("hi,wj,ijc->chw", rows, columns, grid)
    assert_allclose(resized, expected[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("source", "target"), [((4, 4), (6, 6)), ((7, 5), (3, 11)), ((14, 14), (22, 22))])
def test_grids_resize_as_torch_does(source, target, method):
    grid = np.random.default_rng(0).standard_normal((2, *source, 3), np.float32)
    expected = functional.interpolate(
        torch.from_numpy(grid).permute(0, 3, 1, 2), target, mode=method, align_corners=False
    )
    assert_allclose(resize_grid(jnp.asarray(grid), target, method), expected.permute(0, 2, 3, 1).numpy(), atol=1e-5)


@given(source=SIZES, target=SIZES, method=METHODS)
@settings(max_examples=50, deadline=None)
def test_rows_sum_to_one(source, target, method):
    assert_allclose(resize_matrix(source, target, method).sum(1), np.ones(target), atol=1e-6)


@given(source=SIZES, target=SIZES, shift=st.integers(-2, 2))
@settings(max_examples=50, deadline=None)
def test_a_shift_replicates_the_border(source, target, shift):
    plain = resize_matrix(source, target, "bilinear")
    padded = np.pad(plain, ((2, 2), (0, 0)), mode="edge")
    shifted = resize_matrix(source, target, "bilinear", shift=shift)
    assert_allclose(shifted, padded[2 + shift : 2 + shift + target])


@pytest.mark.parametrize(("grid", "patch"), [((3, 3), 8), ((2, 5), 16), ((1, 4), 4)])
def test_upsampler_is_a_resize_and_a_convolution(grid, patch):
    """The literal one works on the full-size channels: bilinear, two replicated pixels around, a 5x5 convolution."""
    channels, batch = 6, 2
    random = np.random.default_rng(0)
    features = random.standard_normal((batch, *grid, channels), np.float32)
    size = (grid[0] * patch, grid[1] * patch)
    logits = random.standard_normal((batch, *size), np.float32)
    bias, ratio = np.float32(0.3), np.float32(0.2)

    upsampler = Upsampler(channels, nnx.Rngs(0))
    upsampler.bias[...], upsampler.ratio[...] = jnp.asarray(bias), jnp.asarray(ratio)
    decoded = Decoded(jnp.asarray(logits), jnp.asarray(features))

    full = functional.interpolate(
        torch.from_numpy(features).permute(0, 3, 1, 2), size, mode="bilinear", align_corners=False
    )
    kernel = torch.from_numpy(np.array(upsampler.kernel[...])).permute(2, 0, 1)[None]
    padded = functional.pad(full, (2, 2, 2, 2), mode="replicate")
    extra = functional.conv2d(padded, kernel, torch.tensor([bias]))[:, 0].numpy()

    assert_allclose(upsampler.extra(decoded), extra, atol=1e-5)
    assert_allclose(upsampler.add(decoded), logits + extra, atol=1e-5)
    assert_allclose(upsampler.blend(decoded), (1 - ratio) * logits + ratio * extra, atol=1e-5)


def test_upsampler_starts_as_torch_does():
    """A convolution's kernel is uniform within fan_in^-0.5; the published ratio is a half."""
    upsampler = Upsampler(16, nnx.Rngs(jax.random.key(0)))
    bound = (16 * 25) ** -0.5
    kernel = np.asarray(upsampler.kernel[...])
    assert kernel.shape == (5, 5, 16)
    assert np.abs(kernel).max() <= bound and np.abs(kernel).max() > 0.9 * bound and np.abs(kernel.mean()) < 0.1 * bound
    assert upsampler.ratio[...] == 0.5
