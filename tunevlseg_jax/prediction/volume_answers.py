"""What a model answers for a volume: it sees one slice after the other, and the answers have the volume's geometry."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tunevlseg_jax.data.medical.scan import Scan
from tunevlseg_jax.data.preprocessing import Axis
from tunevlseg_jax.data.windows import Window
from tunevlseg_jax.prediction import forward
from tunevlseg_jax.prediction.forward import Predictor


class VolumeAnswer(NamedTuple):
    """The answer to one prompt.

    Attributes:
      mask: SimpleITK image of uint8, 1 in the object and 0 elsewhere, with the volume's geometry.
      probability: likewise of float32, the probability of each voxel; None where it isn't asked for.
    """

    mask: Any
    probability: Any | None


def ask(
    scan: Scan,
    prompts: Sequence[str],
    predictor: Predictor,
    *,
    axis: Axis,
    window: Window | None,
    threshold: float,
    probabilities: bool,
) -> Iterator[VolumeAnswer]:
    """The answer to each prompt, in their order.

    Args:
      scan: the volume.
      prompts: names of objects; the model sees each slice once for all of them.
      predictor: the model.
      axis: of the slices; `Scan.axis` gives the one that the volume has.
      window: of the values, None for the series' own one or percentiles.
      threshold: probability above which a voxel belongs to a mask.
      probabilities: whether to answer the probabilities as well.

    Raises:
      UserError: a prompt is too long.
    """
    planes = scan.planes(axis, window)
    size = (planes.values.shape[1], planes.values.shape[2])
    masks = [np.zeros((len(planes), *size), np.uint8) for _ in prompts]
    chances = [np.zeros((len(planes), *size), np.float32) if probabilities else None for _ in prompts]
    least, every = forward.logit(threshold), range(len(prompts))
    asked = (forward.Question(index, planes.rgb(index), every) for index in range(len(planes)))
    for index, logits in predictor.logits(asked, prompts):
        assert logits is not None, "every slice is asked for every prompt"
        for mask, chance, small in zip(masks, chances, logits, strict=True):
            large = forward.enlarge(small, size)
            mask[index] = large > least
            if chance is not None:
                chance[index] = predictor.probability(large)
    for mask, chance in zip(masks, chances, strict=True):
        yield VolumeAnswer(scan.restored(mask, axis), None if chance is None else scan.restored(chance, axis))
