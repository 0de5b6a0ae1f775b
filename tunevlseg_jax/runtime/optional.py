"""Optional packages, which only some commands need and which an extra installs."""

from typing import Any

from tunevlseg_jax.runtime.errors import UserError


def import_torch(user: str) -> Any:
    """PyTorch, for the option or file named by `user`.

    Raises:
      UserError: PyTorch isn't installed.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError(f"{user} needs torch: install the extra `convert`, or torch itself", "needs-package") from error
    return torch


def import_pycocotools(user: str) -> Any:
    """pycocotools's functions on masks, for the work named by `user`.

    Raises:
      UserError: pycocotools isn't installed.
    """
    try:
        from pycocotools import mask
    except ImportError as error:
        raise UserError(
            f'{user} needs pycocotools: pip install "tunevlseg_jax[annotations]"', "needs-package"
        ) from error
    return mask


def import_yaml(user: str) -> Any:
    """PyYAML, for the file named by `user`.

    Raises:
      UserError: PyYAML isn't installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise UserError(f'{user} needs PyYAML: pip install "tunevlseg_jax[annotations]"', "needs-package") from error
    return yaml


def import_heif(user: str) -> Any:
    """pillow-heif, for the file named by `user`.

    Raises:
      UserError: pillow-heif isn't installed.
    """
    try:
        import pillow_heif
    except ImportError as error:
        raise UserError(f"{user} needs pillow-heif: install the extra `heic`", "needs-package") from error
    return pillow_heif


def import_simpleitk(user: str) -> Any:
    """SimpleITK, without the warnings that it prints, for the file named by `user`.

    Raises:
      UserError: SimpleITK isn't installed.
    """
    try:
        import SimpleITK
    except ImportError as error:
        raise UserError(f'{user} needs SimpleITK: pip install "tunevlseg_jax[medical]"', "needs-package") from error
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    return SimpleITK


def import_pydicom(user: str) -> Any:
    """pydicom, for the file or option named by `user`.

    Raises:
      UserError: pydicom isn't installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise UserError(f'{user} needs pydicom: pip install "tunevlseg_jax[medical]"', "needs-package") from error
    return pydicom


def import_highdicom(user: str) -> Any:
    """highdicom, for the file or option named by `user`.

    Raises:
      UserError: highdicom isn't installed.
    """
    try:
        import highdicom
    except ImportError as error:
        raise UserError(f'{user} needs highdicom: pip install "tunevlseg_jax[medical]"', "needs-package") from error
    return highdicom
