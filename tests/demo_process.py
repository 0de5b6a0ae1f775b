"""Starts the command demo as a process."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import compilation
import pytest
import small

needs_server = pytest.mark.skipif(importlib.util.find_spec("uvicorn") is None, reason="needs the extra `demo`")


@contextmanager
def running(folder: Path, *options: str) -> Iterator[str]:
    """The address of a demo that writes into `folder`, with its temporary files in `folder`/tmp; Ctrl-C ends it."""
    (folder / "tmp").mkdir(parents=True)
    settings = {
        "JAX_PLATFORMS": "cpu",
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": small.PYTHONPATH,
        "TMPDIR": str(folder / "tmp"),
        **{name.upper(): str(value) for name, value in compilation.settings().items()},
    }
    command = [sys.executable, "-m", "tunevlseg_jax.demo", "--output", str(folder / "out"), *options]
    with (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            command, env=os.environ | settings, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8"
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "http://" in line, line + (folder / "stderr").read_text("utf-8")
            yield line.rsplit(": ", 1)[1].strip().rstrip("/")
            process.send_signal(signal.SIGINT)
            assert process.wait(180) == 130
            assert (folder / "stderr").read_text("utf-8").strip() == "interrupted"
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
