"""A small CLIPSeg for the contract suites of learners, and its training step at any depth."""

import jax
import jax.numpy as jnp
import numpy as np

from tunevlseg_jax.learners.contract import Learner
from tunevlseg_jax.models.build import weight_shapes
from tunevlseg_jax.models.clip import TextConfig, VisionConfig
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.models.parameters import flatten
from tunevlseg_jax.network import Network
from tunevlseg_jax.prompts import ModelSpec

TEXT, VISION, IMAGE, CONTEXT = 8, 12, 10, 4
CONFIG = CLIPSegConfig(
    text=TextConfig(width=TEXT, blocks=2, heads=2, hidden=12, vocabulary=32, context_length=16, end_token=31),
    vision=VisionConfig(width=VISION, blocks=2, heads=2, hidden=16, patch=4, image_size=8),
    embedding_width=IMAGE,
    taps=(0, 1),
    decoder_width=4,
    decoder_heads=2,
    decoder_hidden=6,
)
ROWS = 2
BATCH = 2


def embed_phrase(phrase: str) -> jax.Array:
    """As many embeddings as the phrase has words, none of them a value that a Gaussian start could have."""
    count = len(phrase.split())
    return 1.0 + jnp.arange(count * TEXT).reshape(count, TEXT)


TOWERS = CONFIG.spec(embed_phrase)


def init(learner: Learner, towers: ModelSpec = TOWERS) -> dict:
    params = jax.jit(lambda key: learner.init(key, towers))(jax.random.key(0))
    return jax.tree.map(np.asarray, params)


class Step:
    """A small CLIPSeg under a learner, compiled once: logits, and gradients of a loss, for any depth."""

    def __init__(self, learner: Learner):
        net = Network(CONFIG, learner)
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (BATCH, 8, 12, 3), np.uint8)
        table = np.array([[30, 5, 6, 31], [30, 7, 31, 31]], np.int32)
        self.frozen = {
            f"model/{path}": random.normal(0, 0.3, shape).astype(np.float32)
            for path, shape in weight_shapes(CONFIG).items()
        }

        def run(params, frozen, depth, dropout, key):
            def loss_of(params):
                logits = net.logits(
                    frozen | flatten(params, "learner"),
                    jnp.asarray(images),
                    jnp.arange(BATCH),
                    jnp.asarray(table),
                    depth=depth,
                    dropout=dropout,
                    key=key,
                )
                return jnp.square(logits).mean(), logits

            gradients, logits = jax.grad(loss_of, has_aux=True)(params)
            return logits, gradients

        self._run = jax.jit(run)

    @property
    def programs(self) -> int:
        """For how many kinds of arguments `run` keeps a program; 0 after a test that dropped them (`conftest.py`)."""
        return self._run._cache_size()  # pyright: ignore[reportFunctionMemberAccess]

    def run(
        self, params: dict, depth: int | np.ndarray, dropout: float | np.ndarray = 0.0, key=None
    ) -> tuple[np.ndarray, dict]:
        depth, dropout = np.asarray(depth, np.int32), np.asarray(dropout, np.float32)
        return jax.tree.map(np.asarray, self._run(params, self.frozen, depth, dropout, key))

    def run_trials(self, params: dict, depths: np.ndarray, dropout: np.ndarray, keys: jax.Array):
        """As `run`, for a leading axis of trials that share the frozen weights."""
        run = jax.jit(jax.vmap(self._run, in_axes=(0, None, 0, 0, 0)))
        return jax.tree.map(np.asarray, run(params, self.frozen, depths, dropout, keys))
