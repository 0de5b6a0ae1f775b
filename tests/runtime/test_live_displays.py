"""Test that no library replaces Python's import while a live display's thread runs."""

import small

PROGRAM = """
import contextlib, sys, threading
import etils.epy as epy
from etils.epy import lazy_imports_utils
from rich.console import Console
from rich.live import _RefreshThread
before, calls = lazy_imports_utils.lazy_imports, []

@contextlib.contextmanager
def lazy_imports(*arguments, **options):
    calls.append(any(isinstance(thread, _RefreshThread) for thread in threading.enumerate()))
    with before(*arguments, **options):
        yield

lazy_imports_utils.lazy_imports = epy.lazy_imports = lazy_imports
import small
from tunevlseg_jax.config import Train
from tunevlseg_jax.runs import trainer
settings = Train(epochs=1, batch_size=8, augment=False)
trainer.train(small.config(sys.argv[1], train=settings), Console(quiet=True))
print(len(calls), sum(calls))
"""


def test_nothing_replaces_the_import_under_a_bar(tmp_path):
    """grain's loading does it, and a thread that imports at that moment ends with a traceback."""
    status, out, err = small.finish(small.start("-c", PROGRAM, tmp_path / "run"))
    assert status == 0, err
    calls, under_a_bar = map(int, out.split())
    assert calls >= 1 and under_a_bar == 0
