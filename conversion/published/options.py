"""The options of conversion.tunevlseg."""

from dataclasses import dataclass, field
from typing import Literal

from tunevlseg_jax.models.settings import Upsampling

PROGRAM = "conversion.tunevlseg"

Kind = Literal["CoOp", "CoCoOp", "VPT", "MaPLe", "SharedSeparate", "SharedAttention"]


@dataclass(frozen=True)
class UnstoredSettings:
    """Settings of a learner that its tensors don't show; the defaults are those of the published configurations.

    Attributes:
      kind: class of the learner, needed only if the towers have equal widths; None derives it from the tensors.
      normalize_image: CoCoOp: whether the image vector is first scaled to length 1.
      heads: Shared Attention: the number of heads.
      norm_first: Shared Attention: whether the block normalises before each part (True) or after each sum (False).
      attends_across_tokens: Shared Attention: whether context tokens attend to one another; in the published code
        each attends to itself only.
    """

    kind: Kind | None = None
    normalize_image: bool = False
    heads: int = 16
    norm_first: bool = True
    attends_across_tokens: bool = False


@dataclass(frozen=True)
class Options:
    """The checkpoint or run to convert, and the place to write.

    Attributes:
      checkpoint: Lightning checkpoint of the published code; with --export the folder of a run.
      output: folder of the run to write, new or of an earlier import; with --export the file to write.
      model: folder, hub id or embedded name of the model that the prompts were learnt for; with --export only if it
        has moved since training.
      export: whether to write a run as a checkpoint for the published code; the options below are for imports.
      upsampling: use of the learnable upsampler; None for that of the published code: "none" for CoOp and CoCoOp on
        CLIPSeg, which never reach it, "add" if the checkpoint has no ratio, as with VPT, and otherwise "blend".
      prompt_offset: delay of the text prompts in blocks; None for the published code's 1 on CRIS and 0 on CLIPSeg.
      image_size: height and width of the images; None for the model's image size.
      learner: settings of the learner that its tensors don't show.
    """

    checkpoint: str
    output: str
    model: str | None = None
    export: bool = False
    upsampling: Upsampling | None = None
    prompt_offset: int | None = None
    image_size: tuple[int, int] | None = None
    learner: UnstoredSettings = field(default_factory=UnstoredSettings)
