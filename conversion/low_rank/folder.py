"""PEFT's folder of a LoRA, read and written: adapter_config.json and adapter_model.safetensors."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from conversion.low_rank.modules import Pair
from conversion.torch_files import state_dict
from tunevlseg_jax.learners import LoRA
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.model import write_tensors
from tunevlseg_jax.pretrained.rules import ConversionError
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_object, write_json

CONFIG_FILE, WEIGHTS_FILE, PICKLED_FILE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."
"""The start of every name in PEFT's files."""
SIDES = ("lora_A.weight", "lora_B.weight")
INNOCENT = {
    *("peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "alpha_pattern", "bias", "init_lora_weights"),
    *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "rank_pattern"),
    *("megatron_core", "qalora_group_size", "runtime_config", "ensure_weight_tying"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),  # of `init_lora_weights`, which is checked
}
"""Keys of adapter_config.json that are read, or that change nothing: the tensors say which layers change."""
STARTS = (True, False, "gaussian", "eva", "orthogonal")
"""Values of `init_lora_weights` that leave the base model as it is; other ones change its weights at the start."""


def write(folder: Path, pairs: Mapping[str, Pair], learner: LoRA, base: str, source: Mapping[str, str]) -> None:
    """Writes a folder, the configuration last.

    Args:
      folder: to write, new or existing.
      pairs: by name of their linear layer.
      learner: of the run.
      base: name of the base model.
      source: origin of the matrices, for the reader of the tensors' file.
    """
    tensors = {}
    for name, pair in pairs.items():
        tensors |= {f"{PREFIX}{name}.{side}": matrix for side, matrix in zip(SIDES, pair[:2], strict=True)}
    write_tensors(folder / WEIGHTS_FILE, tensors, metadata={"format": "pt", **source})
    ranks = {name: len(pair.down) for name, pair in pairs.items()}
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "r": _most_common(ranks.values()),
        "lora_alpha": int(learner.alpha) if learner.alpha == int(learner.alpha) else learner.alpha,
        "lora_dropout": learner.dropout,
        "use_rslora": learner.scaling == "root of rank",
        "target_modules": sorted(pairs),
        "bias": "none",
        "inference_mode": True,
    }
    config["rank_pattern"] = {re.escape(name): rank for name, rank in ranks.items() if rank != config["r"]}
    write_json(folder / CONFIG_FILE, config)


def made_by(folder: Path) -> str | None:
    """The command that wrote a folder, as `source` of `write` names it; None for a folder of PEFT's own."""
    if not (folder / WEIGHTS_FILE).is_file():
        return None
    with safe_open(folder / WEIGHTS_FILE, "numpy") as file:
        return (file.metadata() or {}).get("made by")


def read(folder: Path) -> tuple[dict[str, Pair], LoRA]:
    """The pairs of a folder by name of their linear layer, and a learner with its alpha, scaling and dropout.

    Raises:
      UserError: a file is missing or broken, or the adapter does more than LoRA does here; the message names it.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise UserError(f"there is no {CONFIG_FILE} in {folder}: it is no folder of PEFT's", "no-such-file")
    config = read_object(path)
    _check(config, path)
    rooted = bool(config.get("use_rslora"))
    template = LoRA(
        alpha=_number(config.get("lora_alpha", 8), "lora_alpha", path),  # PEFT's default
        scaling="root of rank" if rooted else "rank",
        dropout=_number(dropout, "lora_dropout", path) if (dropout := config.get("lora_dropout")) else 0.0,
    )
    patterns = _patterns(config, path)
    pairs = {}
    for name, (down, up) in _matrices(folder).items():
        # As PEFT matches: the first pattern that is the end of the name.
        alpha = next((alpha for pattern, alpha in patterns.items() if pattern.match(name)), template.alpha)
        pairs[name] = Pair(down, up, alpha / (math.sqrt(len(down)) if rooted else len(down)))
    return pairs, template


def _matrices(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """lora_A and lora_B of each linear layer."""
    safe = folder / WEIGHTS_FILE
    path = safe if safe.is_file() or not (folder / PICKLED_FILE).is_file() else folder / PICKLED_FILE
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in state_dict(path).items()}
    layers = {name.removesuffix(f".{side}") for name in tensors for side in SIDES if name.endswith(f".{side}")}
    expected = {f"{layer}.{side}" for layer in layers for side in SIDES}
    if expected - tensors.keys():
        raise ConversionError(f"{path} lacks {rules.some(sorted(expected - tensors.keys()))}", "wrong-weights")
    if tensors.keys() - expected:
        raise ConversionError(
            f"{path} holds {rules.some(sorted(tensors.keys() - expected))}: only lora_A and lora_B can be imported",
            "unsupported-adapter",
        )
    wrong = sorted(name for name in expected if tensors[name].ndim != 2 or not np.isfinite(tensors[name]).all())
    if wrong:
        raise ConversionError(f"{path}: {rules.some(wrong)} must be finite matrices", "wrong-weights")
    return {layer: (tensors[f"{layer}.{SIDES[0]}"], tensors[f"{layer}.{SIDES[1]}"]) for layer in sorted(layers)}


def _check(config: Mapping[str, Any], path: Path) -> None:
    """Raises a UserError that names the first setting that LoRA here doesn't have."""
    if config.get("peft_type") != "LORA":
        raise UserError(f"{path}: peft_type must be LORA, got {config.get('peft_type')!r}", "unsupported-adapter")
    if config.get("bias", "none") != "none":
        raise UserError(
            f"{path}: bias must be none, got {config['bias']!r}: the trained biases can't be imported",
            "unsupported-adapter",
        )
    if config.get("init_lora_weights", True) not in STARTS:
        raise UserError(
            f"{path}: init_lora_weights {config['init_lora_weights']!r} changed the base model's weights; save the "
            "adapter with path_initial_model_for_weight_conversion, as PEFT's manual shows",
            "unsupported-adapter",
        )
    others = sorted(key for key, value in config.items() if value and key not in INNOCENT)
    if others:
        details = ", ".join(f"{key} {config[key]!r}" for key in others)
        raise UserError(f"{path} has {details}: only plain LoRA can be imported", "unsupported-adapter")


def _patterns(config: Mapping[str, Any], path: Path) -> dict[re.Pattern[str], float]:
    """The alphas of layers that have their own, by a pattern of the layers' names."""
    alphas = {}
    for pattern, alpha in (config.get("alpha_pattern") or {}).items():
        try:
            compiled = re.compile(rf"(.*\.)?({pattern})$")
        except re.error as error:
            raise UserError(
                f"{path}: alpha_pattern has {pattern!r}, no pattern: {error}", "unsupported-adapter"
            ) from error
        alphas[compiled] = _number(alpha, f"alpha_pattern of {pattern}", path)
    return alphas


def _number(value: Any, key: str, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise UserError(f"{path}: {key} must be a number above 0, got {value!r}", "unsupported-adapter")
    return float(value)


def _most_common(ranks: Any) -> int:
    return Counter(ranks).most_common(1)[0][0]
