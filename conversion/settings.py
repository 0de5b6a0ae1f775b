"""Choices of a conversion."""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["float32", "float16"]
"""Type of the stored weights."""


@dataclass(frozen=True)
class Options:
    """The model to convert, and the folder to write.

    Attributes:
      checkpoint: Hugging Face folder or hub id of such a model, or a model folder of ours.
      output: folder to write; it must be empty, or hold a model that this command wrote, which is replaced.
      dtype: type of the stored weights.
      verify: whether to compare the outputs with those of transformers first; it needs torch.
      to_huggingface: whether to write a folder for transformers instead of ours.
    """

    checkpoint: str
    output: str
    dtype: Precision = "float32"
    verify: bool = False
    to_huggingface: bool = False
