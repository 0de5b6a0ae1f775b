"""The compiled programs of an experiment, for timing: training, evaluation and prediction."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tunevlseg_jax.data.feeding.batch import Batch, Rows, Source, gather
from tunevlseg_jax.models.parameters import FlatParams
from tunevlseg_jax.network import Network
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.training import step
from tunevlseg_jax.training.experiment import Experiment
from tunevlseg_jax.training.optim import Schedule

CEILING_SIDE = 4096
"""Side of the square matrices whose product measures a device's highest rate."""


@dataclass(frozen=True)
class Program:
    """A compiled program on a fixed batch.

    Attributes:
      name: name of the program, such as "training".
      run: runs it once and may return before the result is ready.
      records: records in its batch.
      flops: operations of one run, counted in the program that an accelerator's compiler would get.
      compilation: seconds of tracing and compiling.
      temporary: bytes that it needs besides its arguments and results.
      step: runs it on another batch, for a training step on images; None otherwise.
    """

    name: str
    run: Callable[[], Any]
    records: int
    flops: float
    compilation: float
    temporary: int
    step: Callable[[Source], Any] | None = None


def programs(experiment: Experiment, mesh: Mesh, trials: int = 1) -> Iterator[Program]:
    """Training, evaluation and prediction of an experiment on one batch of random images, compiled one by one.

    If training leaves the image features unchanged, training and evaluation also run on cached features. With more
    than one trial, training also runs with this many trials in one program.
    """
    size = sharding.round_up(experiment.config.train.batch_size, mesh)
    frozen = experiment.on_mesh(mesh).frozen
    source = random_source(size, experiment.image_size, mesh, augmented=experiment.config.train.augment)
    batch = jax.jit(gather)(source._replace(draw=None))
    table = sharding.replicate(experiment.encode_text(["polyp"]), mesh)
    frozen_text = experiment.on_mesh(mesh).frozen_text(["polyp"], mesh)

    def train(name: str, source: Source, trials: int = 1) -> Program:
        trainable, hyper = sharding.replicate(experiment.for_trials(trials), mesh)
        arguments = step.init(trainable, hyper), frozen, source, table, frozen_text
        stepping, timings = _compiled(step.train_step, *arguments, network=experiment.network, schedule=Schedule(0, 0))
        state = arguments[0]

        def run(source: Source = source) -> Any:
            nonlocal state  # the step gives its state's buffers away
            state, sums = stepping(state, frozen, source, table, frozen_text)
            return sums

        return Program(name, run, size * trials, *timings, run if name == "training" else None)

    def evaluate(name: str, batch: Batch) -> Program:
        trainable, hyper = sharding.replicate(experiment.for_trials(1), mesh)
        arguments = trainable, frozen, batch, table, hyper
        evaluation, timings = _compiled(step.eval_step, *arguments, network=experiment.network)
        return Program(name, lambda: evaluation(*arguments), size, *timings)

    def predict() -> Program:
        hyper = jax.tree.map(lambda values: values[0], experiment.hyper())
        arguments = sharding.replicate(
            (experiment.frozen | experiment.trainable, batch.images, batch.phrase, table, hyper), mesh
        )
        prediction, timings = _compiled(step.answer_step, *arguments, network=experiment.network)
        return Program("prediction", lambda: prediction(*arguments), size, *timings)

    yield train("training", source)
    yield evaluate("evaluation", batch)
    yield predict()
    if trials > 1:
        yield train(f"training x {trials}", source, trials)
    if experiment.config.features_cacheable("val"):
        features = step.encode_images_step(frozen, batch.images, network=experiment.network)
        yield train("training, cached", source._replace(images=features, draw=None))
        yield evaluate("evaluation, cached", batch._replace(images=features))


