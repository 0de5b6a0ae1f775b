"""The records of each batch, in an order that depends only on seed and epoch."""

import importlib
from collections.abc import Sequence
from typing import cast

import numpy as np
from jax import Array

from tunevlseg_jax.data.feeding.batch import Rows
from tunevlseg_jax.data.feeding.negative_rows import ask_for_absent
from tunevlseg_jax.data.records import Records


def import_library() -> None:
    """Imports grain, which must happen before a live display starts.

    While grain loads, etils replaces Python's import for the whole process by one that refuses relative imports, and a
    display's thread that imports at that moment ends with a traceback.
    """
    importlib.import_module("grain")


def training(records: Records, batch_size: int, padded: int, seed: int, epoch: int) -> list[Rows]:
    """The batches of one epoch: every record once, with one of its phrasings drawn at random.

    With negatives, some of the records ask for something that their image doesn't show, and have an empty mask. If
    every image has the same number of records, an image's records stay together, and the vision tower encodes the image
    once for all of them.

    Args:
      records: the training split.
      batch_size: records in a batch; the last one may hold fewer.
      padded: rows in a batch, `batch_size` or more; rows without a record have weight 0.
      seed: of the run.
      epoch: from 1; order and phrasings depend only on this and `seed`, negatives also on `batch_size`.
    """
    import grain  # loads late: a command that only predicts needs none of it

    rows_per_image = _rows_per_image(records, batch_size, padded)
    order = grain.MapDataset.range(len(records) // rows_per_image).shuffle(seed=_mix(seed, epoch))
    groups = np.asarray([order[place] for place in range(len(order))])
    rows = (groups[:, None] * rows_per_image + np.arange(rows_per_image)).reshape(-1)
    draw = np.random.default_rng([seed, epoch])
    phrasings = np.asarray([len(prompt) for prompt in records.prompts])
    phrase = _first_phrase(records) + draw.integers(0, phrasings[records.prompt])
    if records.negatives is not None:
        asking, phrase_of_absent = ask_for_absent(records, rows, batch_size, seed, epoch)
        phrase[asking] = phrase_of_absent
        records = records.without_masks(asking)
    return _batches(records, rows, phrase, batch_size, padded)


def evaluation(records: Records, batch_size: int, padded: int) -> list[Rows]:
    """Every record once, in the split's order, with its first phrasing; arguments as in `training`."""
    return _batches(records, np.arange(len(records)), _first_phrase(records), batch_size, padded)


def num_batches(records: Records, batch_size: int) -> int:
    """The number of batches in an epoch."""
    return -(-len(records) // batch_size)


def _batches(records: Records, rows: np.ndarray, phrase: np.ndarray, batch_size: int, padded: int) -> list[Rows]:
    rows_per_image = _rows_per_image(records, batch_size, padded)
    batches = []
    for start in range(0, len(rows), batch_size):
        taken = rows[start : start + batch_size]
        filled = np.pad(taken, (0, padded - len(taken)), mode="edge")
        batches.append(
            Rows(
                image=_host(records.image[filled[::rows_per_image]]),
                map=_host(records.map[filled]),
                bits=_host(records.bits[filled]),
                value=_host(records.value[filled]),
                phrase=_host(phrase[filled].astype(np.int32)),
                weight=_host((np.arange(padded) < len(taken)).astype(np.float32)),
            )
        )
    return batches


def _rows_per_image(records: Records, batch_size: int, padded: int) -> int:
    """Number of neighbouring rows of a batch that share one image."""
    number = records.prompts_per_image
    return number if batch_size % number == 0 and padded % number == 0 else 1


def _host(array: np.ndarray) -> Array:
    """The array, typed as jax's; rows stay in the host's memory until they are sharded over the devices."""
    return cast(Array, array)


def _first_phrase(records: Records) -> np.ndarray:
    """(record,) the row of `records.phrases` that holds a record's first phrasing."""
    lengths: Sequence[int] = [len(prompt) for prompt in records.prompts]
    return np.cumsum([0, *lengths[:-1]])[records.prompt]


def _mix(seed: int, epoch: int) -> int:
    """One 32-bit seed of two numbers."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
