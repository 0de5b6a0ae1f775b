"""Optional packages, which only some commands need and which an extra installs."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tunevlseg_jax.runtime.errors import UserError

DECODERS = {
    "gdcm": 'python-gdcm: pip install "tunevlseg_jax[medical]"',
    "libjpeg": "pylibjpeg-libjpeg: pip install pylibjpeg pylibjpeg-libjpeg",
    "openjpeg": "pylibjpeg-openjpeg: pip install pylibjpeg pylibjpeg-openjpeg",
}
"""Modules that pydicom decodes compressed pixels with, and how to install them; the last two are in no extra."""


@contextmanager
def _needed(message: str) -> Iterator[None]:
    """A block that imports a package; raises a UserError with this message if the package isn't installed."""
    try:
        yield
    except ImportError as error:
        raise UserError(message, "needs-package") from error


def import_torch(user: str) -> Any:
    """PyTorch, for the option or file named by `user`.

    Raises:
      UserError: PyTorch isn't installed.
    """
    with _needed(f"{user} needs torch: install the extra `convert`, or torch itself"):
        import torch
    return torch


def import_pycocotools(user: str) -> Any:
    """pycocotools's functions on masks, for the work named by `user`.

    Raises:
      UserError: pycocotools isn't installed.
    """
    with _needed(f'{user} needs pycocotools: pip install "tunevlseg_jax[annotations]"'):
        from pycocotools import mask
    return mask


def import_yaml(user: str) -> Any:
    """PyYAML, for the file named by `user`.

    Raises:
      UserError: PyYAML isn't installed.
    """
    with _needed(f'{user} needs PyYAML: pip install "tunevlseg_jax[annotations]"'):
        import yaml
    return yaml


def import_web_server(user: str) -> Any:
    """uvicorn, and Starlette for its applications, for the command named by `user`.

    Raises:
      UserError: one of them isn't installed.
    """
    with _needed(f'{user} needs starlette and uvicorn: pip install "tunevlseg_jax[demo]"'):
        import starlette  # noqa: F401  # pyright: ignore[reportMissingImports]
        import uvicorn  # pyright: ignore[reportMissingImports]
    return uvicorn


def import_onnx(user: str) -> tuple[Any, Any]:
    """ONNX and ONNX Runtime, for the option named by `user`.

    Raises:
      UserError: one of them isn't installed.
    """
    with _needed(f'{user} needs onnx and onnxruntime: pip install "tunevlseg_jax[onnx]"'):
        import onnx
        import onnxruntime
    return onnx, onnxruntime


def import_heif(user: str) -> Any:
    """pillow-heif, for the file named by `user`.

    Raises:
      UserError: pillow-heif isn't installed.
    """
    with _needed(f"{user} needs pillow-heif: install the extra `heic`"):
        import pillow_heif
    return pillow_heif


def import_simpleitk(user: str) -> Any:
    """SimpleITK, without the warnings that it prints, for the file named by `user`.

    Raises:
      UserError: SimpleITK isn't installed.
    """
    with _needed(f'{user} needs SimpleITK: pip install "tunevlseg_jax[medical]"'):
        import SimpleITK
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    return SimpleITK


def import_pydicom(user: str) -> Any:
    """pydicom, for the file or option named by `user`.

    Raises:
      UserError: pydicom isn't installed.
    """
    with _needed(f'{user} needs pydicom: pip install "tunevlseg_jax[medical]"'):
        import pydicom
    return pydicom


def import_highdicom(user: str) -> Any:
    """highdicom, for the file or option named by `user`.

    Raises:
      UserError: highdicom isn't installed.
    """
    with _needed(f'{user} needs highdicom: pip install "tunevlseg_jax[medical]"'):
        import highdicom
    return highdicom


def require_decoder(module: str, user: str) -> None:
    """Raises a UserError unless the module is installed that pydicom decodes the pixels named by `user` with."""
    with _needed(f"{user} needs {DECODERS[module]}"):
        importlib.import_module(module)
