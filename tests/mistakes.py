"""Checks what a mistake of a user is answered with: the code, and the facts that the message names."""

import contextlib
import re
from collections.abc import Iterator

import pytest

from tunevlseg_jax.runtime.errors import UserError


def check_line(line: str, says: str) -> None:
    """Checks an error's line for a code and facts, which are a regular expression, as in "no-such-file: nowhere.py"."""
    code, _, facts = says.partition(": ")
    assert line.rstrip().endswith(f" [{code}]") and re.search(facts, line), f"{says!r} isn't in {line!r}"


@contextlib.contextmanager
def raises(says: str) -> Iterator[pytest.ExceptionInfo[UserError]]:
    """A block that raises a UserError with this code and these facts, as in `check_line`."""
    with pytest.raises(UserError) as error:
        yield error
    check_line(error.value.line, says)


def printed(err: str) -> UserError:
    """The error of a command, from what it wrote to stderr, which is its line alone."""
    line = re.fullmatch(r"error: (.*) \[([a-z0-9-]+)\]\n", err)
    assert line, err
    return UserError(*line.groups())
