"""A split as training and evaluation use it."""

from dataclasses import dataclass

from jax import Array

from tunevlseg_jax.data.feeding.feed import Feed
from tunevlseg_jax.data.records import Records
from tunevlseg_jax.models.features import TextFeatures


@dataclass(frozen=True)
class Split:
    """Records at the model's size on their way to the devices.

    Attributes:
      feed: the records.
      table: the tokens of their phrases, or the features of the phrases where those never change.
    """

    feed: Feed
    table: Array | TextFeatures

    @property
    def records(self) -> Records:
        """The records."""
        return self.feed.records
