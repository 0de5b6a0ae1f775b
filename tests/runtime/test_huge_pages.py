"""The environment in which commands restart for huge pages."""

import os
import subprocess
import sys

import pytest

from tunevlseg_jax.runtime.huge_pages import VARIABLE, with_huge_pages, without_huge_pages

GLIBC = "CS_GNU_LIBC_VERSION" in getattr(os, "confstr_names", {})


@pytest.mark.skipif(not GLIBC, reason="the setting is glibc's")
@pytest.mark.parametrize(
    ("given", "mode", "expected"),
    [
        ("", "always [madvise] never", "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.check=3", "always [madvise] never", "glibc.malloc.check=3:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", "always [madvise] never", None),
        ("", "[always] madvise never", None),
        ("", "always madvise [never]", None),
        ("", None, None),
    ],
)
def test_huge_pages_are_asked_for_where_the_system_gives_them_on_request(tmp_path, given, mode, expected):
    path = tmp_path / "enabled"
    if mode is not None:
        path.write_text(mode)
    before = {"HOME": "h", VARIABLE: given}
    after = with_huge_pages(before, path)
    assert after == (None if expected is None else {**before, VARIABLE: expected})
    if after is not None:
        assert without_huge_pages(after) == ({"HOME": "h", VARIABLE: given} if given else {"HOME": "h"})


def test_a_command_starts_anew_at_most_once():
    """As the same process, with its options; a library that imports the package doesn't, nor a help text."""
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}

    def starts(option: str) -> int:
        command = [sys.executable, "-X", "importtime", "-m", "tunevlseg_jax.report", option]
        lines = subprocess.run(
            command, capture_output=True, text=True, env=environment, check=False
        ).stderr.splitlines()
        return sum(line.split("|")[-1].strip() == "tunevlseg_jax.runtime.huge_pages" for line in lines)

    assert starts("--nothing") == 1 + (with_huge_pages(environment) is not None)
    assert starts("--help") == 0
    code = "import tunevlseg_jax, os; print(os.environ.get('GLIBC_TUNABLES'))"
    alone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert alone.stdout == "None\n"
