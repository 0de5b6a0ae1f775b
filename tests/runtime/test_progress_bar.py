"""Tests of progress bars: counts and the remaining time on a terminal, and nothing in a pipe."""

import io
import re

import pytest
import rich
from rich.console import Console

from tunevlseg_jax.runtime import progress_bar


def shown(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> str:
    """What a loop over three items writes."""
    console = Console(file=io.StringIO(), force_terminal=terminal, force_interactive=terminal, width=80)
    monkeypatch.setattr(rich, "get_console", lambda: console)
    assert list(progress_bar.track("abc", "scoring")) == ["a", "b", "c"]
    return console.file.getvalue()


def test_a_terminal_shows_counts_and_time_and_is_clean_at_the_end(monkeypatch):
    text = shown(monkeypatch, terminal=True)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert re.search(r"scoring ━+ 0/3 -:--:--", plain) and re.search(r"scoring ━+ 3/3 0:00:00", plain), plain
    assert text.endswith("\x1b[1A\x1b[2K")  # the bar is erased


def test_a_pipe_shows_nothing(monkeypatch):
    assert shown(monkeypatch, terminal=False) == ""
