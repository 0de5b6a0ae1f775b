"""A command in a process that is killed after a given time, as often as a test wants, without starting Python again."""

import math
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import small

SERVER = """
import importlib, os, signal, sys, time
from tunevlseg_jax import cli
module, *sys.argv[1:] = sys.argv[1:]
main = importlib.import_module(module).main
print("ready", flush=True)
for line in sys.stdin:
    if not (child := os.fork()):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            cli.run(main)
            os._exit(0)
        except SystemExit as stop:
            os._exit(stop.code or 0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(99)
    end = time.monotonic() + float(line)
    while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < end:
        time.sleep(0.002)
    if not ended[0]:
        os.kill(child, signal.SIGKILL)
        ended = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(ended[1]), flush=True)
"""


class Command:
    """A command that starts whenever it is called; each start is a process of its own."""

    def __init__(self, process: subprocess.Popen):
        self._process = process

    def run(self, seconds: float = math.inf) -> int:
        """Runs the command for at most so many seconds, then kills it; its exit status, -9 if it was killed."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None and self._process.stderr is not None
        line = self._process.stdout.readline()
        assert line, self._process.stderr.read()
        return line

    def ready(self) -> None:
        """Waits until the command is loaded."""
        assert self._line() == "ready\n"


@contextmanager
def command(module: str, *arguments: object) -> Iterator[Command]:
    """A command that is loaded and not started."""
    process = small.start("-c", SERVER, module, *arguments, stdin=True)
    try:
        started = Command(process)
        started.ready()
        yield started
    finally:
        process.communicate()  # its input ends, and so does it
