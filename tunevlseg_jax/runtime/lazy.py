"""JAX and Flax, loaded when they are first used: help texts and wrong options don't wait for them."""

import importlib
import sys
from typing import TYPE_CHECKING, Any


class LazyModule:
    """Stands for a module, which loads when its first attribute is read; Python 3.15 has `lazy import` for it.

    A file that uses one in annotations needs `from __future__ import annotations`, which leaves them unread.
    """

    def __init__(self, name: str):
        """`name` is the module's full name."""
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._name), name)


def is_loaded(name: str) -> bool:
    """Whether this process has loaded a module."""
    return name in sys.modules


if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp
    from flax import traverse_util
    from jax.experimental import multihost_utils
else:
    jax, jnp = LazyModule("jax"), LazyModule("jax.numpy")
    multihost_utils = LazyModule("jax.experimental.multihost_utils")
    traverse_util = LazyModule("flax.traverse_util")

__all__ = ["LazyModule", "is_loaded", "jax", "jnp", "multihost_utils", "traverse_util"]
