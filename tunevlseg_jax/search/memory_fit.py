"""The number of trials that fit in memory: compares the memory of the compiled step with the free memory."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from tunevlseg_jax.runtime import memory, multihost, sharding
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.training import step
from tunevlseg_jax.training.experiment import Experiment
from tunevlseg_jax.training.loop import TrainSetup

SHARE = 0.9
"""Share of the free memory that a step may take; the rest is for the evaluation and the runtime."""
GIB = 2**30


def max_parallel_trials(experiment: Experiment, setup: TrainSetup, size: int, *, automatic: bool) -> int:
    """The number of trials to train at once: `size`, or fewer where `size` trials don't fit.

    This compiles the step for that number of trials; it isn't compiled again when it runs.

    Args:
      experiment: the program.
      setup: the training that the trials share.
      size: the wanted number, a multiple of the mesh's trial axis.
      automatic: whether fewer are allowed, still a multiple of that axis.

    Raises:
      UserError: `size` trials don't fit and fewer aren't allowed, or not even one fits on each part of that axis.
    """
    free, axis = usable_bytes(setup), setup.mesh.shape[sharding.TRIAL]
    while True:
        needed = bytes_needed(experiment, setup, size, sharding.num_programs(size, setup.mesh))
        if needed <= free:
            return size
        fewer = max(axis, min(size - axis, int(size * free / needed) // axis * axis))
        if not automatic or size == axis:
            takes = f"{needed / GIB:.1f} GiB of memory, and {free / GIB:.1f} GiB can be used"
            if size == axis:
                raise UserError(f"not even one trial fits: it takes {takes}", "device-memory")
            raise UserError(f"{size} trials take {takes}; try about {fewer}, or --parallel auto", "device-memory")
        size = fewer


def bytes_needed(experiment: Experiment, setup: TrainSetup, size: int, parts: int = 1) -> int:
    """Bytes of each device that `size` trials take beyond the shared arrays, by the compiler's account.

    Args:
      experiment: the program.
      setup: the training that the trials share.
      size: number of trials.
      parts: number of programs that they are split into, of which as many train at a time as there are cores.
    """
    trainable, hyper = jax.eval_shape(lambda: experiment.for_trials(size // parts))
    state = jax.eval_shape(partial(step.init, averaged=setup.averaged), trainable, hyper)
    by_trial = sharding.trials_sharding(setup.mesh)
    state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=by_trial), state)
    source = next(setup.batches(order=1))
    training = step.train_step.lower(
        state,
        setup.frozen,
        source,
        setup.train.table,
        setup.frozen_text,
        setup.config.train.ema,
        network=experiment.network,
        schedule=setup.schedule,
        negatives=setup.negatives,
    )
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((state, state.trainable)))
    needed = parts * kept // setup.mesh.shape[sharding.TRIAL] + min(
        parts, sharding.num_cores()
    ) * _bytes_beside_arguments(training)
    if setup.cache is None:
        return needed
    images = jax.ShapeDtypeStruct((len(source.images), *experiment.image_size, 3), jnp.uint8)
    return needed + _bytes_beside_arguments(
        step.encode_images_step.lower(setup.frozen, images, network=experiment.zero_shot()[0])
    )


def _bytes_beside_arguments(lowered: Any) -> int:
    """Bytes that a program allocates in addition to its arguments."""
    analysis = lowered.compile().memory_analysis()
    assert analysis is not None, "every backend that JAX has accounts for memory"
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes


def usable_bytes(setup: TrainSetup) -> float:
    """Bytes of each device that a step may take: a share of the memory that is free once the data are placed."""
    setup.val.feed.place()
    for feed in setup.views or (setup.train.feed,):
        if feed.resident:
            feed.place()
    return SHARE * free_bytes(setup)


def free_bytes(setup: TrainSetup) -> int:
    """Free bytes on the fullest device, or each device's share of the host's where devices use host memory."""
    on_devices = sharding.free_memory(setup.mesh)
    if on_devices is not None:
        return on_devices
    free = memory.available()
    # The minimum over all processes, so that they make the same decision.
    return int(multihost.gather_numbers([free // len(setup.mesh.local_devices)]).min())
