"""The folder that a conversion writes."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from conversion.settings import Precision
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.load import save_pretrained
from tunevlseg_jax.pretrained.model import MODEL_CONFIG_FILE, Pretrained
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import atomic_files, read_object


def write(
    output: Path,
    model: Pretrained,
    source: Mapping[str, str],
    dtype: Precision,
    save: Callable[[Path, Pretrained, Mapping[str, str], str], None] = save_pretrained,
) -> str:
    """Writes a model folder whole or not at all; `check` it first. Arguments as in `save_pretrained`.

    Returns:
      A line that describes the folder.

    Raises:
      UserError: float16 can't hold a weight, or the folder can't be written.
    """
    if dtype == "float16":
        _check_range(model.weights)
    with atomic_files(output, last=MODEL_CONFIG_FILE) as folder:
        save(folder, model, source, dtype)
    count, size = len(model.weights), sum(weight.size for weight in model.weights.values())
    return f"wrote {output}: {count} tensors, {size:,} parameters, from weights with sha256 {model.sha256}"


def _is_model(folder: Path) -> bool:
    config = read_object(folder / MODEL_CONFIG_FILE) if (folder / MODEL_CONFIG_FILE).is_file() else {}
    return "source" in config and bool({"model", "model_type"} & set(config))


def check(output: Path, what: str = "a model", is_ours: Callable[[Path], bool] = _is_model) -> None:
    """Raises a UserError where writing would destroy anything but an earlier conversion.

    Args:
      output: the folder to write.
      what: the result of a conversion, in words.
      is_ours: whether a folder holds such a result.
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file; give the name of a folder", "not-a-folder")
    if output.exists() and any(output.iterdir()) and not is_ours(output):
        raise UserError(f"--output {output} is neither empty nor {what} from here; choose another", "other-folder")


def _check_range(weights: Mapping[str, np.ndarray]) -> None:
    """Raises a UserError where a weight is too large for float16."""
    largest = np.finfo(np.float16).max
    too_large = sorted(name for name, weight in weights.items() if np.abs(weight).max() > largest)
    if too_large:
        raise UserError(f"float16 can't hold {rules.some(too_large)}; leave out --dtype", "beyond-float16")


def portable(checkpoint: str) -> str:
    """The checkpoint as typed, but only the name of an absolute path, which means nothing on another machine."""
    return Path(checkpoint).name if Path(checkpoint).is_absolute() else checkpoint
