"""One demo for the tests of its server and of its page."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """What the demo writes to: its output, and its temporary files."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="session")
def address(folder) -> Iterator[str]:
    """A demo of a run, which takes uploads of 1 MiB."""
    import demo_process  # not above: pytest reads this file before the session has a folder
    import small

    with demo_process.running(folder, "--run", str(small.finished()), "--upload-mib", "1") as address:
        yield address
