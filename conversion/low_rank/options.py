"""The options of conversion.peft."""

from dataclasses import dataclass

PROGRAM = "conversion.peft"


@dataclass(frozen=True)
class Options:
    """The run or the adapter to convert, and the folder to write.

    Attributes:
      output: folder to write; it must be empty, or hold what this command wrote, which is replaced.
      run: folder of a run of LoRA on a CLIPSeg, to write as PEFT's folder.
      adapter: PEFT's folder of a LoRA for Hugging Face's CLIPSeg, to write as a run for evaluate and predict.
      model: folder, hub id or embedded name of the adapter's base model; with --run only if it has moved.
      merge: whether to write a run's model with the LoRA added to its weights instead, as a Hugging Face folder.
      image_size: (height, width) that an adapter was trained with; None for the model's own.
    """

    output: str
    run: str | None = None
    adapter: str | None = None
    model: str | None = None
    merge: bool = False
    image_size: tuple[int, int] | None = None
