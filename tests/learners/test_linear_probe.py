"""The linear probe against PyTorch's linear layer and resize."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from learner_cases import CONFIG, TOWERS, init
from numpy.testing import assert_allclose

from tunevlseg_jax.learners import LinearProbe
from tunevlseg_jax.models.features import Decoded
from tunevlseg_jax.models.linear_head import probed


def test_the_logits_are_those_of_torch():
    params = init(LinearProbe())
    params["bias"] = np.full(1, 0.3, np.float32)
    assert params["kernel"].shape == (CONFIG.decoder_width, 1) == (TOWERS.feature_width, 1)
    features = np.random.default_rng(0).normal(size=(2, 3, 4, TOWERS.feature_width)).astype(np.float32)
    prompts = LinearProbe().prompts(params, jnp.int32(0), dropout=jnp.float32(0), key=None)
    decoded = jax.jit(probed)(Decoded(jnp.zeros((2, 12, 20)), jnp.asarray(features)), prompts.head)
    scores = torch.tensor(features @ params["kernel"] + params["bias"]).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(scores, (12, 20), mode="bilinear", align_corners=False)[:, 0]
    assert_allclose(decoded.logits, expected, rtol=1e-5, atol=1e-6)
