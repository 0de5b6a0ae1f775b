"""A training step of a model on arrays that don't exist, for counts of operations and of memory."""

from typing import Any

import jax
import jax.numpy as jnp

from tunevlseg_jax.data.feeding.batch import Rows, Source
from tunevlseg_jax.learners.contract import Learner
from tunevlseg_jax.models.build import weight_shapes
from tunevlseg_jax.models.contract import ModelConfig
from tunevlseg_jax.models.parameters import split
from tunevlseg_jax.models.upsampler import Upsampling
from tunevlseg_jax.network import Network
from tunevlseg_jax.training import step
from tunevlseg_jax.training.optim import Schedule
from tunevlseg_jax.training.step import Hyperparameters


def traced(
    sizes: ModelConfig,
    learner: Learner,
    trials: int = 1,
    batch: int = 4,
    *,
    augmented: bool = True,
    upsampling: Upsampling = "blend",
) -> Any:
    """The step of some trials on images of one class, with exact augmentation or without.

    The class is encoded within the step only if the learner changes the text tower, as in training.
    """
    net, shape, side = Network(sizes, learner, upsampling), jax.ShapeDtypeStruct, sizes.image_size
    weights = {path: shape(dims, jnp.float32) for path, dims in weight_shapes(sizes).items()}
    spec = sizes.spec(lambda phrase: jnp.zeros((0, 0)))
    params = jax.eval_shape(lambda key, given: net.init(key, given, spec), jax.random.key(0), weights)
    trainable, frozen = split(params, "prompts")
    trainable = {path: shape((trials, *array.shape), array.dtype) for path, array in trainable.items()}
    types = (jnp.float32, jnp.float32, jnp.int32, jnp.float32, jnp.uint32)
    state = jax.eval_shape(step.init, trainable, Hyperparameters(*(shape((trials,), kind) for kind in types)))
    flags = shape((batch,), jnp.uint8)
    source = Source(
        shape((batch, side, side, 3), jnp.uint8),
        shape((batch, side, side), jnp.uint8),
        Rows(None, None, flags, flags, shape((batch,), jnp.int32), shape((batch,), jnp.float32)),
        draw=shape((2,), jnp.uint32) if augmented else None,
    )
    tokens = shape((1, sizes.text.context_length - learner.text_tokens), jnp.int32)
    if not learner.changes & {"text", "condition"}:
        tokens = jax.eval_shape(net.encode_text, frozen, tokens)
    return step.train_step.trace(state, frozen, source, tokens, network=net, schedule=Schedule(0, 0))


def learnt_bytes(sizes: ModelConfig, learner: Learner) -> int:
    """Bytes of a learner's parameters and of AdamW's two moments of each."""
    spec = sizes.spec(lambda phrase: jnp.zeros((0, 0)))
    params = jax.eval_shape(lambda key: learner.init(key, spec), jax.random.key(0))
    return 3 * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
