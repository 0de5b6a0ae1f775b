"""Prompt tuning for vision-language segmentation models in JAX; `docs/python.md` shows its use in Python."""

import importlib
import sys
from typing import TYPE_CHECKING, Any

# Python looks for a command of this package, and nothing else is imported yet; a help text needs little memory.
if sys.argv[:1] == ["-m"] and not {"-h", "--help"} & {*sys.argv}:
    from tunevlseg_jax.runtime import huge_pages

    huge_pages.restart_command()

if TYPE_CHECKING:
    from tunevlseg_jax.api import records, sweep, train
    from tunevlseg_jax.config import Config, Model, Optim, Train
    from tunevlseg_jax.data.settings import Data, Scenes
    from tunevlseg_jax.learners import (
        IVLP,
        VPT,
        BitFit,
        CoCoOp,
        Combined,
        CoOp,
        KgCoOp,
        LinearProbe,
        LoRA,
        MaPLe,
        NormTuning,
        PromptSRC,
        SharedAttention,
        SharedSeparate,
        VLSMAdapter,
        ZeroShot,
    )
    from tunevlseg_jax.run import Run, load_model, load_run
    from tunevlseg_jax.runtime.errors import UserError

__version__ = "0.1.0"

__all__ = [
    "IVLP",
    "VPT",
    "BitFit",
    "CoCoOp",
    "CoOp",
    "Combined",
    "Config",
    "Data",
    "KgCoOp",
    "LinearProbe",
    "LoRA",
    "MaPLe",
    "Model",
    "NormTuning",
    "Optim",
    "PromptSRC",
    "Run",
    "Scenes",
    "SharedAttention",
    "SharedSeparate",
    "Train",
    "UserError",
    "VLSMAdapter",
    "ZeroShot",
    "load_model",
    "load_run",
    "records",
    "sweep",
    "train",
]

_MODULES = {
    "api": ("records",),
    "config": ("Config", "Model", "Optim", "Train"),
    "data.settings": ("Data", "Scenes"),
    "learners": (
        "IVLP",
        "VPT",
        "BitFit",
        "CoCoOp",
        "CoOp",
        "Combined",
        "KgCoOp",
        "LinearProbe",
        "LoRA",
        "MaPLe",
        "NormTuning",
        "PromptSRC",
        "SharedAttention",
        "SharedSeparate",
        "VLSMAdapter",
        "ZeroShot",
    ),
    "run": ("Run", "load_model", "load_run"),
    "runtime.errors": ("UserError",),
}
_COMMANDS = ("sweep", "train")
"""Names of a command's module and of a function: the module is callable, and calls the function."""


def __getattr__(name: str) -> Any:
    """Loads a name when it is first used: `import tunevlseg_jax` alone doesn't load JAX."""
    if name in _COMMANDS:
        return importlib.import_module(f"{__name__}.{name}")
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
