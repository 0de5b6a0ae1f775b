"""Draws the records of an epoch that ask for something absent."""

import numpy as np

from tunevlseg_jax.data.records import Records

OFFSET, STEP = 1, 2
"""Streams of random numbers: of the epoch's rounding, and of each step's draw."""


def ask_for_absent(
    records: Records, rows: np.ndarray, batch_size: int, seed: int, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """The records that ask for something absent in this epoch, and the phrases with which they do.

    Every batch and the epoch as a whole have their share to within one record. A batch has fewer where too many of its
    images show everything. The draw depends only on seed, epoch and step.

    Args:
      records: a training split with negatives.
      rows: (record,) the records in the epoch's order.
      batch_size: records in a batch.
      seed: of the order.
      epoch: from 1.

    Returns:
      (n,) rows of the records, and (n,) rows of `records.phrases`.
    """
    negatives = records.negatives
    assert negatives is not None
    offset = np.random.default_rng([seed, epoch, 0, OFFSET]).random()
    chosen, phrases = [np.zeros(0, np.int64)], []
    for step, start in enumerate(range(0, len(rows), batch_size)):
        draw = np.random.default_rng([seed, epoch, step, STEP])
        batch = draw.permutation(rows[start : start + batch_size])
        first, last = (int(place * negatives.share + offset) for place in (start, start + len(batch)))
        asked = batch[negatives.allowed[records.image[batch]].any(axis=1)][: last - first]
        for allowed in negatives.allowed[records.image[asked]]:
            thing = draw.choice(np.flatnonzero(allowed))
            phrases.append(draw.choice(negatives.phrases[thing]))
        chosen.append(asked)
    return np.concatenate(chosen), np.asarray(phrases, np.int64)
