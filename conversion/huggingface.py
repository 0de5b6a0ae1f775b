"""What the conversions of Hugging Face's models have in common: steps, the comparison with transformers."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np

from conversion import output
from conversion.comparison import PHRASES, compare
from conversion.settings import Options
from conversion.torch_files import unpickled
from tunevlseg_jax.pretrained.huggingface_config import PREPROCESSOR
from tunevlseg_jax.pretrained.huggingface_folder import TOKENIZER_CONFIG_FILE
from tunevlseg_jax.pretrained.load import find_checkpoint, load_pretrained, save_pretrained
from tunevlseg_jax.pretrained.model import MODEL_CONFIG_FILE, Pretrained
from tunevlseg_jax.runtime.files import read_object

Save = Callable[[Path, Pretrained, Mapping[str, str], str], None]
"""Writes a folder for transformers, see `save_pretrained`."""
Arrays = Mapping[str, np.ndarray]
"""Outputs by their names."""


def convert(
    options: Options,
    command: str,
    check: Callable[[Pretrained], object],
    verify: Callable[[Pretrained, Path | None], str],
    save: Save,
) -> Path:
    """Converts, prints what it did, and returns the checkpoint's folder.

    Args:
      options: of the command.
      command: the module's name.
      check: raises a UserError for another kind of model.
      verify: compares a model with transformers' from a folder, or from one to be written where there is none.
      save: writes a folder for transformers.

    Raises:
      UserError: there is no such model, it doesn't fit its configuration, or the folder can't be written.
    """
    folder = Path(options.output)
    output.check(folder)
    checkpoint = find_checkpoint(options.checkpoint)
    model = load_pretrained(str(checkpoint), unpickle=unpickled)
    check(model)  # before anything is written
    if options.verify:
        is_theirs = "model_type" in read_object(checkpoint / MODEL_CONFIG_FILE)
        print(verify(model, checkpoint if is_theirs else None))
    source = {"made by": command, "checkpoint": output.portable(options.checkpoint), "sha256": model.sha256}
    print(output.write(folder, model, source, options.dtype, save if options.to_huggingface else save_pretrained))
    if not options.to_huggingface:  # files that an earlier --to-huggingface left
        for name in (PREPROCESSOR, TOKENIZER_CONFIG_FILE):
            (folder / name).unlink(missing_ok=True)
    return checkpoint


def compare_outputs(
    model: Pretrained,
    huggingface: Path | None,
    save: Save,
    ours: Callable[[Pretrained, np.ndarray, np.ndarray], Arrays],
    theirs: Callable[[Path, np.ndarray, np.ndarray], Arrays],
) -> str:
    """Compares outputs with transformers' on one random image and two prompts, at the model's image size.

    Args:
      model: ours.
      huggingface: the folder that the model was read from; None to write one from `model`.
      save: writes it.
      ours: our outputs of a model, of a normalised image, (1, height, width, 3) float32, and of tokens,
        (phrases, length).
      theirs: transformers' outputs of a folder, likewise, with the same names.

    Returns:
      A line for each output with its largest difference.

    Raises:
      UserError: outputs differ, see `compare`, or torch is missing.
    """
    side = model.config.image_size
    image = np.random.default_rng(0).standard_normal((1, side, side, 3), np.float32)
    tokens = model.tokenizer.table(PHRASES, model.config.text.context_length, truncate=True)
    with tempfile.TemporaryDirectory() as temporary:
        if huggingface is None:
            huggingface = Path(temporary)
            save(huggingface, model, {}, "float32")
        expected = theirs(huggingface, image, tokens)
    with jax.default_matmul_precision("highest"):
        found = ours(model, image, tokens)
    return "\n".join(compare(f"transformers' {name}", found[name], expected[name]) for name in expected)
