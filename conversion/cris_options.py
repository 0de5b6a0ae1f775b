"""The options of the conversion of CRIS."""

from dataclasses import dataclass
from typing import Literal

from conversion.settings import Precision


@dataclass(frozen=True)
class Options:
    """The checkpoint to convert, and the folder to write.

    Attributes:
      checkpoint: file of a CRIS, such as the public cris_best.pth: a state dict, bare or under "state_dict", names with
        or without "module.".
      output: folder to write; it must be empty, or hold a model that this command wrote, which is replaced.
      tokenizer: folder or hub id of a model with CLIP's tokenizer, such as CIDAS/clipseg-rd64; a CRIS has none.
      clip: OpenAI's RN50.pt (or RN101.pt), for a checkpoint that lacks CLIP's weights.
      preset: the required encoder; None accepts any.
      decoder_heads: heads of the decoder's attentions, which the tensors don't show.
      image_size: side of the images that the model was trained with, which the tensors don't show either.
      dtype: type of the stored weights.
      verify: whether to compare with torch models of the same weights, for the parts that have one.
    """

    checkpoint: str
    output: str
    tokenizer: str | None = None
    clip: str | None = None
    preset: Literal["RN50", "RN101"] | None = None
    decoder_heads: int = 8
    image_size: int = 416
    dtype: Precision = "float32"
    verify: bool = False
