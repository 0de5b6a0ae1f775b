"""Converts SAM 3: `python -m conversion.sam3 --checkpoint facebook/sam3 --output checkpoints/sam3`."""

from dataclasses import dataclass
from pathlib import Path

from conversion.settings import Precision
from tunevlseg_jax import cli


@dataclass(frozen=True)
class Options:
    """The model to convert, and the folder to write.

    Attributes:
      checkpoint: Hugging Face folder or hub id of a SAM 3, or a model folder of ours. A checkpoint that holds the
        tracker of videos as well is converted without it.
      output: folder to write; it must be empty, or hold a model that this command wrote, which is replaced.
      dtype: type of the stored weights.
      verify: whether to compare the logits with those of transformers' Sam3Model first; it needs torch.
      to_huggingface: whether to write a folder for transformers instead of ours.
    """

    checkpoint: str
    output: str
    dtype: Precision = "float32"
    verify: bool = False
    to_huggingface: bool = False


def main() -> None:
    """Converts, and prints a line that describes the result."""
    options = cli.options(Options, "python -m conversion.sam3", __doc__ or "")

    from conversion import output
    from tunevlseg_jax.pretrained import sam3_folder
    from tunevlseg_jax.pretrained.huggingface_config import PREPROCESSOR
    from tunevlseg_jax.pretrained.huggingface_folder import TOKENIZER_CONFIG_FILE
    from tunevlseg_jax.pretrained.load import find_checkpoint, load_pretrained, save_pretrained
    from tunevlseg_jax.pretrained.model import MODEL_CONFIG_FILE, WEIGHTS_FILE, tensor_names
    from tunevlseg_jax.runtime.files import read_object

    folder = Path(options.output)
    output.check(folder)
    checkpoint = find_checkpoint(options.checkpoint)
    model = load_pretrained(str(checkpoint))
    sam3_folder.sam3_config(model)  # before anything is written
    left_out = [name for name in tensor_names(checkpoint / WEIGHTS_FILE) if name.startswith(sam3_folder.TRACKER)]
    if left_out:
        starts = " and ".join(f"{name}*" for name in sam3_folder.TRACKER)
        print(f"left out {len(left_out)} tensors of the tracker, {starts}")
    if options.verify:
        from conversion.sam3_verify import verify

        huggingface = "model_type" in read_object(checkpoint / MODEL_CONFIG_FILE)
        print(verify(model, checkpoint if huggingface else None))
    source = {"made by": "conversion.sam3", "checkpoint": output.portable(options.checkpoint), "sha256": model.sha256}
    save = sam3_folder.save if options.to_huggingface else save_pretrained
    print(output.write(folder, model, source, options.dtype, save))
    if not options.to_huggingface:  # files that an earlier --to-huggingface left
        for name in (PREPROCESSOR, TOKENIZER_CONFIG_FILE):
            (folder / name).unlink(missing_ok=True)


if __name__ == "__main__":
    cli.run(main)