def training(experiment: Experiment, mesh: Mesh, batch: int) -> Any:
    """The training step of an experiment, traced for a mesh of devices that may be absent.

    Args:
      experiment: the experiment, which may be abstract.
      mesh: its devices share the batch and, with `train.shard_frozen`, the frozen weights; other arrays are replicated.
      batch: records, a multiple of the number of devices.
    """
    whole, resources = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(sharding.DATA))

    def like(tree: Any, lying: Callable[[Any], Any] = lambda array: whole) -> Any:
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=lying(a)), tree)

    def rows(dtype: Any, *shape: int) -> Any:
        return jax.ShapeDtypeStruct((batch, *shape), dtype, sharding=resources)

    state = jax.eval_shape(
        lambda tree: step.init(jax.tree.map(lambda a: a[None], tree), experiment.hyper()), experiment.trainable
    )
    numbers = Rows(None, None, rows(jnp.uint8), rows(jnp.uint8), rows(jnp.int32), rows(jnp.float32))
    source = Source(rows(jnp.uint8, *experiment.image_size, 3), rows(jnp.uint8, *experiment.image_size), numbers)
    frozen = like(experiment.frozen)
    if experiment.config.train.shard_frozen:
        frozen = like(experiment.frozen, lambda array: sharding.params_sharding(array.shape, mesh))

    def texts(frozen: FlatParams) -> Any:
        encoding = dataclasses.replace(experiment, frozen=frozen)
        return encoding.encode_text(["polyp"]), encoding.frozen_text(["polyp"])

    arguments = like(state), frozen, source, *like(jax.eval_shape(texts, experiment.frozen))
    return step.train_step.trace(*arguments, network=experiment.network, schedule=Schedule(0, 0))


def random_source(size: int, image_size: tuple[int, int], mesh: Mesh, *, augmented: bool) -> Source:
    """A batch of noise on the devices."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (size, *image_size, 3), dtype=np.uint8)
    maps = draw.integers(0, 2, (size, *image_size), dtype=np.uint8)
    ones = jnp.ones(size, jnp.uint8)
    rows = Rows(None, None, ones, ones, jnp.zeros(size, jnp.int32), jnp.ones(size, jnp.float32))
    source = Source(jnp.asarray(images), jnp.asarray(maps), rows)
    key = sharding.replicate(jax.random.key_data(jax.random.key(0)), mesh) if augmented else None
    return sharding.shard_batch(source, mesh)._replace(draw=key)


def timed(runs: list[Callable[[], Any]], repeats: int) -> list[list[float]]:
    """Seconds of each run and repeat; the runs take turns so that a slow moment affects all of them.

    Each timed run follows an untimed one of the same program, as a step follows a step in training. The first also
    fetches the memory that the system took back during the other programs' turns.
    """
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for run, taken in zip(runs, seconds, strict=True):
            jax.block_until_ready(run())
            started = time.perf_counter()
            jax.block_until_ready(run())
            taken.append(time.perf_counter() - started)
    return seconds


def ceiling(network: Network) -> tuple[Callable[[], Any], float]:
    """A matrix product in a network's types on one device, and its number of operations: the highest rate."""
    matrix = jnp.ones((CEILING_SIDE, CEILING_SIDE), network.dtype)
    product = jax.jit(lambda a, b: jnp.matmul(a, b, preferred_element_type=network.activation_dtype))
    return lambda: product(matrix, matrix), 2.0 * CEILING_SIDE**3


def flops(traced: Any) -> float:
    """Operations of a traced program, lowered for a TPU; nothing is compiled.

    A program lowered for a CPU has loops, of which XLA counts only one iteration.
    """
    return float(traced.lower(lowering_platforms=("tpu",)).cost_analysis()["flops"])


def _compiled(function: Any, *arguments: Any, **static: Any) -> tuple[Any, tuple[float, float, int]]:
    """The compiled program, and its flops, seconds of compilation and temporary bytes."""
    started = time.perf_counter()
    traced = function.trace(*arguments, **static)
    compiled = traced.lower().compile()
    seconds = time.perf_counter() - started
    return compiled, (flops(traced), seconds, compiled.memory_analysis().temp_size_in_bytes)
