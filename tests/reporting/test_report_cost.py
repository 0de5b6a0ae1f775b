"""The cost of a report on a benchmark of realistic size: processor time and memory, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import many_runs
import pytest
import small

REPORT = """
import json, sys, time
from rich.console import Console
from tunevlseg_jax.reporting.output import write
from tunevlseg_jax.runtime import memory
write.report(write.Options(*sys.argv[1:], words=0, samples=0, page=False), Console(quiet=True))
mebibytes = memory.process_peak() / 2**20
print(json.dumps({"seconds": time.process_time(), "mebibytes": mebibytes}))
"""


@pytest.mark.slow
def test_two_hundred_runs_take_a_tenth_of_what_two_thousand_may(tmp_path: Path):
    """Two thousand runs on ten sets, by ten methods, may take 60 s and 1 GiB; here each method has two seeds, not
    twenty. Comparing ten methods on ten sets costs the same with any number of seeds, and counts in full."""
    assert many_runs.write(tmp_path / "runs", many_runs.SETS, methods=10, seeds=2, records=400) == 200
    command = [sys.executable, "-c", REPORT, str(tmp_path / "runs"), str(tmp_path / "report")]
    done = subprocess.run(command, cwd=small.ROOT, capture_output=True, text=True, timeout=600, check=True)
    cost = json.loads(done.stdout)
    print(cost)
    assert cost["seconds"] < 30 and cost["mebibytes"] < 1024
    assert len((tmp_path / "report" / "pairs.csv").read_text("utf-8").splitlines()) == 1 + 10 * 45
