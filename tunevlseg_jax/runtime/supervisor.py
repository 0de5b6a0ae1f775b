"""Runs one of several processes in a child, so that the death of another process ends it in one line.

A process that waits for one that is gone is aborted by JAX's own threads, with a page of their log. Its parent reads
that, and says what happened.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable

from tunevlseg_jax.runtime.errors import UserError

MEMBER = "TUNEVLSEG_MEMBER"
"""Environment variable of the child: the file descriptor that closes when its parent ends."""
STATUS = 1
"""Exit status of a process that lost another."""
_LOG = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d")
"""The start of a line in the log of JAX's threads, which may follow our words before their line has ended."""
_LOSS = re.compile("gloo|heartbeat|coordination service|connection (closed|reset|refused)|socket closed", re.IGNORECASE)
_ABSENCE = "CoordinationService/RegisterTask"
"""What JAX's log names when it has waited for the other processes in vain."""


def is_loss(message: str) -> bool:
    """Whether an error of JAX says that another process is gone."""
    return _LOSS.search(message) is not None


def loss() -> UserError:
    """The error of a process that lost another."""
    message = "lost another process, which ended or can't be reached; the same commands go on where this left off"
    return UserError(message, "lost-process")


def absence() -> UserError:
    """The error of a process whose others didn't all come."""
    message = "not all processes met at the coordinator within five minutes"
    remedy = "start the same command on every host, with a --coordinator that each of them reaches"
    return UserError(f"{message}; {remedy}", "cannot-connect")


def is_needed() -> bool:
    """Whether this process has no supervisor yet, on a system where it can have one."""
    return os.name == "posix" and MEMBER not in os.environ


def supervise() -> int:
    """Runs this command again in a child, passes signals on to it, and returns the status to exit with."""
    reading, writing = os.pipe()
    with subprocess.Popen(
        [sys.executable, *sys.orig_argv[1:]],
        env=os.environ | {MEMBER: str(reading)},
        pass_fds=(reading,),
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # or Ctrl-C would reach it twice
    ) as child:
        os.close(reading)
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, lambda number, _: child.send_signal(number)) for number in signals}
        try:
            assert child.stderr is not None
            is_said, held = _pass_on(child.stderr)
            status = child.wait()
        finally:
            os.close(writing)
            for number, handler in before.items():
                signal.signal(number, handler)
    log = "".join(held)
    if loss().line in log or (status < 0 and is_loss(log)):
        if not is_said:
            print(f"error: {loss().line}", file=sys.stderr)
        return STATUS
    if status < 0 and _ABSENCE in log:
        print(f"error: {absence().line}", file=sys.stderr)
        return STATUS
    sys.stderr.writelines(held)
    return status if status >= 0 else 128 - status


def end_with_parent() -> None:
    """Lets this process, if it is a child, end when its parent has ended."""
    descriptor = os.environ.get(MEMBER, "")
    if descriptor.isdecimal():
        threading.Thread(target=_wait_for_parent, args=(int(descriptor),), daemon=True).start()


def _wait_for_parent(descriptor: int) -> None:
    os.read(descriptor, 1)  # returns when the other end is closed
    os._exit(STATUS)


def _pass_on(stream: Iterable[str]) -> tuple[bool, list[str]]:
    """Prints the lines of a child's stderr as they come, up to the first line of JAX's log.

    Returns:
      Whether a printed line says that another process is lost, and the lines that weren't printed.
    """
    is_said, held = False, list[str]()
    for line in stream:
        if held:
            held.append(line)
            continue
        if log := _LOG.search(line):
            held.append(line[log.start() :])
            line = f"{line[: log.start()]}\n" if log.start() else ""
        if line:
            is_said = is_said or loss().line in line
            sys.stderr.write(line)
            sys.stderr.flush()
    return is_said, held
