"""Compiled programs outlive the process, where there is room for them."""

import subprocess
import sys

import pytest
import small

PROGRAM = """
import jax, jax.numpy as jnp
from tunevlseg_jax.runtime import cache
cache.MIN_COMPILE_SECONDS = 0.0
cache.enable_compilation_cache()
print(jax.jit(lambda x: jnp.sin(x @ x))(jnp.ones((8, 8))).sum())
"""


@pytest.fixture
def process(monkeypatch):
    def run(**environment):
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        command = [sys.executable, "-W", "error", "-c", PROGRAM]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=small.ROOT).stdout

    return run


def kept(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*-cache")}


def test_programs_are_kept_and_found(process, tmp_path):
    first = process(TUNEVLSEG_CACHE=tmp_path)
    written = kept(tmp_path / "programs")
    assert written
    assert process(TUNEVLSEG_CACHE=tmp_path) == first
    assert kept(tmp_path / "programs") == written


def test_a_folder_that_was_chosen_stays(process, tmp_path):
    process(TUNEVLSEG_CACHE=tmp_path / "ours", JAX_COMPILATION_CACHE_DIR=tmp_path / "theirs")
    assert not (tmp_path / "ours").exists()


def test_without_a_folder_nothing_is_kept(process, tmp_path):
    (tmp_path / "file").touch()
    process(TUNEVLSEG_CACHE=tmp_path / "file" / "below")
