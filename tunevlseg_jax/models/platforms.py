"""Forms of a computation: a CPU's own, and the plain one, which every platform and every format can express."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jax import lax

_only_plain: ContextVar[bool] = ContextVar("only_plain", default=False)


def by_platform(*operands: Any, cpu: Callable[..., Any], plain: Callable[..., Any]) -> Any:
    """The result of `cpu` on a CPU and of `plain` elsewhere, or of `plain` everywhere within `only_plain`."""
    if _only_plain.get():
        return plain(*operands)
    return lax.platform_dependent(*operands, cpu=cpu, default=plain)


@contextmanager
def only_plain() -> Iterator[None]:
    """A block in which functions are traced in the plain form, whose batch size may be symbolic."""
    token = _only_plain.set(True)
    try:
        yield
    finally:
        _only_plain.reset(token)
