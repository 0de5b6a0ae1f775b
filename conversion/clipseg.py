"""Converts CLIPSeg: `python -m conversion.clipseg --checkpoint CIDAS/clipseg-rd64 --output checkpoints/rd64`."""

from dataclasses import dataclass
from pathlib import Path

from conversion.settings import Precision
from tunevlseg_jax import cli


@dataclass(frozen=True)
class Options:
    """The model to convert, and the folder to write.

    Attributes:
      checkpoint: Hugging Face folder or hub id of a CLIPSeg, or a model folder of ours.
      output: folder to write; it must be empty, or hold a model that this command wrote, which is replaced.
      dtype: type of the stored weights.
      verify: whether to compare the logits with those of transformers' CLIPSeg first; it needs torch.
      to_huggingface: whether to write a folder for transformers instead of ours.
    """

    checkpoint: str
    output: str
    dtype: Precision = "float32"
    verify: bool = False
    to_huggingface: bool = False


def main() -> None:
    """Converts, and prints a line that describes the result."""
    options = cli.options(Options, "python -m conversion.clipseg", __doc__ or "")

    from conversion import output
    from conversion.torch_files import unpickled
    from tunevlseg_jax.pretrained import clipseg_folder
    from tunevlseg_jax.pretrained.huggingface_config import PREPROCESSOR
    from tunevlseg_jax.pretrained.huggingface_folder import TOKENIZER_CONFIG_FILE
    from tunevlseg_jax.pretrained.load import find_checkpoint, load_pretrained, save_pretrained
    from tunevlseg_jax.pretrained.model import MODEL_CONFIG_FILE
    from tunevlseg_jax.runtime.files import read_object

    folder = Path(options.output)
    output.check(folder)
    checkpoint = find_checkpoint(options.checkpoint)
    model = load_pretrained(str(checkpoint), unpickle=unpickled)
    clipseg_folder.clipseg_config(model)  # before anything is written
    if options.verify:
        from conversion.clipseg_verify import verify

        is_huggingface = "model_type" in read_object(checkpoint / MODEL_CONFIG_FILE)
        print(verify(model, checkpoint if is_huggingface else None))
    source = {"made by": "conversion.clipseg", "checkpoint": output.portable(options.checkpoint)}
    source["sha256"] = model.sha256
    save = clipseg_folder.save if options.to_huggingface else save_pretrained
    print(output.write(folder, model, source, options.dtype, save))
    if not options.to_huggingface:  # files that an earlier --to-huggingface left
        for name in (PREPROCESSOR, TOKENIZER_CONFIG_FILE):
            (folder / name).unlink(missing_ok=True)


if __name__ == "__main__":
    cli.run(main)
