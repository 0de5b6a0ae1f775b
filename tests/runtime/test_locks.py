"""Tests of file locks: they name their holder, end with it, and are missed on file systems without them."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import mistakes
import pytest

from tunevlseg_jax.runtime import locks
from tunevlseg_jax.runtime.files import atomic_dir


def write_owner(path: Path, host: str, process: int) -> None:
    path.write_text(json.dumps({"host": host, "process": process}))


def ended_process() -> int:
    """The number of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL], ids=errno.errorcode.get)
def no_locks(request, monkeypatch) -> None:
    """A file system without locks: Lustre without -o flock, some NFS."""

    def fail(file, operation):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", fail)


def test_an_owned_lock_names_its_holder_and_leaves_nothing(tmp_path):
    path = tmp_path / "run" / "train.lock"
    with locks.owned(path, "trains in run"):
        assert json.loads(path.read_text()) == {"host": socket.gethostname(), "process": os.getpid()}
        says = f"folder-in-use: process {os.getpid()} on host {socket.gethostname()} trains in run .*train.lock.*wait"
        with mistakes.raises(says), locks.owned(path, "trains in run"):
            raise AssertionError
    assert not list(path.parent.iterdir())


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    path = tmp_path / "train.lock"
    for host in (socket.gethostname(), "elsewhere"):
        write_owner(path, host, ended_process())
        with locks.owned(path, "trains here"):
            assert json.loads(path.read_text())["process"] == os.getpid()


def test_a_lock_whose_file_was_removed_holds_nothing(tmp_path):
    """As when its holder ends between another's opening of the file and its lock."""
    path = tmp_path / "a.lock"
    with locks.hold(path):
        path.unlink()
        with locks.hold(path), pytest.raises(BlockingIOError):
            locks.hold(path)


def test_a_file_system_without_locks_is_one_line(tmp_path, no_locks):
    path = tmp_path / "asking.lock"
    says = "no-locks: asking.lock .*no file locks.*another disk.*-o flock"
    with mistakes.raises(says):
        locks.hold(path)
    with mistakes.raises(says), locks.locked(path):
        raise AssertionError


def test_without_locks_the_file_of_an_owned_lock_is_the_lock(tmp_path, no_locks):
    path, notes = tmp_path / "train.lock", []
    with locks.owned(path, "trains here", notes.append):
        assert json.loads(path.read_text())["process"] == os.getpid()
        assert len(notes) == 1 and str(path) in notes[0]
    assert not path.exists()
    write_owner(path, socket.gethostname(), ended_process())
    with locks.owned(path, "trains here"):
        pass
    for host, process in ((socket.gethostname(), os.getppid()), ("elsewhere", 1)):
        write_owner(path, host, process)
        says = f"folder-in-use: process {process} on host {host} trains here.*train.lock.*delete"
        with mistakes.raises(says), locks.owned(path, "trains here"):
            raise AssertionError
        assert json.loads(path.read_text())["host"] == host


def test_without_locks_a_folder_that_was_left_is_named(tmp_path, no_locks):
    folder = tmp_path / "set"
    with atomic_dir(folder) as temporary:
        (temporary / "a").touch()
        with mistakes.raises("folder-in-use: .set.incomplete.*delete"), atomic_dir(folder):
            raise AssertionError
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "a"]
