"""Packages that only some commands need, and that an extra installs."""

from __future__ import annotations

from typing import Any

from tunevlseg_jax.runtime.errors import UserError


def import_torch(user: str) -> Any:
    """PyTorch, for the option or the file that `user` names.

    Raises:
      UserError: it isn't installed.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError(f"{user} needs torch: install the extra `convert`, or torch itself") from error
    return torch
