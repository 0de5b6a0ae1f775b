"""The place of an image in the volume that it is a slice of."""

from typing import NamedTuple


class VolumeSlice(NamedTuple):
    """A slice's place.

    Attributes:
      volume: name of the volume, unique in the set.
      number: of the slice along the axis, from 0.
      step: 1, or n in a set of every n-th slice.
      prepared: number of the volume's slices in the set.
      total: number of slices in the volume.
      spacing: millimetres between the centres of the volume's neighbouring slices; None where unknown.
    """

    volume: str
    number: int
    step: int
    prepared: int
    total: int
    spacing: float | None
