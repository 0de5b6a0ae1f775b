"""Errors that are the user's mistake; commands print them as one line."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake that the user can fix: commands print it as one line, without a traceback, and exit with 2.

    Attributes:
      code: the kind of mistake, such as empty-split, whatever the wording of the message; docs/errors.md lists all.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message, code)
        self.code = code

    def __str__(self) -> str:
        return self.args[0]

    @property
    def line(self) -> str:
        """The message and the code as one line."""
        return f"{' '.join(str(self).split())} [{self.code}]"


class EverywhereError(UserError):
    """A UserError that all processes of a run raise at the same point, so that all of them exit in order."""


def nearest(word: str, words: Iterable[str]) -> str:
    """The end of a message about an unknown word: the most similar of `words`, or all of them if none is similar."""
    words = sorted(words)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(words)}"
