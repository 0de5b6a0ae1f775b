"""Converts SAM 3: `python -m conversion.sam3 --checkpoint facebook/sam3 --output checkpoints/sam3`."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from conversion import output
from conversion.comparison import PHRASES, compare
from conversion.output import Precision
from tunevlseg_jax import cli
from tunevlseg_jax.models.sam3 import SAM3Config
from tunevlseg_jax.pretrained import sam3_folder
from tunevlseg_jax.pretrained.huggingface_config import PREPROCESSOR
from tunevlseg_jax.pretrained.huggingface_folder import TOKENIZER_CONFIG_FILE
from tunevlseg_jax.pretrained.load import find_checkpoint, load_pretrained, save_pretrained
from tunevlseg_jax.pretrained.model import MODEL_CONFIG_FILE, WEIGHTS_FILE, Pretrained, tensor_names
from tunevlseg_jax.pretrained.sam3_folder import TRACKER, sam3_config
from tunevlseg_jax.runtime.files import read_object
from tunevlseg_jax.runtime.optional import import_torch


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
    folder = Path(options.output)
    output.check(folder)
    checkpoint = find_checkpoint(options.checkpoint)
    model = load_pretrained(str(checkpoint))
    sam3_config(model)  # before anything is written
    left_out = [name for name in tensor_names(checkpoint / WEIGHTS_FILE) if name.startswith(TRACKER)]
    if left_out:
        print(f"left out {len(left_out)} tensors of the tracker, {' and '.join(f'{name}*' for name in TRACKER)}")
    if options.verify:
        huggingface = "model_type" in read_object(checkpoint / MODEL_CONFIG_FILE)
        print(verify(model, checkpoint if huggingface else None))
    source = {"made by": "conversion.sam3", "checkpoint": output.portable(options.checkpoint), "sha256": model.sha256}
    save = sam3_folder.save if options.to_huggingface else save_pretrained
    print(output.write(folder, model, source, options.dtype, save))
    if not options.to_huggingface:  # files that an earlier --to-huggingface left
        for name in (PREPROCESSOR, TOKENIZER_CONFIG_FILE):
            (folder / name).unlink(missing_ok=True)


def verify(model: Pretrained, huggingface: Path | None) -> str:
    """Compares logits with transformers' on one random image and two prompts, at the model's image size.

    Args:
      model: ours.
      huggingface: the folder that the model was read from; None to write one from `model`.

    Returns:
      A line with the largest difference.

    Raises:
      UserError: the logits differ, see `compare`, or torch is missing.
    """
    import jax

    config = sam3_config(model)
    images = np.random.default_rng(0).standard_normal((1, config.image_size, config.image_size, 3), np.float32)
    tokens = model.tokenizer.table(PHRASES, config.text.context_length, truncate=True)
    with tempfile.TemporaryDirectory() as temporary:
        if huggingface is None:
            huggingface = Path(temporary)
            sam3_folder.save(huggingface, model, {})
        theirs = _their_logits(huggingface, config, images, tokens)
    with jax.default_matmul_precision("highest"):
        ours = _our_logits(model, images, tokens)
    return compare("transformers' logits", ours, theirs)


def _our_logits(model: Pretrained, images: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    import jax

    from tunevlseg_jax.models.build import fill_module
    from tunevlseg_jax.prompts import Prompts

    @jax.jit
    def logits(weights, images, tokens):
        sam3 = fill_module(sam3_config(model).build, weights)
        features = sam3.vision(images, Prompts()).repeat(len(tokens))
        return sam3.decode(features, sam3.text(tokens, Prompts())).logits

    return np.asarray(logits(dict(model.weights), images, tokens))


def _their_logits(folder: Path, config: SAM3Config, images: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Transformers' logits in float32, one phrase at a time: at full size float64 would need twice the memory."""
    torch = import_torch("--verify")
    from transformers import Sam3Model
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = Sam3Model.from_pretrained(folder, dtype=torch.float32).eval()
    ends = (tokens == config.text.end_token).argmax(axis=1)
    mask = np.arange(tokens.shape[1])[None] <= ends[:, None]
    pixels = torch.tensor(images.transpose(0, 3, 1, 2))
    rows = []
    with torch.inference_mode():
        for row, valid in zip(tokens, mask, strict=True):
            words = {"input_ids": torch.tensor(row[None]), "attention_mask": torch.tensor(valid[None]).long()}
            coarse = model(pixel_values=pixels, **words).semantic_seg
            rows.append(torch.nn.functional.interpolate(coarse, images.shape[1:3], mode="bilinear")[0, 0])
    return torch.stack(rows).numpy()


if __name__ == "__main__":
    cli.run(main)
